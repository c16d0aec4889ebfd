"""The feed of changes that every worker must notice within a second: keys, accounts.

A writer counts one row up in its own transaction. The row stays locked until that transaction ends, so revisions
become visible in their order and a reader that asks "what came after 41?" can miss nothing. Writers wait for each
other here, which is right for changes that people make.
"""

from typing import NamedTuple

from sqlalchemy import CheckConstraint, Column, Connection, Integer, Table, Text, delete, insert, select, update

from dragonfly.infra.database import BIG, SCHEMA

CHANGES_KEPT = 10_000
"""A reader further behind than this forgets all it has cached instead."""
CHANGES_PAGE_MAX = 1_000

change_counter = Table(
    "change_counter",
    SCHEMA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BIG, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
    info={
        "purpose": "Counts changes, so that every process notices them",
        "category": "operation",
        "lifetime": "installation",
        "columns": {
            "id": "There is one row",
            "revision": "Number of the last change",
        },
    },
)

changes = Table(
    "changes",
    SCHEMA,
    Column("revision", BIG, primary_key=True, autoincrement=False),
    Column("subject", Text, nullable=False),
    sqlite_strict=True,
    info={
        "purpose": "Which account or key changed, so that every process forgets what it remembers of it",
        "category": "account",
        "lifetime": "the last 10,000 changes",
        "columns": {
            "revision": "Number of the change",
            "subject": "Id of the account or key",
        },
    },
)


class Changes(NamedTuple):
    """What changed after a revision."""

    revision: int
    """Where to go on from."""
    subjects: tuple[str, ...] | None
    """E.g. "key/4Hb…", "account/acc-…"; None: too much to tell, forget everything."""


def record_change(connection: Connection, subject: str) -> int:
    """Announces that `subject` changed, with the transaction that changed it; gives the revision."""
    counted = update(change_counter).values(revision=change_counter.c.revision + 1)
    revision = connection.execute(counted.returning(change_counter.c.revision)).scalar_one()
    connection.execute(insert(changes).values(revision=revision, subject=subject))
    connection.execute(delete(changes).where(changes.c.revision <= revision - CHANGES_KEPT))
    return int(revision)


def lock_changes(connection: Connection) -> None:
    """Lets other writers of rare changes wait until this transaction ends."""
    connection.execute(update(change_counter).values(revision=change_counter.c.revision))


def current_revision(connection: Connection) -> int:
    """The newest revision that this snapshot sees."""
    return int(connection.execute(select(change_counter.c.revision)).scalar_one())


def changes_since(connection: Connection, revision: int) -> Changes:
    """What changed after `revision`, in one bounded answer."""
    newest = current_revision(connection)
    if newest == revision:
        return Changes(newest, ())
    # A smaller number than the one already seen means another database, e.g. one restored from a backup.
    if not 0 < newest - revision <= CHANGES_PAGE_MAX:
        return Changes(newest, None)
    wanted = select(changes.c.subject).where(changes.c.revision > revision, changes.c.revision <= newest)
    return Changes(newest, tuple(connection.execute(wanted.limit(CHANGES_PAGE_MAX)).scalars()))
