"""The end of usage rows: they live 90 days, as the privacy policy says; the ledger's groups stay."""

from sqlalchemy import Connection, delete, select

from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.tables import usage

RETENTION_DAYS = 90
ROWS_PER_DELETION_MAX = 2_000
"""One transaction deletes no more, so that settlements never wait long behind it."""
_NS_PER_MS = 1_000_000


def forget_old_usage(connection: Connection, *, now_ns: int) -> int:
    """Delete the oldest rows that have had their 90 days; how many. Call again while it deletes the maximum.

    A request's id begins with its time, so that the oldest rows are the first of the primary key.
    """
    before_ms = (now_ns - RETENTION_DAYS * NS_PER_DAY) // _NS_PER_MS
    oldest = select(usage.c.request_id).where(usage.c.request_id < f"gen-{before_ms:012x}")
    oldest = oldest.order_by(usage.c.request_id).limit(ROWS_PER_DELETION_MAX)
    found = list(connection.execute(oldest).scalars())
    if found:
        connection.execute(delete(usage).where(usage.c.request_id.in_(found)))
    return len(found)
