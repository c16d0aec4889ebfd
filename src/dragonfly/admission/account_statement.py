"""An account's statement for a month: what it had, what came and went, what requests cost, what is left.

Events count in the month in which they were booked, requests on the UTC day on which they began. So the closing
balance of the running month is the wallet's balance, and each closing balance is the next opening balance. Of days
that retention has closed (90 days), the month's total is left.
"""

import re
from datetime import date
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.ledger.queries import CREDITS_PAGE_MAX, Credit, credited_before, credits_of_account
from dragonfly.usage.queries import (
    EPOCH,
    NS_PER_DAY,
    TOTALS_PAGE_MAX,
    DayTotal,
    cost_in_closed_months,
    cost_in_days,
    day_of,
    day_totals,
    month_of,
)

EVENTS_MAX = 20_000
USAGE_LINES_MAX = 50_000
MONTHS_A_YEAR = 12
_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")


class MonthInvalid(DragonflyError):
    """Not a month, or one that has not begun."""

    code = "month_invalid"
    status = 404

    def __init__(self) -> None:
        super().__init__("A month is written like 2026-11 and has begun.")


class StatementTooLong(DragonflyError):
    """More lines than a statement may have."""

    code = "statement_too_long"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            f"A statement has at most {EVENTS_MAX} events and {USAGE_LINES_MAX} lines of usage. Read the same month"
            " from /api/wallet/transactions and /api/usage/totals, which come in pages."
        )


class Month(NamedTuple):
    """A calendar month in UTC; days count from the epoch."""

    number: int
    """As 202611."""
    first_day: int
    last_day: int

    @property
    def text(self) -> str:
        return f"{self.number // 100}-{self.number % 100:02d}"


class Statement(NamedTuple):
    """Amounts in nano-USD. `closing = opening + events - usage - closed usage`, exactly."""

    account_id: AccountId
    month: Month
    opening_nusd: int
    events: tuple[Credit, ...]
    """Top-ups, grants, refunds, disputes, expiries; oldest first."""
    usage: tuple[DayTotal, ...]
    """By day, key, model and provider."""
    closed_usage_nusd: int
    """Usage of days of which only the month's total is left."""
    closing_nusd: int


def parse_month(text: str, *, now_ns: int) -> Month:
    """The month that `text` names. MonthInvalid."""
    found = _MONTH.fullmatch(text)
    if found is None:
        raise MonthInvalid
    month = _month(int(found[1]), int(found[2]))
    if month.first_day * NS_PER_DAY > now_ns:
        raise MonthInvalid
    return month


def months_until(now_ns: int, *, since_ns: int, before: int, limit: int) -> list[Month]:
    """The months from that of `since_ns` to that of `now_ns` whose number is below `before`, newest first."""
    first, last = month_of(day_of(since_ns)), min(before - 1, month_of(day_of(now_ns)))
    numbers = (number for number in range(last, first - 1, -1) if 1 <= number % 100 <= MONTHS_A_YEAR)
    return [_month(*divmod(number, 100)) for number in islice(numbers, limit)]


def _month(year: int, number: int) -> Month:
    following = date(year + number // MONTHS_A_YEAR, number % MONTHS_A_YEAR + 1, 1)
    return Month(year * 100 + number, (date(year, number, 1) - EPOCH).days, (following - EPOCH).days - 1)


def statement_of(connection: Connection, account_id: AccountId, month: Month) -> Statement:
    """Reads the statement, in a snapshot that the caller opened. StatementTooLong."""
    begin_ns, end_ns = month.first_day * NS_PER_DAY, (month.last_day + 1) * NS_PER_DAY
    spent_before = cost_in_closed_months(connection, account_id, first=0, last=month.number - 1)
    spent_before += cost_in_days(connection, account_id, first_day=0, last_day=month.first_day - 1)
    opening = credited_before(connection, account_id, before_ns=begin_ns) - spent_before
    events = _events(connection, account_id, begin_ns, end_ns)
    usage = _usage(connection, account_id, month)
    closed = cost_in_closed_months(connection, account_id, first=month.number, last=month.number)
    change = sum(event.amount_nusd for event in events) - sum(total.cost_nusd for total in usage) - closed
    return Statement(account_id, month, opening, events, usage, closed, opening + change)


def _events(connection: Connection, account_id: AccountId, begin_ns: int, end_ns: int) -> tuple[Credit, ...]:
    found: list[Credit] = []
    before = (end_ns, "")
    while True:
        page = credits_of_account(connection, account_id, before=before, limit=CREDITS_PAGE_MAX)
        found += [event for event in page if event.created_at_ns >= begin_ns]
        if len(found) > EVENTS_MAX:
            raise StatementTooLong
        if len(page) < CREDITS_PAGE_MAX or page[-1].created_at_ns < begin_ns:
            return tuple(reversed(found))
        before = (page[-1].created_at_ns, page[-1].group_id)


def _usage(connection: Connection, account_id: AccountId, month: Month) -> tuple[DayTotal, ...]:
    found: list[DayTotal] = []
    for day in range(month.first_day, month.last_day + 1):
        page = day_totals(connection, account_id, first_day=day, last_day=day, limit=TOTALS_PAGE_MAX)
        found += page
        if len(page) == TOTALS_PAGE_MAX or len(found) > USAGE_LINES_MAX:
            raise StatementTooLong
    return tuple(found)
