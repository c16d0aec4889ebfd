"""/api/admin: what operators can do, that only they can, and that every action stands in the log."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select, update

from dragonfly.accounts.queries import account_by_id
from dragonfly.catalog.queries import paused_channels
from dragonfly.infra.database import read, write
from dragonfly.ledger.queries import wallet_of
from dragonfly.mail.tables import mail_outbox
from dragonfly.operations.tables import audit_log
from tests.http.account import Office

WHY = "because of a test"
CHANNEL = "acme/chat@acme"


@pytest.fixture
def office(engine: Engine) -> Iterator[Office]:
    made = Office(engine)
    yield made
    made.threads.close()


async def log_of(office: Office) -> list[tuple[str, str, str]]:
    rows = (await office.ask("charlie", "GET", "/api/admin/audit")).json()["data"]
    assert all(row["actor_id"] == office.charlie for row in rows)
    return [(row["action"], row["target"], row["reason"]) for row in rows]


@pytest.mark.parametrize("who", ["alice", "charlie without a second factor"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/admin/accounts", None),
        ("GET", "/api/admin/audit", None),
        ("GET", "/api/admin/channels", None),
        ("POST", "/api/admin/channels/pause", {"channel_id": CHANNEL, "reason": WHY}),
        ("POST", "/api/admin/announcements", {"text_en": "a", "text_zh": "b", "reason": WHY}),
    ],
)
async def test_others_are_refused_and_nothing_is_written(
    office: Office, who: str, method: str, path: str, body: Any
) -> None:
    got = await office.ask(who, method, path, body)
    assert (got.status_code, got.json()["error"]["code"]) == (403, "forbidden")
    assert await log_of(office) == []


async def test_people_are_found_by_id_and_name_and_that_is_noted(office: Office) -> None:
    for query in (office.alice, "lic", "ALICE"):
        found = (await office.ask("charlie", "GET", f"/api/admin/accounts?query={query}")).json()["data"]
        assert [person["id"] for person in found] == [office.alice]
    assert (await office.ask("charlie", "GET", "/api/admin/accounts?query=%25")).json()["data"] == []
    everybody = (await office.ask("charlie", "GET", "/api/admin/accounts?limit=2")).json()
    assert len(everybody["data"]) == 2
    rest = (await office.ask("charlie", "GET", f"/api/admin/accounts?cursor={everybody['next_cursor']}")).json()
    assert len(rest["data"]) == 1
    one = (await office.ask("charlie", "GET", f"/api/admin/accounts/{office.alice}")).json()
    assert (one["status"], one["wallet"]["balance_usd"]) == ("active", "0")
    log = await log_of(office)
    assert log[0] == ("account.read", office.alice, "looked up")
    assert {(action, target) for action, target, _ in log[1:]} == {("account.search", "accounts")}


async def test_credit_is_given_once_per_idempotency_key_and_with_a_reason(office: Office) -> None:
    path = f"/api/admin/accounts/{office.alice}/credit"
    wanted = {"amount_usd": "12.5", "reason": WHY}
    for _ in range(2):
        got = await office.ask("charlie", "POST", path, wanted, **{"idempotency-key": "one"})
        assert (got.status_code, got.json()["wallet"]["balance_usd"]) == (200, "12.5")
    assert (await log_of(office)).count(("credit.grant", office.alice, WHY)) == 1
    await office.ask("charlie", "POST", path, wanted)
    with read(office.engine) as connection:
        wallet = wallet_of(connection, office.alice)
    assert wallet is not None
    assert wallet.balance_nusd == 25 * 10**9


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"amount_usd": "5"}, 422),
        ({"amount_usd": "5", "reason": "x"}, 422),
        ({"amount_usd": "5", "reason": "two\nlines"}, 422),
        ({"amount_usd": "0", "reason": WHY}, 422),
        ({"amount_usd": "1000.01", "reason": WHY}, 422),
        ({"amount_usd": "-5", "reason": WHY}, 422),
        ({"amount_usd": "5", "reason": WHY, "account_id": "acc-other"}, 422),
    ],
)
async def test_credit_without_a_reason_or_beyond_the_bounds_is_refused(
    office: Office, wanted: dict[str, str], status: int
) -> None:
    got = await office.ask("charlie", "POST", f"/api/admin/accounts/{office.alice}/credit", wanted)
    assert got.status_code == status
    assert await log_of(office) == []


async def test_nobody_serves_themselves(office: Office) -> None:
    for action, body in (("credit", {"amount_usd": "5", "reason": WHY}), ("freeze", {"reason": WHY})):
        got = await office.ask("charlie", "POST", f"/api/admin/accounts/{office.charlie}/{action}", body)
        assert got.status_code == 403


async def test_an_account_is_frozen_and_thawed(office: Office) -> None:
    path = f"/api/admin/accounts/{office.alice}"
    assert (await office.ask("charlie", "POST", f"{path}/freeze", {"reason": WHY})).json()["status"] == "frozen"
    with read(office.engine) as connection:
        account = account_by_id(connection, office.alice)
    assert account is not None
    assert account.frozen_at_ns == office.clock.now_ns()
    assert (await office.ask("charlie", "POST", f"{path}/unfreeze", {"reason": WHY})).json()["status"] == "active"
    assert [action for action, _, _ in await log_of(office)] == ["account.unfreeze", "account.freeze"]


async def test_somebody_s_key_is_found_stopped_and_ended(office: Office) -> None:
    key = (await office.ask("alice", "POST", "/api/keys", {})).json()["id"]
    path = f"/api/admin/keys/{key}"
    assert (await office.ask("charlie", "GET", path)).json()["account_id"] == office.alice
    for action, status in (("disable", "disabled"), ("enable", "active"), ("revoke", "revoked")):
        office.clock.move(1)
        got = await office.ask("charlie", "POST", f"{path}/{action}", {"reason": WHY})
        assert (got.status_code, got.json()["status"]) == (200, status)
    assert (await office.ask("alice", "GET", f"/api/keys/{key}")).json()["status"] == "revoked"
    listed = (await office.ask("charlie", "GET", f"/api/admin/accounts/{office.alice}/keys")).json()["data"]
    assert [one["id"] for one in listed] == [key]
    assert "key" not in listed[0]
    with read(office.engine) as connection:
        told = connection.execute(select(mail_outbox.c.details).order_by(mail_outbox.c.id)).scalars().all()
    assert [json.loads(details).get("change") for details in told] == [None, "stopped", "started", "revoked"]
    assert [action for action, _, _ in await log_of(office)] == [
        "key.read",
        "key.revoke",
        "key.enable",
        "key.disable",
        "key.read",
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/admin/accounts/acc-nobody", None),
        ("GET", "/api/admin/accounts/acc-nobody/keys", None),
        ("POST", "/api/admin/accounts/acc-nobody/credit", {"amount_usd": "5", "reason": WHY}),
        ("POST", "/api/admin/accounts/acc-nobody/freeze", {"reason": WHY}),
        ("GET", "/api/admin/keys/0000000000", None),
        ("POST", "/api/admin/keys/0000000000/revoke", {"reason": WHY}),
        ("POST", "/api/admin/channels/pause", {"channel_id": "acme/none@acme", "reason": WHY}),
        ("POST", "/api/admin/announcements/ann-none/withdraw", {"reason": WHY}),
    ],
)
async def test_what_is_not_there_is_404_and_leaves_no_row(office: Office, method: str, path: str, body: Any) -> None:
    assert (await office.ask("charlie", method, path, body)).status_code == 404
    assert await log_of(office) == []


async def test_channels_are_shown_with_prices_and_switched(office: Office) -> None:
    shown = (await office.ask("charlie", "GET", "/api/admin/channels")).json()["data"]
    assert shown == [
        {
            "id": CHANNEL,
            "model": "acme/chat",
            "provider": "acme",
            "in_service": True,
            "prompt_usd": "1",
            "completion_usd": "2",
        },
        {**shown[1], "id": "acme/old@acme", "prompt_usd": None},
    ]
    for action, in_service in (("pause", False), ("pause", False), ("resume", True)):
        wanted = {"channel_id": CHANNEL, "reason": WHY}
        got = await office.ask("charlie", "POST", f"/api/admin/channels/{action}", wanted)
        assert (got.status_code, got.json()["in_service"]) == (200, in_service)
        with read(office.engine) as connection:
            assert (CHANNEL in paused_channels(connection)) is not in_service
        listed = (await office.ask("charlie", "GET", "/api/admin/channels?limit=1")).json()
        assert listed["data"][0]["in_service"] is in_service


async def test_announcements_are_shown_to_everybody_while_they_last(office: Office) -> None:
    wanted = {
        "severity": "incident",
        "text_en": "A provider is slow.",
        "text_zh": "某供应商响应缓慢。",
        "starts_at": "2026-11-19T00:00:00Z",
        "ends_at": "2026-11-21T00:00:00Z",
        "reason": WHY,
    }
    made = (await office.ask("charlie", "POST", "/api/admin/announcements", wanted)).json()
    forever = (
        await office.ask(
            "charlie", "POST", "/api/admin/announcements", {**wanted, "starts_at": None, "ends_at": None}
        )
    ).json()

    async def shown() -> list[str]:
        return [one["id"] for one in (await office.ask("nobody", "GET", "/api/announcements")).json()["data"]]

    assert await shown() == [forever["id"]]
    office.clock.move(86_400)
    assert sorted(await shown()) == sorted([made["id"], forever["id"]])
    office.clock.move(2 * 86_400)
    assert await shown() == [forever["id"]]
    path = f"/api/admin/announcements/{forever['id']}/withdraw"
    assert (await office.ask("charlie", "POST", path, {"reason": WHY})).json()["withdrawn"]
    assert await shown() == []
    backwards = {**wanted, "starts_at": wanted["ends_at"], "ends_at": wanted["starts_at"]}
    got = await office.ask("charlie", "POST", "/api/admin/announcements", backwards)
    assert (got.status_code, got.json()["error"]["code"]) == (422, "announcement_invalid")


async def test_a_log_that_was_changed_shows_where(office: Office) -> None:
    for _ in range(3):
        await office.ask("charlie", "GET", f"/api/admin/accounts/{office.alice}")
    proof = "/api/admin/audit/proof"
    assert (await office.ask("charlie", "GET", proof)).json() == {"is_whole": True, "first_broken": None}
    with write(office.engine) as connection:
        connection.execute(update(audit_log).where(audit_log.c.number == 2).values(reason="nothing"))
    assert (await office.ask("charlie", "GET", proof)).json() == {"is_whole": False, "first_broken": 2}
    with write(office.engine) as connection:
        connection.execute(delete(audit_log).where(audit_log.c.number == 1))
    assert (await office.ask("charlie", "GET", proof)).json() == {"is_whole": False, "first_broken": 1}


async def test_the_log_comes_in_pages_and_by_target(office: Office) -> None:
    for account in (office.alice, office.bob, office.alice):
        await office.ask("charlie", "GET", f"/api/admin/accounts/{account}")
    first = (await office.ask("charlie", "GET", "/api/admin/audit?limit=2")).json()
    rest = (await office.ask("charlie", "GET", f"/api/admin/audit?cursor={first['next_cursor']}")).json()
    assert [row["number"] for row in [*first["data"], *rest["data"]]] == [3, 2, 1]
    alices = (await office.ask("charlie", "GET", f"/api/admin/audit?target={office.alice}")).json()["data"]
    assert [row["number"] for row in alices] == [3, 1]
