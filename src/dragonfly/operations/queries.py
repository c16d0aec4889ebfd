"""Reads of the log of operators and of announcements."""

from typing import NamedTuple

from sqlalchemy import Connection, or_, select

from dragonfly.core.ids import AccountId
from dragonfly.operations.rules import NO_DIGEST, chained_digest
from dragonfly.operations.tables import announcements, audit_log

AUDIT_PAGE_MAX = 1_000
ANNOUNCEMENTS_PAGE_MAX = 100
_ROWS_PER_READ = 1_000


class AuditRow(NamedTuple):
    """One action of an operator."""

    number: int
    actor_id: AccountId
    action: str
    target: str
    reason: str
    at_ns: int


class Announcement(NamedTuple):
    """One announcement as stored; times in nanoseconds since the epoch."""

    id: str
    severity: str
    text_en: str
    text_zh: str
    starts_at_ns: int
    ends_at_ns: int | None


def audit_page(
    connection: Connection, *, before: int | None = None, target: str | None = None, limit: int = 100
) -> list[AuditRow]:
    """What operators did, newest first; `before` is the number of the last row seen."""
    wanted = select(*(audit_log.c[name] for name in AuditRow._fields)).order_by(audit_log.c.number.desc())
    if before is not None:
        wanted = wanted.where(audit_log.c.number < before)
    if target is not None:
        wanted = wanted.where(audit_log.c.target == target)
    return [AuditRow(*row) for row in connection.execute(wanted.limit(min(limit, AUDIT_PAGE_MAX + 1)))]


def first_broken_row(connection: Connection) -> int | None:
    """The number of the first row of the log that does not follow from the one before; None: the chain holds."""
    number, previous = 0, NO_DIGEST
    while True:
        wanted = select(audit_log).where(audit_log.c.number > number).order_by(audit_log.c.number)
        rows = connection.execute(wanted.limit(_ROWS_PER_READ)).all()
        for row in rows:
            fields = (row.actor_id, row.action, row.target, row.reason, row.at_ns)
            if row.number != number + 1 or row.digest != chained_digest(previous, row.number, *fields):
                return int(number + 1)
            number, previous = row.number, row.digest
        if len(rows) < _ROWS_PER_READ:
            return None


def announcements_shown(
    connection: Connection, *, now_ns: int, after: str = "", limit: int = 100
) -> list[Announcement]:
    """What everybody is told now, in the order of its creation."""
    shown = select(*(announcements.c[name] for name in Announcement._fields)).where(
        announcements.c.is_withdrawn == 0,
        announcements.c.starts_at_ns <= now_ns,
        or_(announcements.c.ends_at_ns.is_(None), announcements.c.ends_at_ns > now_ns),
        announcements.c.id > after,
    )
    shown = shown.order_by(announcements.c.id).limit(min(limit, ANNOUNCEMENTS_PAGE_MAX + 1))
    return [Announcement(*row) for row in connection.execute(shown)]
