"""What writes the log of operators and announcements. Each runs inside a transaction that its caller opened."""

from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.changes import lock_changes
from dragonfly.operations.rules import (
    NO_DIGEST,
    REASON_LENGTH_MAX,
    REASON_LENGTH_MIN,
    TARGET_LENGTH_MAX,
    AuditAction,
    Severity,
    chained_digest,
    is_reason,
    is_text,
)
from dragonfly.operations.tables import announcements, audit_log

ANNOUNCEMENTS_MAX = 10_000


class ReasonInvalid(DragonflyError):
    """An operator did not say why."""

    code = "reason_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            f"Say why in one line of {REASON_LENGTH_MIN} to {REASON_LENGTH_MAX} printable characters; it stands in"
            " the audit log."
        )


class AnnouncementInvalid(DragonflyError):
    code = "announcement_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__("An announcement needs a text in both languages and an end that is after its beginning.")


class AnnouncementNotFound(DragonflyError):
    code = "announcement_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such announcement. GET /api/announcements lists those that are shown.")


class TooManyAnnouncements(DragonflyError):
    code = "too_many_announcements"
    status = 409

    def __init__(self) -> None:
        super().__init__(f"At most {ANNOUNCEMENTS_MAX} announcements are kept. Withdraw old ones.")


class Announced(NamedTuple):
    """What an announcement says and when it is shown; times in nanoseconds since the epoch."""

    severity: Severity
    text_en: str
    text_zh: str
    starts_at_ns: int
    ends_at_ns: int | None


def record_action(
    connection: Connection, actor_id: AccountId, action: AuditAction, *, target: str, reason: str, now_ns: int
) -> int:
    """One row of the log, in the transaction of the action itself; its number. ReasonInvalid."""
    if not is_reason(reason):
        raise ReasonInvalid
    assert len(target) <= TARGET_LENGTH_MAX, "a target is an id"
    lock_changes(connection)  # one writer at a time: each row chains to the one before
    newest = select(audit_log.c.number, audit_log.c.digest).order_by(audit_log.c.number.desc()).limit(1)
    last = connection.execute(newest).one_or_none()
    number, previous = (1, NO_DIGEST) if last is None else (last.number + 1, last.digest)
    fields = (actor_id, action.value, target, reason, now_ns)
    row = {
        "number": number,
        "actor_id": actor_id,
        "action": action.value,
        "target": target,
        "reason": reason,
        "at_ns": now_ns,
        "digest": chained_digest(previous, number, *fields),
    }
    connection.execute(insert(audit_log).values(row))
    return int(number)


def announce(connection: Connection, ids: IdSource, announced: Announced, *, now_ns: int) -> str:
    """Publishes an announcement; its id. AnnouncementInvalid."""
    ends_at_ns = announced.ends_at_ns
    ends_too_early = ends_at_ns is not None and ends_at_ns <= announced.starts_at_ns
    if ends_too_early or not (is_text(announced.text_en) and is_text(announced.text_zh)):
        raise AnnouncementInvalid
    if connection.execute(select(func.count()).select_from(announcements)).scalar_one() >= ANNOUNCEMENTS_MAX:
        raise TooManyAnnouncements
    announcement_id = ids.new("ann-", now_ns)
    row = {**announced._asdict(), "severity": announced.severity.value}
    row |= {"id": announcement_id, "created_at_ns": now_ns, "is_withdrawn": 0}
    connection.execute(insert(announcements).values(row))
    return announcement_id


def withdraw(connection: Connection, announcement_id: str) -> None:
    """Takes an announcement back; a second time changes nothing. AnnouncementNotFound."""
    wanted = update(announcements).where(announcements.c.id == announcement_id)
    if not connection.execute(wanted.values(is_withdrawn=1)).rowcount:
        raise AnnouncementNotFound
