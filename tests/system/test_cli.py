"""The commands of an operator: what they print, what they refuse, and with which exit code."""

import contextlib
import sqlite3
import stat

import pytest

from tests.system.program import Program

KEY_LENGTH = 65
DATABASE = "data/dragonfly.db"
PEPPER = "data/key-pepper"


@pytest.fixture
def installed(program: Program) -> Program:
    """A folder with an empty, migrated installation."""
    assert program.run("migrate").code == 0
    return program


def test_an_operator_sets_up_a_customer_from_nothing(installed: Program) -> None:
    account = installed.run("account", "create", "Alice").output.strip()
    assert account.startswith("acc-")
    key = installed.run("key", "create", account, "--name", "laptop", "--limit", "2.5").output.strip()
    assert key.startswith("sk-df-")
    assert len(key) == KEY_LENGTH
    granted = installed.run("credit", "grant", account, "5", "--idempotency-key", "first")
    assert granted.output == "Granted 5 USD. Balance: 5 USD.\n"
    again = installed.run("credit", "grant", account, "5", "--idempotency-key", "first", "--json")
    assert again.json == {
        "account": account,
        "granted_usd": "5",
        "balance_usd": "5",
        "available_usd": "5",
        "charged_usd": "0",
    }
    usage = installed.run("usage", account, "--json").json
    assert usage == {
        "account": account,
        "balance_usd": "5",
        "available_usd": "5",
        "charged_usd": "0",
        "usage": [],
    }


def test_operators_come_and_go_and_the_log_of_it_is_proved(installed: Program) -> None:
    assert installed.run("operator", "add", "bob@example.com", "--reason", "runs the night shift").code == 0
    assert installed.run("operator", "add", "alice@example.com").code == 0
    listed = installed.run("operator", "list", "--json").json
    assert isinstance(listed, list)
    assert [(one["email"], one["second_factor"]) for one in listed] == [
        ("bob@example.com", False),
        ("alice@example.com", False),
    ]
    assert installed.run("operator", "remove", "bob@example.com").output.startswith("Removed.")
    refused = installed.run("operator", "remove", "bob@example.com")
    assert (refused.code, "no operator has this address" in refused.errors) == (2, True)
    assert "alice@example.com" in installed.run("operator", "list").output
    done = installed.run("operator", "log", "--json").json
    assert isinstance(done, list)
    assert [one["action"] for one in done] == ["operator.remove", "operator.add", "operator.add"]
    assert done[-1]["reason"] == "runs the night shift"
    (one,) = installed.run("operator", "log", "--target", listed[1]["account"], "--json").json
    assert one["number"] == 2
    assert "operator.remove" in installed.run("operator", "log").output
    assert installed.run("operator", "verify").output == "The log is whole.\n"
    with contextlib.closing(sqlite3.connect(installed.folder / "data/dragonfly.db")) as database:
        database.execute("UPDATE audit_log SET reason = 'another' WHERE number = 2")
        database.commit()
    broken = installed.run("operator", "verify", "--json")
    assert (broken.code, broken.json) == (1, {"is_whole": False, "first_broken": 2})


def test_a_key_is_shown_once_and_stored_as_a_digest(installed: Program) -> None:
    account = installed.run("account", "create", "Alice").output.strip()
    created = installed.run("key", "create", account, "--json").json
    assert isinstance(created, dict)
    key, key_id = created["key"], created["key_id"]
    listed = installed.run("key", "list", account, "--json")
    assert key not in listed.output
    assert created["hint"] in listed.output
    with sqlite3.connect(installed.folder / DATABASE) as database:
        dump = "\n".join(database.iterdump())
    assert key not in dump
    assert key[len("sk-df-") + len(key_id) : -6] not in dump
    revoked = installed.run("key", "revoke", key_id)
    assert (revoked.code, revoked.output) == (0, f"Revoked. The key belonged to {account}.\n")
    after = installed.run("key", "list", account, "--json").json
    assert isinstance(after, list)
    assert [one["state"] for one in after] == ["revoked"]


def test_what_is_made_is_readable_by_its_owner_only(installed: Program) -> None:
    for name in (DATABASE, PEPPER):
        assert stat.S_IMODE((installed.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((installed.folder / "data").stat().st_mode) == 0o700


def test_accounts_are_listed_with_their_balances(installed: Program) -> None:
    for name in ("Alice", "Bob"):
        installed.run("account", "create", name, "--unverified")
    listed = installed.run("account", "list", "--json").json
    assert isinstance(listed, list)
    assert [(one["name"], one["balance_usd"], one["verified"]) for one in listed] == [
        ("Alice", "0", False),
        ("Bob", "0", False),
    ]
    assert installed.run("account", "list").output.startswith("ACCOUNT ")


def test_a_database_without_tables_asks_for_migrate(program: Program) -> None:
    ended = program.run("account", "list")
    assert ended.code == 4
    assert "dragonfly migrate" in ended.errors
    assert ended.output == ""


def test_a_lost_pepper_is_never_replaced(installed: Program) -> None:
    account = installed.run("account", "create", "Alice").output.strip()
    (installed.folder / PEPPER).unlink()
    assert installed.run("migrate").code == 0
    ended = installed.run("key", "create", account)
    assert ended.code == 3
    assert "Restore the file" in ended.errors
    assert not (installed.folder / PEPPER).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("usage", "acc-nobody"), 1, "There is no such account. Copy the whole id (acc-…).\n"),
        (("key", "create", "acc-nobody"), 1, "There is no such account. Copy the whole id (acc-…).\n"),
        (("key", "revoke", "nothing"), 1, "There is no such key in this account."),
        (("credit", "grant", "acc-nobody", "5"), 1, "There is no such account."),
        (("credit", "grant", "acc-nobody", "0"), 1, "An amount is more than 0"),
        (("credit", "grant", "acc-nobody", "0.0000000001"), 2, "write dollars as a decimal"),
        (("credit", "grant", "acc-nobody", "NaN"), 2, "write dollars as a decimal"),
        (("acount",), 2, "Did you mean 'account'"),
        (("usage", "acc-nobody", "--config", "missing.toml"), 3, "missing.toml: cannot be read"),
    ],
)
def test_a_refusal_is_a_sentence_and_a_code(
    installed: Program, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ended = installed.run(*arguments)
    assert ended.code == code
    assert sentence in ended.errors
    assert ended.output == ""


def test_wrong_settings_and_tables_are_told_together(program: Program) -> None:
    (program.folder / "dragonfly.toml").write_text(
        "[server]\nport = 99999\nworkers = 4\n[providers.mine]\nbase_url = 7\n[limits]\nbody_bytes_max = 5\n"
    )
    ended = program.run("models", DRAGONFLY_LOG_LEVEL="loud", DRAGONFLY_KEY_PEPPER="CANARY8f2e")
    assert ended.code == 3
    named = [line.split(":")[0] for line in ended.errors.splitlines()]
    assert {"server.port", "limits.body_bytes_max", "log_level", "providers.mine.base_url"} <= set(named)
    assert "CANARY8f2e" not in ended.errors


def test_settings_that_contradict_each_other_are_told(program: Program) -> None:
    (program.folder / "dragonfly.toml").write_text(
        '[server]\nworkers = 4\nproxies = ["10.0.0.1/8"]\n'
        "[limits]\nbody_bytes_max = 50_000_000\nbody_bytes_open_max = 2_000_000\n"
        "[admission]\nheartbeat_s = 10.0\nrefresh_s = 5.0\n"
    )
    ended = program.run("models", DRAGONFLY_KEY_PEPPER="short")
    assert ended.code == 3
    assert [line.split(":")[0] for line in ended.errors.splitlines()] == [
        "server.proxies",
        "server.workers",
        "key_pepper",
        "limits.body_bytes_open_max",
        "admission.heartbeat_dead_s",
        "admission.refresh_s",
    ]


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        (
            "postgresql://nobody:CANARY8f2e@127.0.0.1:1/x",
            4,
            "The database cannot be reached, is locked or is damaged.",
        ),
        ("mysql://CANARY8f2e@host/x", 3, "database_url: needs sqlite:///path/to/file.db or postgresql://"),
        ("CANARY8f2e", 3, "database_url: needs sqlite:///path/to/file.db or postgresql://"),
        ("sqlite:///missing/folder/x.db", 3, "database_url: cannot be used (No such file or directory)."),
    ],
)
def test_a_database_that_cannot_be_used_is_told_without_its_address(
    program: Program, url: str, code: int, sentence: str
) -> None:
    for command in (("migrate",), ("serve",), ("account", "list")):
        ended = program.run(*command, DRAGONFLY_DATABASE_URL=url, DRAGONFLY_SERVER__PORT="0")
        assert (ended.code, ended.errors.startswith(sentence)) == (code, True)
        assert "CANARY8f2e" not in ended.errors + ended.output


def test_models_lists_what_the_environment_has_keys_for(program: Program) -> None:
    without = program.run("models", "--json").json
    assert isinstance(without, dict)
    assert without["models"] == []
    assert "DEEPSEEK_API_KEY" in program.run("models").errors
    ended = program.run("models", "--json", DEEPSEEK_API_KEY="sk-CANARY8f2e")
    assert "CANARY8f2e" not in ended.output + ended.errors
    assert isinstance(ended.json, dict)
    found = {model["model"]: model for model in ended.json["models"]}
    flash = found["deepseek/deepseek-flash"]
    assert [channel["provider"] for channel in flash["channels"]] == ["deepseek"]
    assert float(flash["channels"][0]["prompt_usd_per_million"]) > 0
    assert "deepseek/deepseek-flash" in program.run("models", DEEPSEEK_API_KEY="sk-CANARY8f2e").output


def test_the_books_are_proved_and_a_planted_fault_is_found(installed: Program) -> None:
    account = installed.run("account", "create", "Alice").output.strip()
    installed.run("credit", "grant", account, "5")
    clean = installed.run("ledger", "verify", "--json")
    assert clean.code == 0
    assert isinstance(clean.json, dict)
    assert (clean.json["clean"], clean.json["balances_usd"], clean.json["findings"]) == (True, "5", [])
    assert installed.run("ledger", "verify").output.startswith("The books are right: ")
    with sqlite3.connect(installed.folder / DATABASE) as database:
        database.execute("UPDATE wallets SET balance_nusd = balance_nusd + 1")
    broken = installed.run("ledger", "verify", "--json")
    assert broken.code == 1
    assert isinstance(broken.json, dict)
    assert {"check": "wallets_equal_ledger", "subject": account, "expected_usd": "5", "found_usd": "5.000000001"} in (
        broken.json["findings"]
    )
    assert "wallets_equal_ledger" in installed.run("ledger", "verify").output


def test_the_catalogue_is_compared_with_an_independent_price_list(program: Program) -> None:
    ended = program.run("catalog", "check", "--json")
    report = ended.json
    assert isinstance(report, dict)
    assert report["compared"] > 10
    assert ended.code == (0 if report["clean"] else 1)
    assert {"finding", "provider", "model", "ours", "theirs"} <= set(report["findings"][0])
    text = program.run("catalog", "check")
    assert text.output.startswith(f"Compared {report['compared']} models with genai-prices")


def test_the_version_is_printed(program: Program) -> None:
    versions = program.run("version", "--json").json
    assert isinstance(versions, dict)
    assert {"dragonfly", "python", "uvicorn"} <= set(versions)


def test_every_command_explains_itself_with_an_example(program: Program) -> None:
    overview = program.run("--help").output
    commands = overview.split("Commands:\n")[1].split("\n\n")[0]
    names = [line.split()[0] for line in commands.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {
        "demo",
        "serve",
        "migrate",
        "version",
        "models",
        "usage",
        "account",
        "key",
        "credit",
        "catalog",
        "ledger",
    } <= set(names)
    assert "..." not in commands, "a one-line description does not fit"
    for group in ("account", "key", "credit", "catalog", "ledger"):
        inner = program.run(group, "--help").output.split("Commands:\n")[1]
        for line in inner.splitlines():
            if line.startswith("  ") and line[2] != " ":
                assert "Example" in program.run(group, line.split()[0], "--help").output
