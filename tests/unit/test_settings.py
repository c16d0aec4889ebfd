"""Settings: where they come from, what wins, and how mistakes are told."""

from pathlib import Path

import pytest

from dragonfly.settings import Settings, SettingsInvalid, all_settings, load_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "dragonfly.toml"


def problems_of(environ: dict[str, str], config: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(environ, config)
    return caught.value.problems


def test_without_file_and_environment_the_defaults_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({}) == Settings()


def test_a_file_in_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dragonfly.toml").write_text("[server]\nport = 9000\n")
    assert load_settings({}).server.port == 9000


def test_the_environment_names_the_file_and_wins_over_it(config: Path) -> None:
    config.write_text('data_dir = "here"\n[server]\nport = 9000\nhost = "::1"\n')
    settings = load_settings({"DRAGONFLY_CONFIG": str(config), "DRAGONFLY_SERVER__PORT": " 9001 "})
    assert (settings.server.port, settings.server.host, settings.data_dir) == (9001, "::1", Path("here"))


def test_each_kind_of_value_is_read_from_the_environment(config: Path) -> None:
    config.write_text("")
    settings = load_settings(
        {
            "DRAGONFLY_SERVER__ALLOWED_HOSTS": "a.example, b.example",
            "DRAGONFLY_SERVER__SHUTDOWN_S": "2.5",
            "DRAGONFLY_CATALOG__BUILTIN": "False",
            "DRAGONFLY_UPSTREAM__CA_FILE": "/etc/ca.pem",
            "DRAGONFLY_KEY_PEPPER": "pepper",
            "DRAGONFLY_ADMISSION__LEASE_NUSD": "5_000",
        },
        config,
    )
    assert settings.server.allowed_hosts == ("a.example", "b.example")
    assert settings.server.shutdown_s == 2.5
    assert settings.catalog.builtin is False
    assert settings.upstream.ca_file == Path("/etc/ca.pem")
    assert settings.key_pepper.get_secret_value() == "pepper"
    assert settings.admission.lease_nusd == 5_000


def test_a_secret_may_stand_in_a_file(config: Path, tmp_path: Path) -> None:
    config.write_text("")
    (tmp_path / "pepper").write_text("from-a-file\n")
    settings = load_settings({"DRAGONFLY_KEY_PEPPER_FILE": str(tmp_path / "pepper")}, config)
    assert settings.key_pepper.get_secret_value() == "from-a-file"


def test_only_secrets_may_stand_in_files(config: Path) -> None:
    config.write_text("")
    problems = problems_of({"DRAGONFLY_SERVER__PORT_FILE": "/run/port"}, config)
    assert problems == ("DRAGONFLY_SERVER__PORT_FILE: no such setting. Did you mean DRAGONFLY_SERVER__PORT?",)


def test_tables_of_the_catalogue_are_handed_on_as_they_stand(config: Path) -> None:
    config.write_text(
        '[providers.local]\nbase_url = "http://127.0.0.1:11434/v1"\n[[models]]\nid = "local/llama"\n'
        "since = 2026-01-01\n"
    )
    tables = load_settings({}, config).catalog_tables
    assert tables["providers"] == {"local": {"base_url": "http://127.0.0.1:11434/v1"}}
    assert isinstance(tables["models"], list)
    assert tables["models"][0]["id"] == "local/llama"


def test_all_mistakes_are_told_at_once(config: Path, tmp_path: Path) -> None:
    config.write_text(
        'data_dri = "x"\n[server]\nport = 70000\nhosts = ["a"]\n[limits]\nhead_s = 0\nbody_bytes_max = "big"\n'
        "idle_s = true\nhead_bytes_max = 2026-01-01\n[sever]\nport = 1\n"
    )
    problems = problems_of(
        {
            "DRAGONFLY_SERVER__PROT": "1",
            "DRAGONFLY_SERVER__WORKERS": "many",
            "DRAGONFLY_CATALOG__BUILTIN": "perhaps",
            "DRAGONFLY_LOG_LEVEL": "loud",
            "DRAGONFLY_KEY_PEPPER_FILE": str(tmp_path / "nothing"),
            "UNRELATED": "1",
        },
        config,
    )
    assert set(problems) == {
        "data_dri: no such setting. Did you mean data_dir?",
        "sever: no such setting. Did you mean server?",
        "server.port: needs 65535 or less.",
        "server.hosts: no such setting. Did you mean server.host?",
        "server.workers: needs a whole number.",
        "limits.head_s: needs more than 0.",
        "limits.body_bytes_max: needs a whole number.",
        "limits.idle_s: needs a number.",
        "limits.head_bytes_max: needs a whole number.",
        "catalog.builtin: needs true or false.",
        "log_level: needs one of the documented words.",
        "DRAGONFLY_SERVER__PROT: no such setting. Did you mean DRAGONFLY_SERVER__PORT?",
        "DRAGONFLY_KEY_PEPPER_FILE: the file cannot be read as text of at most 65536 bytes.",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server\n", "is not valid TOML at line 1, column 8."),
        ('key_pepper = "hunter2\n', "is not valid TOML at line 1, column 22."),
        ('key_pepper = "hunter2', "is not valid TOML at end of document."),
        ("x = 1\nx = 2\n", "is not valid TOML at line 2, column 6."),
    ],
)
def test_a_broken_file_is_told_by_its_place_alone(config: Path, text: str, problem: str) -> None:
    config.write_text(text)
    assert problems_of({}, config) == (f"{config}: {problem}",)


def test_a_file_that_is_missing_is_told(config: Path) -> None:
    assert problems_of({}, config) == (f"{config}: cannot be read (No such file or directory).",)
    assert problems_of({"DRAGONFLY_CONFIG": str(config)}) == problems_of({}, config)


def test_a_file_that_is_not_text_is_told(config: Path) -> None:
    config.write_bytes(b"\xff\xfe")
    assert problems_of({}, config) == (f"{config}: is not UTF-8 text.",)


def test_the_inner_name_of_the_catalogue_tables_cannot_be_set(config: Path) -> None:
    config.write_text("[catalog_tables]\nproviders = {}\n")
    assert problems_of({}, config)[0].startswith("catalog_tables: no such setting.")


@pytest.mark.parametrize("variable", ["DRAGONFLY_KEY_PEPPER", "DRAGONFLY_DATABASE_URL"])
def test_a_secret_and_its_file_together_are_refused(config: Path, variable: str) -> None:
    config.write_text("")
    problems = problems_of({variable: "a", variable + "_FILE": "b"}, config)
    assert problems == (f"{variable}_FILE: {variable} is set too; keep one of the two.",)


def test_no_sentence_and_no_error_shows_a_value(config: Path) -> None:
    canary = "CANARY8f2e"
    config.write_text(
        f'key_pepper = ["{canary}"]\nlog_level = "{canary}"\n[server]\nport = "{canary}"\n'
        f'allowed_hosts = "{canary}"\n[catalog]\nbuiltin = "{canary}"\n'
    )
    with pytest.raises(SettingsInvalid) as caught:
        load_settings({"DRAGONFLY_SERVER__WORKERS": canary, "DRAGONFLY_DATA_DRI": canary}, config)
    assert len(caught.value.problems) == 7
    assert canary not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_settings_do_not_show_their_secrets() -> None:
    settings = load_settings({"DRAGONFLY_KEY_PEPPER": "CANARY8f2e"}, ROOT / "dragonfly.example.toml")
    assert "CANARY8f2e" not in repr(settings)


def test_every_setting_has_its_own_variable() -> None:
    variables = [setting.variable for setting in all_settings()]
    assert len(set(variables)) == len(variables)
    assert "DRAGONFLY_SERVER__PORT" in variables
    assert not {name + "_FILE" for name in variables} & set(variables)
