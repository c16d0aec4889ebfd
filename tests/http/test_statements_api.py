"""/api/statements: the same statement as the command line's, for its owner only, as JSON and as a table."""

import csv
import io
from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import Engine

from dragonfly.infra.database import write
from dragonfly.ledger.actions import grant_credit
from tests.http.account import Office

MONTH_S = 31 * 86_400


@pytest.fixture
def office(engine: Engine) -> Iterator[Office]:
    made = Office(engine)
    yield made
    made.threads.close()


async def spend(office: Office) -> str:
    """Alice gets a dollar and spends a part of it, in November 2026; the key that she used."""
    key = str((await office.ask("alice", "POST", "/api/keys", {"name": "laptop"})).json()["id"])
    with write(office.engine) as connection:
        now_ns = office.clock.now_ns()
        grant_credit(connection, office.alice, amount_nusd=10**9, idempotency_key="=1+1", now_ns=now_ns)
    office.use(office.alice, key, cost_nusd=250_000_000, count=2, model="=1+1")
    return key


async def test_a_month_reads_as_what_came_and_what_went(office: Office) -> None:
    key = await spend(office)
    got = await office.ask("alice", "GET", "/api/statements/2026-11")
    assert got.headers["content-type"] == "application/json"
    found = got.json()
    (event,), (day,) = found["events"], found["usage"]
    assert (event["kind"], event["amount_usd"]) == ("grant", "1")
    assert (day["date"], day["key_id"], day["requests"], day["cost_usd"]) == ("2026-11-18", key, 2, "0.5")
    balances = {name: found[name] for name in ("opening_balance_usd", "usage_usd", "closing_balance_usd")}
    assert balances == {"opening_balance_usd": "0", "usage_usd": "0.5", "closing_balance_usd": "0.5"}


async def test_the_table_adds_up_and_begins_no_formula(office: Office) -> None:
    await spend(office)
    got = await office.ask("alice", "GET", "/api/statements/2026-11.csv")
    assert got.headers["content-type"].startswith("text/csv")
    assert "attachment" in got.headers["content-disposition"]
    opening, *lines, closing = csv.DictReader(io.StringIO(got.text))
    assert [line["kind"] for line in lines] == ["grant", "usage"]
    assert lines[1]["model"] == "'=1+1"
    amounts = [Decimal(line["amount_usd"]) for line in (opening, *lines)]
    assert sum(amounts) == Decimal(closing["amount_usd"]) == Decimal("0.5")


async def test_months_are_listed_newest_first_from_the_one_in_which_the_account_began(office: Office) -> None:
    office.clock.move(3 * MONTH_S)
    first = (await office.ask("alice", "GET", "/api/statements?limit=3")).json()
    assert first["data"] == [
        {"month": "2027-02", "is_over": False},
        {"month": "2027-01", "is_over": True},
        {"month": "2026-12", "is_over": True},
    ]
    rest = (await office.ask("alice", "GET", f"/api/statements?cursor={first['next_cursor']}")).json()
    assert rest == {"data": [{"month": "2026-11", "is_over": True}], "next_cursor": None}


async def test_a_statement_is_its_owners_and_of_management_keys_with_the_scope(office: Office) -> None:
    await spend(office)
    others = (await office.ask("bob", "GET", "/api/statements/2026-11")).json()
    assert (others["account"], others["events"], others["usage"]) == (office.bob, [], [])
    for scope, status in (("wallet:read", 200), ("keys:read", 403)):
        wanted = {"name": "books", "scopes": [scope]}
        secret = (await office.ask("alice", "POST", "/api/management-keys", wanted)).json()["key"]
        assert (await office.ask(secret, "GET", "/api/statements/2026-11.csv")).status_code == status


@pytest.mark.parametrize("month", ["2026-13", "2026-12", "1999-01", "2026", "x", "2026-11.json"])
async def test_what_is_no_month_or_has_not_begun_is_not_found(office: Office, month: str) -> None:
    for path in (f"/api/statements/{month}", f"/api/statements/{month}.csv"):
        got = await office.ask("alice", "GET", path)
        assert got.status_code in (404, 422)
        assert got.json()["error"]["code"] in ("month_invalid", "invalid_parameter")
