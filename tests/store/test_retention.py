"""Usage rows live 90 days; the books stay right without them."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, LargeBinary, Table, Text, func, inspect, select

from dragonfly.admission.account_statement import parse_month, statement_of
from dragonfly.admission.verify import verify
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import open_engine, read, write
from dragonfly.ledger.closing import close_old_groups
from dragonfly.ledger.tables import entries, entry_groups
from dragonfly.privacy.retention import Expiring, expiring_tables, oldest_usage_ns, run_retention, usage_before_ns
from dragonfly.usage.actions import RETENTION_DAYS, forget_old_usage
from dragonfly.usage.partitions import DAYS_AHEAD, is_partition, make_days
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.tables import usage, usage_days
from tests.factories import START_NS, MovableClock, make_customer, make_database
from tests.store.desk import running_desk

DAY_S = NS_PER_DAY / 1e9
MONTH = parse_month("2026-11", now_ns=START_NS)


def rows(engine: Engine) -> int:
    with read(engine) as connection:
        return connection.execute(select(func.count()).select_from(usage)).scalar_one()


async def test_rows_are_there_on_day_89_and_gone_after_day_90_and_the_books_still_hold(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        for _ in range(3):
            grant = await desk.admit(await desk.ask(alice))
            await desk.settle_durably(grant, TokenUsage(10, 20))
        balance = desk.wallet(alice).balance_nusd
    left = []
    for days in (RETENTION_DAYS - 1, 0.9, 0.2):
        clock.move(days * DAY_S)
        with write(engine) as connection:
            forget_old_usage(connection, now_ns=clock.now_ns())
        left.append(rows(engine))
    assert left == [3, 3, 0]
    with read(engine) as connection:
        report = verify(connection, usage_since_ns=clock.now_ns() - (RETENTION_DAYS - 1) * NS_PER_DAY)
    assert report.is_clean
    assert report.balances_nusd == balance


async def test_every_table_with_a_counted_lifetime_loses_what_has_passed_it(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        for _ in range(2):
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
    assert oldest_usage_ns(engine) == clock.now_ns()
    begun_ns = clock.now_ns()
    left = []
    for days in (RETENTION_DAYS - 1, 1, 1):
        clock.move(days * DAY_S)
        run_retention(engine, now_ns=clock.now_ns())
        with read(engine) as connection:
            rows_left = connection.execute(select(usage_days.c.day, usage_days.c.model, usage_days.c.requests)).all()
            assert verify(connection, usage_since_ns=clock.now_ns()).is_clean
            left.append([tuple(row) for row in rows_left])
    assert [(row[0] > 0, row[1] != "", row[2]) for row in left[0]] == [(True, True, 2)]
    assert left[2] == [(0, "", 2)]
    assert oldest_usage_ns(engine) is None
    with read(engine) as connection:
        assert usage_before_ns(connection) > begun_ns


def days(engine: Engine) -> set[str]:
    with read(engine) as connection:
        return {name for name in inspect(connection).get_table_names() if is_partition(name)}


async def test_on_postgresql_a_day_goes_with_its_table_and_not_a_moment_before_its_rows_are_90_days_old(
    postgresql_url: str, clock: MovableClock
) -> None:
    engine = open_engine(postgresql_url)
    alice = make_customer(engine)
    today = f"usage_day_{clock.now_ns() // NS_PER_DAY}"
    assert make_days(engine, now_ns=clock.now_ns()) == DAYS_AHEAD + 1
    assert make_days(engine, now_ns=clock.now_ns()) == 0
    async with running_desk(engine, clock) as desk:
        for _ in range(3):
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
    with read(engine) as connection:
        assert connection.exec_driver_sql(f"SELECT count(*) FROM {today}").scalar_one() == 3
    found = []
    for moved in (RETENTION_DAYS - 1, 1 - 1e-6, 1):
        clock.move(moved * DAY_S)
        run = run_retention(engine, now_ns=clock.now_ns())
        found.append((rows(engine), today in days(engine), run.deleted.get("usage", 0)))
        with read(engine) as connection:
            assert verify(connection, usage_since_ns=usage_before_ns(connection) + NS_PER_DAY).is_clean
    assert found == [(3, True, 0), (3, True, 0), (0, False, 3)]
    engine.dispose()


async def test_rows_of_a_day_without_a_table_are_deleted_all_the_same(
    postgresql_url: str, clock: MovableClock
) -> None:
    engine = open_engine(postgresql_url)
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
    assert make_days(engine, now_ns=clock.now_ns()) == DAYS_AHEAD, "the rest holds rows of today"
    clock.move((RETENTION_DAYS + 1) * DAY_S)
    assert run_retention(engine, now_ns=clock.now_ns()).deleted["usage"] == 1
    assert rows(engine) == 0
    engine.dispose()


async def test_who_reads_for_long_keeps_a_day_until_the_next_turn_and_nobody_waits(
    postgresql_url: str, clock: MovableClock
) -> None:
    engine = open_engine(postgresql_url)
    alice = make_customer(engine)
    make_days(engine, now_ns=clock.now_ns())
    async with running_desk(engine, clock) as desk:
        await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
    clock.move((RETENTION_DAYS + 1) * DAY_S)
    with read(engine) as reader:
        assert reader.execute(select(func.count()).select_from(usage)).scalar_one() == 1
        run_retention(engine, now_ns=clock.now_ns())
        assert reader.execute(select(func.count()).select_from(usage)).scalar_one() == 1
    with read(engine) as connection:
        assert verify(connection).is_clean, "the journal keeps its groups as long"
    assert run_retention(engine, now_ns=clock.now_ns()).deleted["usage"] == 1
    engine.dispose()


async def test_the_journal_forgets_requests_after_90_days_and_keeps_its_sums(
    engine: Engine, clock: MovableClock
) -> None:
    alice, bob = make_customer(engine), make_customer(engine)
    for _ in range(2):
        async with running_desk(engine, clock) as desk:
            for customer in (alice, alice, bob):
                await desk.settle_durably(await desk.admit(await desk.ask(customer)), TokenUsage(10, 20))
        clock.move(DAY_S)
    with read(engine) as connection:
        sums = select(entries.c.book_id, func.sum(entries.c.amount_nusd)).group_by(entries.c.book_id)
        before = {tuple(row) for row in connection.execute(sums) if row[1]}
        statements = [statement_of(connection, one.account_id, MONTH) for one in (alice, bob)]
    clock.move((RETENTION_DAYS + 1) * DAY_S)
    assert run_retention(engine, now_ns=clock.now_ns()).deleted["entry_groups"] > 6
    assert "entry_groups" not in run_retention(engine, now_ns=clock.now_ns()).deleted
    with read(engine) as connection:
        assert {tuple(row) for row in connection.execute(sums) if row[1]} == before
        ids = set(connection.execute(select(entry_groups.c.id)).scalars())
        assert not [one for one in ids if "gen-" in one or "lea-" in one]
        assert len([one for one in ids if one.startswith("settle/day-")]) == 4
        assert verify(connection, usage_since_ns=usage_before_ns(connection)).is_clean
        after = [statement_of(connection, one.account_id, MONTH) for one in (alice, bob)]
    assert [one.closing_nusd for one in after] == [one.closing_nusd for one in statements]


async def test_what_comes_late_joins_its_day(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    at_ns = clock.now_ns() // NS_PER_DAY * NS_PER_DAY
    async with running_desk(engine, clock) as desk:
        for _ in range(2):
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
            with write(engine) as connection:
                assert close_old_groups(connection, before_ns=at_ns + NS_PER_DAY) > 0
    with write(engine) as connection:
        close_old_groups(connection, before_ns=at_ns + NS_PER_DAY)
        settled = select(func.count()).select_from(entry_groups).where(entry_groups.c.kind == "settle")
        assert connection.execute(settled).scalar_one() == 1
        report = verify(connection, usage_since_ns=at_ns + NS_PER_DAY)
        assert {finding.check for finding in report.findings} <= {"usage_is_booked"}


def test_what_is_counted_is_more_than_usage() -> None:
    assert {"usage", "usage_days", "mail_outbox"} <= {one.table.name for one in expiring_tables()}


def test_a_run_with_nothing_to_do_deletes_nothing_and_may_be_repeated(engine: Engine, clock: MovableClock) -> None:
    make_customer(engine)
    for compact in (False, True):
        assert run_retention(engine, now_ns=clock.now_ns(), compact=compact).deleted == {}


BY_A_COLUMN = [one for one in expiring_tables() if one.table.name not in ("usage", "usage_days")]
"""Those two have tests of their own above."""


def row_of(table: Table, since: str, value: int, mark: int) -> dict[str, object]:
    """Something in every column that needs it; what rows mean is not the matter here."""
    row: dict[str, object] = {}
    for column in table.columns:
        if isinstance(column.type, LargeBinary):
            row[column.name] = bytes([mark]) * 32
        else:
            row[column.name] = str(mark) if isinstance(column.type, Text) else mark
    return {**row, since: value}


@pytest.mark.parametrize("one", BY_A_COLUMN, ids=lambda one: str(one.table.name))
def test_each_lifetime_ends_to_the_nanosecond(one: Expiring, tmp_path: Path) -> None:
    engine = make_database(tmp_path)
    table, since = one.table, one.entry.since
    young = one.cutoff(START_NS)
    with engine.connect() as connection:
        raw = connection.connection.cursor()
        for pragma in ("foreign_keys = OFF", "ignore_check_constraints = ON"):
            raw.execute(f"PRAGMA {pragma}")
        for mark, value in ((1, young - 1), (2, young)):
            connection.execute(table.insert(), row_of(table, since, value, mark))
        connection.commit()
        connection.detach()
    assert run_retention(engine, now_ns=START_NS).deleted == {table.name: 1}
    with read(engine) as connection:
        assert [row[0] for row in connection.execute(select(table.c[since]))] == [young]
    engine.dispose()
