"""Backups hold what must be restored, and nothing that would outlive its time in them."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect

from dragonfly.admission.verify import verify
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import open_engine, read
from dragonfly.migrations.copying import CopyRefused
from dragonfly.privacy.backups import BackupRefused, expire_backups, make_backup, restore_backup, restore_to_server
from dragonfly.privacy.inventory import all_tables
from dragonfly.privacy.tables import privacy_runs
from tests.factories import MovableClock, make_customer
from tests.postgres import postgres_database
from tests.store.desk import running_desk

DAY_S = 86_400


async def serve_one(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))


def usage_rows(path: Path) -> int:
    with sqlite3.connect(path) as database:
        (count,) = database.execute("SELECT count(*) FROM usage").fetchone()
    database.close()
    return int(count)


async def test_a_backup_leaves_out_what_would_outlive_its_time_in_it(
    engine: Engine, clock: MovableClock, tmp_path: Path
) -> None:
    await serve_one(engine, clock)
    kept = []
    for days in (82.0, 2.0):
        clock.move(days * DAY_S)
        path = make_backup(engine, tmp_path / "copies", days=7, now_ns=clock.now_ns())
        kept.append(usage_rows(path))
        assert [other.name for other in path.parent.glob(f"{path.name}-*")] == [], "one file is the whole backup"
    assert kept == [1, 0]


async def test_a_restore_runs_retention_before_anything_is_served(
    engine: Engine, clock: MovableClock, tmp_path: Path
) -> None:
    await serve_one(engine, clock)
    path = make_backup(engine, tmp_path / "copies", days=7, now_ns=clock.now_ns())
    assert usage_rows(path) == 1
    clock.move(91 * DAY_S)
    restore_backup(path, tmp_path / "restored.db", now_ns=clock.now_ns())
    assert usage_rows(tmp_path / "restored.db") == 0


def test_other_files_in_the_folder_of_backups_are_left_alone(tmp_path: Path, clock: MovableClock) -> None:
    for name in ("dragonfly-old.db", "notes.txt", "dragonfly-20200101T000000Z.db"):
        (tmp_path / name).touch()
    gone = expire_backups(tmp_path, days=7, now_ns=clock.now_ns())
    assert [path.name for path in gone] == ["dragonfly-20200101T000000Z.db"]
    assert expire_backups(tmp_path / "missing", days=7, now_ns=clock.now_ns()) == []


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content(engine: Engine) -> dict[str, list[str]]:
    """Every row of every table but the note of when retention ran, and the schema's own."""
    with read(engine) as connection:
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(table.select()))
            for table in all_tables()
            if table is not privacy_runs
        }


async def test_a_backup_of_postgresql_made_while_it_serves_is_restored_into_an_empty_server(
    postgresql_url: str, postgresql_server_url: str, clock: MovableClock, tmp_path: Path
) -> None:
    engine = open_engine(postgresql_url)
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
        path = make_backup(engine, tmp_path / "copies", days=7, now_ns=clock.now_ns())
        before = content(engine)
    assert path.stat().st_mode & 0o777 == 0o600
    with postgres_database(postgresql_server_url) as url:
        target = open_engine(url)
        restore_to_server(path, target, tmp_path, now_ns=clock.now_ns())
        assert content(target) == before
        with pytest.raises(CopyRefused, match="not empty"):
            restore_to_server(path, target, tmp_path, now_ns=clock.now_ns())
        target.dispose()
    restore_backup(path, tmp_path / "moved.db", now_ns=clock.now_ns())
    moved = open_engine(f"sqlite:///{tmp_path / 'moved.db'}")
    assert content(moved) == before, "a backup may be restored into the other kind of database"
    with read(moved) as connection:
        assert verify(connection).is_clean
    moved.dispose()
    engine.dispose()
    assert left_in(tmp_path) == {"copies", "moved.db"}


async def test_a_restore_into_a_server_runs_retention_first(
    postgresql_url: str, postgresql_server_url: str, clock: MovableClock, tmp_path: Path
) -> None:
    engine = open_engine(postgresql_url)
    await serve_one(engine, clock)
    path = make_backup(engine, tmp_path / "copies", days=7, now_ns=clock.now_ns())
    engine.dispose()
    clock.move(91 * DAY_S)
    with postgres_database(postgresql_server_url) as url:
        target = open_engine(url)
        restore_to_server(path, target, tmp_path, now_ns=clock.now_ns())
        assert content(target)["usage"] == []
        assert not [row for row in content(target)["entry_groups"] if "gen-" in row]
        target.dispose()


def test_a_damaged_backup_leaves_an_empty_server_empty(
    postgresql_server_url: str, clock: MovableClock, tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\0" + bytes(5_000))
    with postgres_database(postgresql_server_url) as url:
        target = open_engine(url)
        with pytest.raises(BackupRefused, match="damaged"):
            restore_to_server(tmp_path / "broken.db", target, tmp_path, now_ns=clock.now_ns())
        with read(target) as connection:
            assert inspect(connection).get_table_names() == []
        target.dispose()
