"""What the rest relies on: durable settings, one transaction per use case, one migrated schema on both databases."""

import asyncio
import sqlite3
import stat
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from dragonfly.accounts.tables import accounts
from dragonfly.infra.changes import CHANGES_PAGE_MAX, changes_since, record_change
from dragonfly.infra.database import SCHEMA, DatabaseAway, DatabaseThreads, open_engine, read, write
from dragonfly.ledger.tables import entries, entry_groups, wallets
from dragonfly.migrations import applied_revision, newest_revision, upgrade
from dragonfly.privacy.inventory import all_tables
from dragonfly.usage.partitions import is_partition
from tests.factories import START_NS, make_account, make_customer


def test_a_new_database_reaches_the_newest_revision_and_stays_there(empty_url: str) -> None:
    engine = open_engine(empty_url)
    assert applied_revision(engine) is None
    assert upgrade(engine) == newest_revision() == applied_revision(engine)
    assert upgrade(engine) == newest_revision()
    engine.dispose()


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(engine: Engine) -> None:
    assert all_tables()

    def is_declared(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or not is_partition(name or "")

    with read(engine) as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_declared})
        assert compare_metadata(context, SCHEMA) == []


def test_two_processes_may_migrate_at_the_same_time(empty_url: str) -> None:
    engines = [open_engine(empty_url) for _ in range(3)]
    failures: list[BaseException] = []

    def migrate(engine: Engine) -> None:
        try:
            upgrade(engine)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=migrate, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert applied_revision(engines[0]) == newest_revision()
    for engine in engines:
        engine.dispose()


def test_who_opens_a_new_file_waits_for_another_who_is_switching_it(tmp_path: Path) -> None:
    """While somebody else switches it to write-ahead logging, SQLite refuses to without waiting."""
    path = tmp_path / "dragonfly.db"
    engine = open_engine(f"sqlite:///{path}")
    connects, opened = threading.Event(), threading.Event()
    event.listen(engine, "do_connect", lambda *_: connects.set())

    def open_file() -> None:
        with suppress(DatabaseAway), read(engine) as connection:
            connection.execute(text("SELECT count(*) FROM sqlite_schema"))
            opened.set()

    opening = threading.Thread(target=open_file)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening.start()
        connects.wait()
        opening.join(0.05)
        other.execute("COMMIT")
    opening.join()
    assert opened.is_set()
    engine.dispose()


def test_sqlite_is_durable_strict_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "dragonfly.db"
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    with read(engine) as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
        tables = connection.exec_driver_sql("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").all()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    ours = {name: strict for name, strict in tables if not name.startswith(("sqlite_", "alembic_"))}
    assert set(ours) == {table.name for table in all_tables()}
    assert set(ours.values()) == {1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///x.db?mode=ro", "mysql://localhost/x"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="SQLite"):
        open_engine(url)


def test_a_use_case_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    def fail_half_way() -> None:
        with write(engine) as connection:
            connection.execute(insert(accounts).values(id="acc-1", name="Alice", created_at_ns=START_NS))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    with read(engine) as connection:
        assert connection.execute(select(accounts.c.id)).all() == []


def test_what_is_written_while_reading_does_not_stay(engine: Engine) -> None:
    account_id = make_account(engine)
    with suppress(DBAPIError), read(engine) as connection:  # PostgreSQL refuses it at once
        connection.execute(update(accounts).values(name="Bob"))
    with read(engine) as connection:
        assert connection.execute(select(accounts.c.name).where(accounts.c.id == account_id)).scalar_one() == "Alice"


def test_a_read_sees_one_snapshot(engine: Engine) -> None:
    account_id = make_account(engine)
    name = select(accounts.c.name).where(accounts.c.id == account_id)
    with read(engine) as reading:
        assert reading.execute(name).scalar_one() == "Alice"
        with write(engine) as writing:
            writing.execute(update(accounts).values(name="Bob"))
        assert reading.execute(name).scalar_one() == "Alice"
    with read(engine) as reading:
        assert reading.execute(name).scalar_one() == "Bob"


@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}"])
@pytest.mark.parametrize(
    ("table", "change"),
    [("entries", "amount_nusd = 1"), ("entry_groups", "kind = 'x'"), ("books", "kind = 'x'")],
)
def test_the_ledger_takes_no_corrections(engine: Engine, statement: str, table: str, change: str) -> None:
    make_customer(engine)
    column, value = change.split(" = ")
    with pytest.raises(DBAPIError, match="append-only"), write(engine) as connection:
        connection.execute(text(statement.format(table, column, value)))


def test_the_database_refuses_impossible_wallets(engine: Engine) -> None:
    customer = make_customer(engine, nusd=100)
    for values in ({"balance_nusd": -1}, {"leased_nusd": 101}, {"leased_nusd": -1}, {"charged_nusd": -1}):
        with pytest.raises(DBAPIError), write(engine) as connection:
            connection.execute(update(wallets).values(values).where(wallets.c.account_id == customer.account_id))


def test_an_entry_needs_its_group_and_its_book(engine: Engine) -> None:
    make_customer(engine)
    with write(engine) as connection:
        connection.execute(insert(entry_groups).values(id="g", kind="grant", created_at_ns=1))
    for group_id, book_id in (("none", "promo_cost"), ("g", "none")):
        with pytest.raises(DBAPIError), write(engine) as connection:
            connection.execute(insert(entries).values(group_id=group_id, book_id=book_id, amount_nusd=1))


def test_a_missing_table_is_our_mistake_and_not_a_database_that_is_away(empty_url: str) -> None:
    engine = open_engine(empty_url)
    with pytest.raises(DBAPIError), read(engine) as connection:
        connection.execute(select(accounts))
    engine.dispose()


def test_a_database_that_cannot_be_opened_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = [f"sqlite:///{tmp_path}", "postgresql://nobody@127.0.0.1:1/none"]
    for url in nowhere:
        engine = open_engine(url)
        with pytest.raises(DatabaseAway) as caught, read(engine):
            pass
        assert caught.value.code == "store_unavailable"
        assert caught.value.__cause__ is None
        engine.dispose()


def test_no_error_shows_bound_values(engine: Engine) -> None:
    with pytest.raises(DBAPIError) as caught, write(engine) as connection:
        connection.execute(insert(wallets).values(account_id="canary-value", balance_nusd=1, leased_nusd=2))
    assert "canary-value" not in str(caught.value).split("DETAIL")[0]


def test_changes_are_told_in_order_and_never_missed(engine: Engine) -> None:
    with write(engine) as connection:
        first = record_change(connection, "key/one")
    with write(engine) as connection:
        record_change(connection, "key/two")
        second = record_change(connection, "account/acc-1")
    with read(engine) as connection:
        assert changes_since(connection, first).subjects == ("key/two", "account/acc-1")
        assert changes_since(connection, second) == (second, ())
        assert changes_since(connection, second + 5) == (second, None)
    with write(engine) as connection:
        for _ in range(CHANGES_PAGE_MAX):
            last = record_change(connection, "key/three")
    with read(engine) as connection:
        assert changes_since(connection, first) == (last, None)
        assert changes_since(connection, second).subjects == ("key/three",) * CHANGES_PAGE_MAX


async def test_database_work_beyond_the_queue_is_refused_and_the_rest_is_done() -> None:
    threads = DatabaseThreads(threads=1, waiting_max=2, wait_s=5.0)
    release = threading.Event()
    first = asyncio.create_task(threads.run(release.wait, 5.0))
    second = asyncio.create_task(threads.run(lambda: "done"))
    await asyncio.sleep(0)
    with pytest.raises(DatabaseAway):
        await threads.run(lambda: "too much")
    release.set()
    assert await first is True
    assert await second == "done"
    assert await threads.run(lambda: "again") == "again"
    threads.close()
    with pytest.raises(DatabaseAway):
        await threads.run(lambda: "closed")


async def test_a_wait_for_the_database_is_bounded() -> None:
    threads = DatabaseThreads(threads=1, waiting_max=2, wait_s=0.05)
    release = threading.Event()
    with pytest.raises(DatabaseAway):
        await threads.run(release.wait, 5.0)
    release.set()
    threads.close()
