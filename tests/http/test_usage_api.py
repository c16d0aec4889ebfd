"""/api/usage, its totals and export, and /api/activity."""

import csv
import io
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event

from dragonfly.api.usage import EXPORT_ROWS_PER_READ
from dragonfly.core.spreadsheets import harmless
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import KeyChanges, change_key
from dragonfly.usage.reports import UsageFilter, has_more_rows_than
from tests.factories import START_NS
from tests.http.account import Office

DAY_S = 86_400


@pytest.fixture
def office(engine: Engine) -> Iterator[Office]:
    made = Office(engine)
    yield made
    made.threads.close()


async def make_key(office: Office, who: str = "alice", **wanted: str) -> str:
    return str((await office.ask(who, "POST", "/api/keys", wanted)).json()["id"])


async def used(office: Office) -> tuple[str, str]:
    """Two keys of Alice that were used on three days, from 18 November; Bob used his once."""
    first = await make_key(office, name="first", key_group="team-a")
    second = await make_key(office, name="second")
    office.use(office.alice, first)
    office.clock.move(DAY_S)
    office.use(office.alice, first, model="acme/other")
    office.use(office.alice, second)
    office.use(office.bob, await make_key(office, "bob"))
    office.clock.move(DAY_S)
    office.use(office.alice, second, cost_nusd=10**9)
    return first, second


async def test_requests_are_listed_newest_first_with_what_their_key_is_called(office: Office) -> None:
    first, second = await used(office)
    found = (await office.ask("alice", "GET", "/api/usage")).json()["data"]
    assert [(row["key_id"], row["key_name"], row["key_group"]) for row in found] == [
        (second, "second", ""),
        *sorted([(first, "first", "team-a"), (second, "second", "")], key=lambda row: row[0] != found[1]["key_id"]),
        (first, "first", "team-a"),
    ]
    assert found[0] == {
        **found[0],
        "model": "acme/chat",
        "outcome": "complete",
        "streamed": True,
        "prompt_tokens": 30,
        "cost_usd": "1",
        "time_to_first_token_ms": 120,
        "at": "2026-11-20T11:06:40Z",
    }


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 4),
        ("?from=2026-11-19", 3),
        ("?to=2026-11-18", 1),
        ("?from=2026-11-19&to=2026-11-19", 2),
        ("?key_group=team-a", 2),
        ("?key_group=team-b", 0),
        ("?model=acme/other", 1),
        ("?key_id={first}", 2),
        ("?key_id={first}&model=acme/chat", 1),
        ("?from=2027-01-01", 0),
    ],
)
async def test_filters_find_the_same_rows_totals_and_table(office: Office, query: str, count: int) -> None:
    first, _ = await used(office)
    query = query.format(first=first)
    rows = (await office.ask("alice", "GET", f"/api/usage{query}")).json()["data"]
    assert len(rows) == count
    totals = (await office.ask("alice", "GET", f"/api/usage/totals{query}")).json()["data"]
    assert sum(total["requests"] for total in totals) == count
    table = await office.ask("alice", "GET", f"/api/usage/export.csv{query}")
    assert len(list(csv.reader(io.StringIO(table.text)))) == count + 1


async def test_rows_and_totals_come_in_pages_that_hold_everything_once(office: Office) -> None:
    await used(office)
    for path, key in (
        ("/api/usage", "request_id"),
        ("/api/usage/totals?by=key&by=day", None),
        ("/api/activity", None),
    ):
        whole = (await office.ask("alice", "GET", path)).json()["data"]
        found = []
        more = ""
        while True:
            sign = "&" if "?" in path else "?"
            page = (await office.ask("alice", "GET", f"{path}{sign}limit=1{more}")).json()
            assert len(page["data"]) == 1
            found += page["data"]
            if page["next_cursor"] is None:
                break
            more = f"&cursor={page['next_cursor']}"
        assert found == whole
        assert key is None or len({row[key] for row in found}) == 4


async def test_totals_are_told_apart_by_what_one_asks_for(office: Office) -> None:
    first, second = await used(office)
    by_key = (await office.ask("alice", "GET", "/api/usage/totals?by=key")).json()["data"]
    assert {(total["key_id"], total["requests"], total["cost_usd"]) for total in by_key} == {
        (first, 2, "0.0001"),
        (second, 2, "1.00005"),
    }
    by_group = (await office.ask("alice", "GET", "/api/usage/totals?by=key_group&by=model")).json()["data"]
    assert [(total["key_group"], total["model"], total["day"]) for total in by_group] == [
        ("", "acme/chat", None),
        ("team-a", "acme/chat", None),
        ("team-a", "acme/other", None),
    ]
    activity = (await office.ask("alice", "GET", "/api/activity")).json()["data"]
    assert [(row["date"], row["model"], row["requests"]) for row in activity] == [
        ("2026-11-18", "acme/chat", 1),
        ("2026-11-19", "acme/chat", 1),
        ("2026-11-19", "acme/other", 1),
        ("2026-11-20", "acme/chat", 1),
    ]
    assert activity[3]["usage"] == 1.0


async def test_somebody_elses_key_or_cursor_finds_nothing_of_theirs(office: Office) -> None:
    first, _ = await used(office)
    assert (await office.ask("bob", "GET", f"/api/usage?key_id={first}")).json()["data"] == []
    assert (await office.ask("bob", "GET", f"/api/usage/totals?key_id={first}")).json()["data"] == []
    assert (await office.ask("bob", "GET", "/api/usage?key_group=team-a")).json()["data"] == []
    cursor = (await office.ask("alice", "GET", "/api/usage?limit=1")).json()["next_cursor"]
    bobs = (await office.ask("bob", "GET", f"/api/usage?cursor={cursor}")).json()["data"]
    assert len(bobs) == 1, "his own one, which is older"


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "from=2026-02-30",
        "from=2026-11-20&to=2026-11-19",
        "to=9999-12-31",
        "by=prompt",
        "limit=0",
        "limit=101",
        "limit=1e9",
    ],
)
async def test_wrong_filters_are_refused(office: Office, query: str) -> None:
    assert (await office.ask("alice", "GET", f"/api/usage/totals?{query}")).status_code in (400, 422)


async def test_the_table_is_read_in_small_pages_and_no_cell_is_a_formula(office: Office) -> None:
    key = await make_key(office)
    with write(office.engine) as connection:
        evil = KeyChanges(name="=HYPERLINK(1)", key_group="-1")
        change_key(connection, key, evil, account_id=office.alice, now_ns=START_NS)  # type: ignore[arg-type]
    office.use(office.alice, key, cost_nusd=1, count=EXPORT_ROWS_PER_READ + 1)
    statements: list[str] = []
    event.listen(office.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    got = await office.ask("alice", "GET", "/api/usage/export.csv")
    assert got.headers["content-type"].startswith("text/csv")
    assert "attachment" in got.headers["content-disposition"]
    lines = list(csv.DictReader(io.StringIO(got.text)))
    assert len(lines) == len({line["request_id"] for line in lines}) == EXPORT_ROWS_PER_READ + 1
    assert {(line["key_name"], line["key_group"]) for line in lines} == {("'=HYPERLINK(1)", "'-1")}
    assert sum("LIMIT" in statement for statement in statements) >= 3


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1"])
def test_no_start_of_a_formula_passes(text: str) -> None:
    assert harmless(text) == f"'{text}"
    assert harmless("a" + text) == "a" + text


async def test_an_export_knows_when_it_would_be_too_large(office: Office) -> None:
    await used(office)
    with read(office.engine) as connection:
        assert has_more_rows_than(connection, office.alice, UsageFilter(), 3)
        assert not has_more_rows_than(connection, office.alice, UsageFilter(), 4)
