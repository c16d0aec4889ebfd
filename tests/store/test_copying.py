"""An installation moves from SQLite to PostgreSQL: all of it, exactly, or nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, Table, func, insert, inspect, select, update

from dragonfly.accounts.tables import accounts
from dragonfly.core.clock import SystemClock
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.changes import record_change
from dragonfly.infra.database import open_engine, read, write
from dragonfly.ledger.tables import wallets
from dragonfly.migrations import applied_revision, newest_revision, upgrade
from dragonfly.migrations.copying import ROWS_PER_BATCH, Copied, CopyRefused, copy_database
from dragonfly.privacy.inventory import all_tables
from tests.factories import START_NS, Customer, MovableClock, make_account, make_customer, make_database
from tests.postgres import postgres_database
from tests.store.desk import make_gate, make_settings, running_desk

ODD_NAMES = ("", "\\N", "a\tb\nc\\d\re", 'O\'Brien "the" \\. x', "é 龙 \U0001f409 \u202e", "NULL", " ")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Engine]:
    engine = make_database(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def target(postgresql_server_url: str) -> Iterator[Engine]:
    with postgres_database(postgresql_server_url) as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


def copy(source: Engine, target: Engine, *, silence_s: float = 0.0) -> Copied:
    return copy_database(source, target, all_tables(), silence_s=silence_s, usage_since_ns=0)


def content(engine: Engine, table: Table) -> list[str]:
    with read(engine) as connection:
        return sorted(repr(tuple(row)) for row in connection.execute(select(table)))


def tables_of(engine: Engine) -> list[str]:
    with read(engine) as connection:
        return inspect(connection).get_table_names()


async def live(engine: Engine, clock: MovableClock) -> Customer:
    """Something in most tables: customers, requests, and the leases of a worker that stopped without a word."""
    alice = make_customer(engine)
    make_customer(engine, name="Bob", usd="0")
    async with running_desk(engine, clock) as desk:
        for _ in range(5):
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
    gate = make_gate(engine, clock)
    await gate.start()
    policy = await gate.key(alice.secret)
    async with running_desk(engine, clock) as desk:
        ask = await desk.ask(policy)
        await gate.admit_waiting(ask)
    return alice  # the gate is forgotten with its hold


async def test_everything_arrives_and_the_new_side_serves(
    source: Engine, target: Engine, clock: MovableClock
) -> None:
    alice = await live(source, clock)
    copied = await asyncio.to_thread(copy, source, target)
    assert applied_revision(target) == newest_revision()
    assert [table.name for table in copied.tables] == [table.name for table in all_tables()]
    for table, told in zip(all_tables(), copied.tables, strict=True):
        given = content(source, table)
        assert content(target, table) == given
        assert told.rows == len(given)
    rows = {table.name: table.rows for table in copied.tables}
    assert (rows["accounts"], rows["usage"], rows["workers"], rows["leases"]) == (2, 5, 1, 1)
    assert copied.report.is_clean
    async with running_desk(target, clock) as desk:
        before = desk.wallet(alice)
        assert before.leased_nusd > 0
        await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
        await desk.gate.sweep()
        clock.move(20.0)
        await desk.gate.beat()
        assert await desk.gate.sweep() == 1
        assert desk.wallet(alice).charged_nusd > before.charged_nusd
        assert desk.verify().is_clean
    with read(target) as connection:
        assert connection.execute(select(func.sum(wallets.c.leased_nusd))).scalar_one() == 0


def test_odd_values_and_many_rows_arrive_as_they_are(source: Engine, target: Engine) -> None:
    with write(source) as connection:
        for number, name in enumerate(ODD_NAMES):
            times = {"created_at_ns": START_NS, "verified_at_ns": 2**63 - 1 - number}
            connection.execute(insert(accounts).values(id=f"acc-{number}", name=name, **times))
        for _ in range(ROWS_PER_BATCH + 1):
            record_change(connection, "account/acc-1")
    copy(source, target)
    for table in all_tables():
        assert content(target, table) == content(source, table)


def test_the_same_content_has_the_same_digests_and_other_content_others(
    source: Engine, target: Engine, postgresql_server_url: str
) -> None:
    account_id = make_account(source)
    first = copy(source, target)
    with postgres_database(postgresql_server_url) as url:
        again = open_engine(url)
        assert copy(source, again).tables == first.tables
        again.dispose()
    with write(source) as connection:
        connection.execute(update(accounts).values(name="Bob").where(accounts.c.id == account_id))
    with postgres_database(postgresql_server_url) as url:
        other = open_engine(url)
        second = copy(source, other)
        other.dispose()
    assert {one.name for one, old in zip(second.tables, first.tables, strict=True) if one != old} == {"accounts"}


def test_a_target_with_anything_in_it_is_refused(source: Engine, target: Engine) -> None:
    upgrade(target)
    with pytest.raises(CopyRefused, match="not empty"):
        copy(source, target)


def test_only_sqlite_to_postgresql_is_offered(source: Engine, target: Engine) -> None:
    for one, other in ((source, source), (target, source), (target, target)):
        with pytest.raises(CopyRefused, match="pg_dump"):
            copy(one, other)


def test_a_source_of_another_version_or_with_other_tables_is_refused(
    source: Engine, target: Engine, tmp_path: Path
) -> None:
    empty = open_engine(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(CopyRefused, match="dragonfly migrate"):
        copy(empty, target)
    empty.dispose()
    with write(source) as connection:
        connection.exec_driver_sql("CREATE TABLE stranger (id TEXT)")
    with pytest.raises(CopyRefused, match="stranger"):
        copy(source, target)
    assert tables_of(target) == []


async def test_a_source_that_is_being_served_from_is_refused(source: Engine, target: Engine) -> None:
    async with running_desk(source, SystemClock(), make_settings()) as desk:
        copying = asyncio.create_task(asyncio.to_thread(copy, source, target, silence_s=20.0))
        while not copying.done():
            await desk.gate.beat()
            await asyncio.sleep(0.01)
        with pytest.raises(CopyRefused, match="running"):
            await copying
    copy(source, target)


def test_what_postgresql_cannot_store_is_told_and_leaves_the_target_empty(source: Engine, target: Engine) -> None:
    account_id = make_account(source)
    with write(source) as connection:
        connection.execute(update(accounts).values(name="Al\x00ice").where(accounts.c.id == account_id))
    with pytest.raises(CopyRefused, match="table accounts"):
        copy(source, target)
    assert tables_of(target) == []


def test_books_that_are_not_right_leave_the_target_empty(source: Engine, target: Engine) -> None:
    alice = make_customer(source)
    with write(source) as connection:
        connection.execute(update(wallets).values(balance_nusd=1).where(wallets.c.account_id == alice.account_id))
    with pytest.raises(CopyRefused, match="ledger verify"):
        copy(source, target)
    assert tables_of(target) == []


def test_no_table_counts_its_rows_in_the_database(postgresql_url: str) -> None:
    """Else a copy would have to move the counters too."""
    engine = open_engine(postgresql_url)
    with read(engine) as connection:
        counted = "SELECT count(*) FROM pg_class WHERE relkind = 'S'"
        assert connection.exec_driver_sql(counted).scalar_one() == 0
    engine.dispose()
