"""The documents say what the code does: names in them exist, and what exists is in them."""

import re
import tomllib
from pathlib import Path

import pytest

from dragonfly.settings import CONFIG_VARIABLE, Setting, Settings, all_settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE_TOML = ROOT / "dragonfly.example.toml"
EXAMPLE_ENV = ROOT / ".env.example"


def uncommented(text: str) -> str:
    """An example file with each `# name = value` line made real."""
    return re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)


def default_of(setting: Setting) -> object:
    value: object = Settings()
    for name in setting.path:
        value = getattr(value, name)
    return value


def test_the_example_file_is_read_as_it_stands() -> None:
    assert load_settings({}, EXAMPLE_TOML) == Settings()


def test_the_example_file_shows_every_setting_once_with_its_default(tmp_path: Path) -> None:
    text = uncommented(EXAMPLE_TOML.read_text())
    tables = tomllib.loads(text)
    shown = {
        ("", name) if not isinstance(value, dict) else (name, inner)
        for name, value in tables.items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    known = {setting.path if len(setting.path) == 2 else ("", *setting.path) for setting in all_settings()}
    assert shown == known
    (tmp_path / "all.toml").write_text(re.sub(r'^ca_file = "…".*$', "", text, flags=re.MULTILINE))
    assert load_settings({}, tmp_path / "all.toml") == Settings()


def test_the_example_environment_shows_every_variable_with_its_default() -> None:
    lines = re.findall(r"^# (DRAGONFLY_\w+)=(.*)$", EXAMPLE_ENV.read_text(), re.MULTILINE)
    shown = dict(lines)
    assert len(shown) == len(lines), "a variable stands there twice"
    settings = {setting.variable: setting for setting in all_settings()}
    files = {name + "_FILE" for name, setting in settings.items() if setting.is_secret}
    assert set(shown) == {*settings, *files, CONFIG_VARIABLE}
    given = {name: value for name, value in shown.items() if value and name != CONFIG_VARIABLE}
    assert load_settings(given, EXAMPLE_TOML) == Settings()
    for name in set(settings) - set(given):
        assert not str(default_of(settings[name]) or "").strip("()*"), f"{name} has a default that is not shown"


@pytest.mark.parametrize("line", re.findall(r"^[^#\n].*$", EXAMPLE_ENV.read_text(), re.MULTILINE) or [""])
def test_the_example_environment_sets_nothing_by_itself(line: str) -> None:
    assert line == ""
