"""`dragonfly rights`: the review queue from the command line."""

import json

import pytest

from tests.system.program import Program

WHY = "letter of 12 November"


@pytest.fixture
def installed(program: Program) -> Program:
    assert program.run("migrate").code == 0
    return program


def opened(program: Program, account: str, kind: str) -> str:
    made = program.run("rights", "open", account, "--kind", kind, "--reason", WHY, "--json").json
    assert isinstance(made, dict)
    assert made["state"] == "requested"
    return str(made["id"])


def test_requests_are_opened_reviewed_and_listed(installed: Program) -> None:
    account = installed.run("account", "create", "Alice", "--email", "alice@example.com").output.strip()
    copy, deletion = (opened(installed, account, kind) for kind in ("export", "deletion"))
    again = installed.run("rights", "open", account, "--kind", "export", "--reason", WHY)
    assert (again.code, again.errors) == (
        1,
        "A request of this kind is open already. Wait for its end, or cancel it.\n",
    )
    assert installed.run("rights", "approve", copy, "--reason", WHY).output.startswith(f"{copy}: approved, can be")
    refused = installed.run("rights", "refuse", deletion, "--reason", "You did not confirm it.", "--json").json
    assert isinstance(refused, dict)
    assert (refused["state"], refused["reason"]) == ("refused", "You did not confirm it.")
    late = installed.run("rights", "approve", deletion, "--reason", WHY)
    assert (late.code, "decided otherwise" in late.errors) == (1, True)
    assert installed.run("rights", "note", copy, "Called her.").code == 0
    listed = installed.run("rights", "list", "--state", "approved", "--json").json
    assert isinstance(listed, list)
    assert [(one["id"], one["note"], one["overdue"]) for one in listed] == [(copy, "Called her.", False)]
    assert installed.run("rights", "list", "--overdue").output.split() == [
        "REQUEST",
        "KIND",
        "STATE",
        "ACCOUNT",
        "DUE",
    ]
    assert installed.run("rights", "cancel", copy, "--reason", WHY).output == f"{copy}: cancelled\n"
    shown = installed.run("rights", "show", copy).output
    assert "cancelled" in shown
    assert installed.run("rights", "show", "drq-none").code == 1


def test_a_certificate_is_checked(installed: Program) -> None:
    account = installed.run("account", "create", "Alice").output.strip()
    certificate = installed.run("privacy", "erase", account, "--yes").output
    file = installed.folder / "certificate.json"
    file.write_text(certificate)
    assert installed.run("rights", "verify", str(file)).output == "The signature is right.\n"
    changed = json.loads(certificate)
    changed["certificate"]["account_id"] = "acc-other"
    file.write_text(json.dumps(changed))
    assert installed.run("rights", "verify", str(file)).code == 1
