"""Reads of metered requests. All are scoped to the account that owns the rows."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, func, select, tuple_

from dragonfly.core.ids import AccountId, KeyId, RequestId
from dragonfly.usage.tables import usage, usage_days, usage_months

SECONDS_PER_DAY = 86_400
NS_PER_DAY = SECONDS_PER_DAY * 1_000_000_000
USAGE_PAGE_MAX = 1_000
TOTALS_PAGE_MAX = 10_000
EPOCH = date(1970, 1, 1)
_ID_TIME_DIGITS = 12
_EPOCH_WEEKDAY = 3
"""1 January 1970 was a Thursday; Monday is 0."""


class UsageRow(NamedTuple):
    """One request as stored: the columns of the table, in their order."""

    request_id: RequestId
    account_id: AccountId
    key_id: KeyId
    model: str
    provider: str
    channel_id: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cache_write_1h_tokens: int
    basis: str
    price_version_id: str
    hold_nusd: int
    cost_nusd: int
    prompt_cost_nusd: int
    upstream_nusd: int
    absorbed_nusd: int
    group_id: str | None
    outcome: str
    finish_reason: str
    is_streamed: int
    attempts: int
    upstream_status: int
    ttft_us: int
    duration_us: int
    day: int
    created_at_ns: int


class DayTotal(NamedTuple):
    """What one key used of one model at one provider on one UTC day (counted from the epoch)."""

    day: int
    key_id: KeyId
    model: str
    provider: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_nusd: int


class KeyCosts(NamedTuple):
    """What a key cost in the running UTC day, week (from Monday) and month, in nano-USD."""

    today_nusd: int
    week_nusd: int
    month_nusd: int


def day_of(at_ns: int) -> int:
    """The UTC day of an instant, counted from the epoch."""
    return at_ns // NS_PER_DAY


def day_of_request(request_id: str) -> int:
    """The UTC day on which a request began, by its id."""
    milliseconds = request_id.removeprefix("gen-")[:_ID_TIME_DIGITS]
    return day_of(int(milliseconds, 16) * 1_000_000)


def week_start(day: int) -> int:
    """The Monday of the week in which `day` lies."""
    return day - (day + _EPOCH_WEEKDAY) % 7


def month_start(day: int) -> int:
    """The first day of the month in which `day` lies, both counted from the epoch."""
    first = datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC).replace(day=1)
    return int(first.timestamp()) // SECONDS_PER_DAY


def month_of(day: int) -> int:
    """The month in which a UTC day lies, as a number like 202611."""
    at = EPOCH + timedelta(days=day)
    return at.year * 100 + at.month


def date_text(day: int) -> str:
    """A UTC day as YYYY-MM-DD."""
    return (EPOCH + timedelta(days=day)).isoformat()


def usage_by_request(connection: Connection, account_id: AccountId, request_id: RequestId) -> UsageRow | None:
    """The account's request, or None; somebody else's request is None too."""
    wanted = select(usage).where(usage.c.request_id == request_id, usage.c.account_id == account_id)
    row = connection.execute(wanted).one_or_none()
    return None if row is None else UsageRow(*row)


def usage_page(
    connection: Connection,
    account_id: AccountId,
    *,
    before: tuple[int, str] | None = None,
    limit: int = 100,
) -> list[UsageRow]:
    """The account's requests, newest first; `before` is (created_at_ns, request_id) of the last row seen."""
    wanted = select(usage).where(usage.c.account_id == account_id)
    if before is not None:
        wanted = wanted.where(tuple_(usage.c.created_at_ns, usage.c.request_id) < before)
    wanted = wanted.order_by(usage.c.created_at_ns.desc(), usage.c.request_id.desc())
    return [UsageRow(*row) for row in connection.execute(wanted.limit(min(limit, USAGE_PAGE_MAX)))]


def day_totals(
    connection: Connection, account_id: AccountId, *, first_day: int, last_day: int, limit: int = 1_000
) -> list[DayTotal]:
    """The account's totals per day, key, model and provider; both days belong to the range."""
    columns = [usage_days.c[name] for name in DayTotal._fields]
    wanted = (
        select(*columns)
        .where(usage_days.c.account_id == account_id, usage_days.c.day.between(first_day, last_day))
        .order_by(usage_days.c.day, usage_days.c.key_id, usage_days.c.model, usage_days.c.provider)
        .limit(min(limit, TOTALS_PAGE_MAX))
    )
    return [DayTotal(*row) for row in connection.execute(wanted)]


def key_costs(connection: Connection, key_id: KeyId, *, day: int, month_first_day: int) -> KeyCosts:
    """The key's running totals; reads at most 37 days of one key."""
    first_day = min(week_start(day), month_first_day)
    wanted = (
        select(usage_days.c.day, func.sum(usage_days.c.cost_nusd))
        .where(usage_days.c.key_id == key_id, usage_days.c.day.between(first_day, day))
        .group_by(usage_days.c.day)
    )
    costs = {int(at): int(cost) for at, cost in connection.execute(wanted)}
    return KeyCosts(
        today_nusd=costs.get(day, 0),
        week_nusd=sum(cost for at, cost in costs.items() if at >= week_start(day)),
        month_nusd=sum(cost for at, cost in costs.items() if at >= month_first_day),
    )


def cost_in_days(connection: Connection, account_id: AccountId, *, first_day: int, last_day: int) -> int:
    """What the account's requests cost on the days that are not closed yet."""
    total = select(func.coalesce(func.sum(usage_days.c.cost_nusd), 0))
    total = total.where(usage_days.c.account_id == account_id, usage_days.c.day.between(max(1, first_day), last_day))
    return int(connection.execute(total).scalar_one())


def cost_in_closed_months(connection: Connection, account_id: AccountId, *, first: int, last: int) -> int:
    """What they cost on closed days of these months (numbers as month_of gives)."""
    total = select(func.coalesce(func.sum(usage_months.c.cost_nusd), 0))
    total = total.where(usage_months.c.account_id == account_id, usage_months.c.month.between(first, last))
    return int(connection.execute(total).scalar_one())


def spent_since(
    connection: Connection, *, now_ns: int, account_id: AccountId | None = None, key_id: KeyId | None = None
) -> KeyCosts:
    """What an account, or one key, has spent in the day, week and month of UTC that `now_ns` lies in."""
    day = day_of(now_ns)
    first = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).replace(day=1)
    month = day_of(int(first.timestamp()) * 1_000_000_000)
    week = week_start(day)
    whose = usage_days.c.account_id == account_id if key_id is None else usage_days.c.key_id == key_id
    wanted = (
        select(usage_days.c.day, func.sum(usage_days.c.cost_nusd))
        .where(whose, usage_days.c.day >= min(week, month))
        .group_by(usage_days.c.day)
    )
    costs = {int(at): int(cost) for at, cost in connection.execute(wanted)}
    return KeyCosts(*(sum(cost for at, cost in costs.items() if at >= start) for start in (day, week, month)))
