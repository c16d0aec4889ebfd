"""Backups that keep the promise: a backup holds no row that would outlive its time before the backup itself expires.

A backup is an SQLite file, of PostgreSQL too, made while the gateway runs: by `VACUUM INTO`, without what was
deleted, or by copying every table from one snapshot. Its name says when it was made and so when it ends. Rows that
would reach the end of their lifetime within the backup's own are left out, so on its last day the oldest usage row in
it is as old as the oldest one in the database.
"""

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from dragonfly.admission.proofs import compared_since_ns
from dragonfly.core.errors import DragonflyError
from dragonfly.infra.database import open_engine, read, write
from dragonfly.migrations import upgrade
from dragonfly.migrations.copying import copy_rows, fill_empty, require_empty
from dragonfly.privacy.inventory import all_tables
from dragonfly.privacy.retention import NS_PER_DAY, run_retention, usage_before_ns

FILE_MODE = 0o600
FOLDER_MODE = 0o700
JOURNALS = ("-wal", "-shm")
_NAME = re.compile(r"dragonfly-(\d{8}T\d{6}Z)\.db")
_STAMP = "%Y%m%dT%H%M%SZ"


class BackupRefused(DragonflyError):
    """This backup cannot be made or restored; the sentence says why."""

    code = "backup_refused"


def make_backup(engine: Engine, folder: Path, *, days: int, now_ns: int) -> Path:
    """Writes a backup that may be kept for `days` into `folder` and returns its path.

    BackupRefused when the folder cannot be written to; DatabaseAway.
    """
    stamp = datetime.fromtimestamp(now_ns / 1e9, UTC).strftime(_STAMP)
    path = folder / f"dragonfly-{stamp}.db"
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
    except FileExistsError:
        raise BackupRefused("There is a backup of this second already.") from None
    except OSError as failure:
        raise BackupRefused(f"{folder}: cannot be written ({failure.strerror}).") from None
    try:
        _copy(engine, path)
        _settle_in_one_file(path, now_ns=now_ns + days * NS_PER_DAY)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _copy(engine: Engine, path: Path) -> None:
    if engine.dialect.name != "sqlite":
        _copy_server(engine, path)
        return
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("VACUUM INTO ?", (str(path),))
    finally:
        raw.close()


def _copy_server(engine: Engine, path: Path) -> None:
    """Every table of one snapshot; the server goes on meanwhile."""
    copy = open_engine(f"sqlite:///{path}")
    try:
        upgrade(copy)
        with read(engine) as giving, write(copy) as taking:
            copy_rows(giving, taking, all_tables())
    finally:
        copy.dispose()


def _settle_in_one_file(path: Path, *, now_ns: int) -> None:
    """Deletes what would live too long, and leaves one file without a journal."""
    copy = open_engine(f"sqlite:///{path}")
    try:
        run_retention(copy, now_ns=now_ns, compact=True)
    finally:
        copy.dispose()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    database.close()


def expire_backups(folder: Path, *, days: int, now_ns: int) -> list[Path]:
    """Deletes backups in `folder` that are older than `days`; which ones. Other files are left alone."""
    now = datetime.fromtimestamp(now_ns / 1e9, UTC)
    gone = []
    for path in sorted(folder.glob("dragonfly-*.db")) if folder.is_dir() else ():
        named = _NAME.fullmatch(path.name)
        if named and now - datetime.strptime(named[1], _STAMP).replace(tzinfo=UTC) > timedelta(days=days):
            path.unlink()
            gone.append(path)
    return gone


def restore_backup(backup: Path, database: Path, *, now_ns: int) -> None:
    """Puts a backup in the place of `database`, brought to this version's schema and with retention done, so that
    nothing is served whose time has passed.

    BackupRefused when there is a database already, or the file is not a whole backup.
    """
    if database.exists():
        raise BackupRefused(f"{database} exists. Stop the gateway and move the file away first.")
    with _draft(backup, database.with_name(f".{database.name}.restoring"), now_ns=now_ns) as draft:
        for end in JOURNALS:
            database.with_name(database.name + end).unlink(missing_ok=True)
        draft.rename(database)


def restore_to_server(backup: Path, target: Engine, folder: Path, *, now_ns: int) -> None:
    """The same into an empty PostgreSQL database: complete and with right books, or still empty.

    `folder` holds a draft meanwhile. BackupRefused, CopyRefused, DatabaseAway.
    """
    with read(target) as connection:
        require_empty(connection)
    with _draft(backup, folder / ".restoring.db", now_ns=now_ns) as draft:
        source = open_engine(f"sqlite:///{draft}")
        try:
            with read(source) as giving:
                since_ns = compared_since_ns(now_ns, usage_before_ns(giving))
                fill_empty(giving, target, all_tables(), usage_since_ns=since_ns)
        finally:
            source.dispose()


@contextmanager
def _draft(backup: Path, draft: Path, *, now_ns: int) -> Iterator[Path]:
    """A checked copy of the backup with this version's schema and without what has lived its time; gone at the end,
    unless it was moved away."""
    leftovers = (draft, *(draft.with_name(draft.name + end) for end in JOURNALS))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
        shutil.copyfile(backup, draft)
        _check(draft)
        engine = open_engine(f"sqlite:///{draft}")
        try:
            upgrade(engine)
            run_retention(engine, now_ns=now_ns, compact=True)
        finally:
            engine.dispose()
        yield draft
    except OSError as failure:
        raise BackupRefused(f"{backup}: cannot be restored ({failure.strerror}).") from None
    finally:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)


def _check(path: Path) -> None:
    try:
        with sqlite3.connect(path) as database:
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.close()
    except sqlite3.Error:
        verdict = "damaged"
    if verdict != "ok":
        raise BackupRefused(f"{path.name.removeprefix('.')}: the backup is damaged, or is none of Dragonfly's.")
