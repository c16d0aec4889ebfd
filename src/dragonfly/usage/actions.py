"""The end of usage rows: they live 90 days, as the privacy policy says; the ledger's groups stay."""

from sqlalchemy import Connection, and_, column, delete, select, table, update

from dragonfly.infra.database import insert_missing
from dragonfly.usage.partitions import REST
from dragonfly.usage.queries import NS_PER_DAY, month_of
from dragonfly.usage.tables import usage, usage_days, usage_months

RETENTION_DAYS = 90
CLOSED_DAY = 0
"""The day of the total that closed days are folded into."""
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost_nusd")
ROWS_PER_DELETION_MAX = 2_000
"""One transaction deletes no more, so that settlements never wait long behind it."""
_NS_PER_MS = 1_000_000
_REST = table(REST, column("request_id"))


def forget_old_usage(connection: Connection, *, now_ns: int) -> int:
    """Delete the oldest rows that have had their 90 days; how many. Call again while it deletes the maximum.

    A request's id begins with its time, so that the oldest rows are the first of the primary key. On PostgreSQL rows
    in a day's table go with it (see `partitions`); here go those in the rest.
    """
    before_ms = (now_ns - RETENTION_DAYS * NS_PER_DAY) // _NS_PER_MS
    rows = usage if connection.dialect.name == "sqlite" else _REST
    oldest = select(rows.c.request_id).where(rows.c.request_id < f"gen-{before_ms:012x}")
    oldest = oldest.order_by(rows.c.request_id).limit(ROWS_PER_DELETION_MAX)
    found = list(connection.execute(oldest).scalars())
    if found:
        connection.execute(delete(rows).where(rows.c.request_id.in_(found)))
    return len(found)


def close_old_days(connection: Connection, *, now_ns: int) -> int:
    """Fold daily totals that have had their 90 days into one total for each key, and one for each account and month;
    how many rows went.

    The total has no day, model or provider any more, and still proves what the key has spent. Call again while it
    folds the maximum.
    """
    before = (now_ns - RETENTION_DAYS * NS_PER_DAY) // NS_PER_DAY
    expired = select(usage_days).where(usage_days.c.day > CLOSED_DAY, usage_days.c.day < before)
    expired = expired.order_by(usage_days.c.day).limit(ROWS_PER_DELETION_MAX)
    found = connection.execute(expired).mappings().all()
    for row in found:
        total = {"key_id": row["key_id"], "day": CLOSED_DAY, "model": "", "provider": ""}
        is_total = and_(*(usage_days.c[name] == value for name, value in total.items()))
        counts = {name: row[name] for name in COUNTS}
        nothing = dict.fromkeys(COUNTS, 0)
        insert_missing(connection, usage_days, {**total, "account_id": row["account_id"], **nothing})
        added = {name: usage_days.c[name] + count for name, count in counts.items()}
        connection.execute(update(usage_days).where(is_total).values(added))
        _add_to_month(connection, row["account_id"], row["day"], row["requests"], row["cost_nusd"])
        is_row = and_(*(column == row[column.name] for column in usage_days.primary_key.columns))
        connection.execute(delete(usage_days).where(is_row))
    return len(found)


def _add_to_month(connection: Connection, account_id: str, day: int, requests: int, cost_nusd: int) -> None:
    place = {"account_id": account_id, "month": month_of(day)}
    insert_missing(connection, usage_months, {**place, "requests": 0, "cost_nusd": 0})
    is_month = and_(*(usage_months.c[name] == value for name, value in place.items()))
    added = {"requests": usage_months.c.requests + requests, "cost_nusd": usage_months.c.cost_nusd + cost_nusd}
    connection.execute(update(usage_months).where(is_month).values(added))
