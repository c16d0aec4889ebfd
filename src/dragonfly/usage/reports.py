"""What customers ask about their usage: filtered rows, roll-ups, and the activity of keys. Scoped to the account."""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, column, func, select, table, true, tuple_

from dragonfly.core.ids import AccountId, KeyId
from dragonfly.usage.queries import NS_PER_DAY, UsageRow, day_of, month_start, week_start
from dragonfly.usage.tables import usage, usage_days

ROWS_PAGE_MAX = 1_000
TOTALS_PAGE_MAX = 1_000

_keys = table("keys", column("id"), column("account_id"), column("name"), column("key_group"))


class UsageFilter(NamedTuple):
    """Which requests; None: all."""

    since_ns: int | None = None
    until_ns: int | None = None
    """Not included."""
    key_id: KeyId | None = None
    key_group: str | None = None
    model: str | None = None


class LabelledRow(NamedTuple):
    """One request with what its key is called now."""

    row: UsageRow
    key_name: str
    key_group: str


class Dimension(enum.Enum):
    """What totals can be told apart by."""

    DAY = "day"
    KEY = "key"
    KEY_GROUP = "key_group"
    MODEL = "model"
    PROVIDER = "provider"


class Total(NamedTuple):
    """The sum of some days' requests; `of` has the values of the dimensions asked for, in their order."""

    of: tuple[str | int, ...]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_nusd: int


class KeyActivity(NamedTuple):
    """What one key cost lately, in nano-USD, and the last day it was used on (counted from the epoch)."""

    today_nusd: int = 0
    week_nusd: int = 0
    month_nusd: int = 0
    last_used_day: int | None = None


_DIMENSIONS: dict[Dimension, ColumnElement[Any]] = {
    Dimension.DAY: usage_days.c.day,
    Dimension.KEY: usage_days.c.key_id,
    Dimension.KEY_GROUP: func.coalesce(_keys.c.key_group, ""),
    Dimension.MODEL: usage_days.c.model,
    Dimension.PROVIDER: usage_days.c.provider,
}
_SUMS = Total._fields[1:]


def usage_rows(
    connection: Connection,
    account_id: AccountId,
    wanted: UsageFilter,
    *,
    before: tuple[int, str] | None = None,
    limit: int = 100,
) -> list[LabelledRow]:
    """The account's requests, newest first; `before` is (created_at_ns, request_id) of the last row seen."""
    labels = (func.coalesce(_keys.c.name, ""), func.coalesce(_keys.c.key_group, ""))
    found = select(usage, *labels).select_from(usage.outerjoin(_keys, _keys.c.id == usage.c.key_id))
    found = found.where(*_conditions(account_id, wanted))
    if before is not None:
        found = found.where(tuple_(usage.c.created_at_ns, usage.c.request_id) < before)
    found = found.order_by(usage.c.created_at_ns.desc(), usage.c.request_id.desc())
    rows = connection.execute(found.limit(min(limit, ROWS_PAGE_MAX + 1)))
    return [LabelledRow(UsageRow(*row[:-2]), row[-2], row[-1]) for row in rows]


def has_more_rows_than(connection: Connection, account_id: AccountId, wanted: UsageFilter, most: int) -> bool:
    """Whether the filter finds more than `most` rows; reads one more than that at most."""
    some = select(usage.c.request_id).where(*_conditions(account_id, wanted)).limit(most + 1).subquery()
    return bool(connection.execute(select(func.count()).select_from(some)).scalar_one() > most)


def usage_totals(
    connection: Connection,
    account_id: AccountId,
    wanted: UsageFilter,
    by: Sequence[Dimension],
    *,
    after: tuple[str | int, ...] | None = None,
    limit: int = 100,
) -> list[Total]:
    """Totals of whole UTC days in the order of the dimensions; `after` is `of` of the last total seen."""
    dimensions = [_DIMENSIONS[dimension] for dimension in by]
    sums = [func.sum(usage_days.c[name]) for name in _SUMS]
    joined = usage_days.outerjoin(_keys, _keys.c.id == usage_days.c.key_id)
    found = select(*dimensions, *sums).select_from(joined).where(*_day_conditions(account_id, wanted))
    if after is not None:
        found = found.where(tuple_(*dimensions) > tuple_(*after))
    found = found.group_by(*dimensions).order_by(*dimensions).limit(min(limit, TOTALS_PAGE_MAX + 1))
    rows = connection.execute(found).all()
    return [Total(tuple(row[: len(by)]), *(int(value or 0) for value in row[len(by) :])) for row in rows]


def activity_of_keys(
    connection: Connection, account_id: AccountId, key_ids: Sequence[KeyId], *, day: int
) -> dict[KeyId, KeyActivity]:
    """What each of some keys cost in the running UTC day, week (from Monday) and month, and its last day of use."""
    since = {"today": day, "week": week_start(day), "month": month_start(day)}
    costs = [
        func.sum(usage_days.c.cost_nusd).filter(usage_days.c.day >= first).label(name)
        for name, first in since.items()
    ]
    found = select(usage_days.c.key_id, *costs, func.max(usage_days.c.day).label("last_day")).where(
        usage_days.c.account_id == account_id, usage_days.c.key_id.in_(list(key_ids))
    )
    rows = connection.execute(found.group_by(usage_days.c.key_id))
    return {
        KeyId(row.key_id): KeyActivity(int(row.today or 0), int(row.week or 0), int(row.month or 0), row.last_day)
        for row in rows
    }


def _conditions(account_id: AccountId, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [usage.c.account_id == account_id]
    if wanted.since_ns is not None:
        found.append(usage.c.created_at_ns >= wanted.since_ns)
    if wanted.until_ns is not None:
        found.append(usage.c.created_at_ns < wanted.until_ns)
    if wanted.model is not None:
        found.append(usage.c.model == wanted.model)
    found.append(_of_key(usage.c.key_id, account_id, wanted))
    return found


def _day_conditions(account_id: AccountId, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [usage_days.c.account_id == account_id]
    if wanted.since_ns is not None:
        found.append(usage_days.c.day >= day_of(wanted.since_ns))
    if wanted.until_ns is not None:
        found.append(usage_days.c.day < day_of(wanted.until_ns + NS_PER_DAY - 1))
    if wanted.model is not None:
        found.append(usage_days.c.model == wanted.model)
    found.append(_of_key(usage_days.c.key_id, account_id, wanted))
    return found


def _of_key(key_id: ColumnElement[Any], account_id: AccountId, wanted: UsageFilter) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [true()]
    if wanted.key_id is not None:
        conditions.append(key_id == wanted.key_id)
    if wanted.key_group is not None:
        grouped: Select[Any] = select(_keys.c.id).where(
            _keys.c.account_id == account_id, _keys.c.key_group == wanted.key_group
        )
        conditions.append(key_id.in_(grouped))
    return and_(*conditions)
