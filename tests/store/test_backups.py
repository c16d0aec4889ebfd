"""Backups hold what must be restored, and nothing that would outlive its time in them."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import dialect_of
from dragonfly.privacy.backups import BackupRefused, expire_backups, make_backup, restore_backup
from tests.factories import MovableClock, make_customer
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
    if dialect_of(engine) != "sqlite":
        with pytest.raises(BackupRefused, match="pg_dump"):
            make_backup(engine, tmp_path / "copies", days=7, now_ns=clock.now_ns())
        return
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
    if dialect_of(engine) != "sqlite":
        return
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
