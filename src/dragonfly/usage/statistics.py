"""Anonymous statistics: closed days are read from usage rows once, and what may be told of them is kept."""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, and_, case, func, insert, or_, select, tuple_

from dragonfly.core.outcomes import Outcome
from dragonfly.infra.database import insert_missing
from dragonfly.usage.queries import NS_PER_DAY, day_of
from dragonfly.usage.rules import WAITS_MS, Figures, Part, figures_of
from dragonfly.usage.tables import statistics, statistics_days, usage

CLOSES_AFTER_NS = 6 * 3_600 * 1_000_000_000
"""After midnight: what began before it has ended by then."""
DAYS_BACK_MAX = 30
"""A new installation, or one that stood still, catches up with no more."""
CELLS_PAGE_MAX = 1_000
FAILURES = (Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_BROKE, Outcome.UPSTREAM_TIMEOUT, Outcome.CRASHED)
"""Endings that are nobody's wish and not the customer's doing."""
_MS_PER_DAY = NS_PER_DAY // 1_000_000
_NOT_WAITED = -1
_ROWS_AT_ONCE = 1_000


class Cell(NamedTuple):
    """One model at one provider on one day, counted from the epoch."""

    day: int
    model: str
    provider: str
    figures: Figures


def due_days(connection: Connection, *, now_ns: int) -> range:
    """Days that are over and have not been counted."""
    latest = connection.execute(select(func.max(statistics_days.c.day))).scalar()
    end = day_of(now_ns - CLOSES_AFTER_NS)
    first = end - DAYS_BACK_MAX
    return range(first if latest is None else max(first, int(latest) + 1), end)


def count_day(connection: Connection, day: int) -> list[Cell]:
    """What may be told of the requests that began on a day; reads that day's rows."""
    cells = []
    for (model, provider), parts in _parts(connection, day):
        figures = figures_of(parts)
        if figures is not None:
            cells.append(Cell(day, model, provider, figures))
    return cells


def keep_day(connection: Connection, day: int, cells: list[Cell], *, now_ns: int) -> bool:
    """Keeps what was counted; False when somebody else has done it already, and then theirs stays."""
    if not insert_missing(connection, statistics_days, {"day": day, "counted_at_ns": now_ns}):
        return False
    rows = [{**cell.figures._asdict(), "day": day, "model": cell.model, "provider": cell.provider} for cell in cells]
    if rows:
        connection.execute(insert(statistics), rows)
    return True


def cells_page(
    connection: Connection, *, since_day: int = 0, after: tuple[int, str, str] | None = None, limit: int = 100
) -> list[Cell]:
    """What is told, newest day first, then by model and provider; `after` is where the last cell seen stands."""
    place = (statistics.c.model, statistics.c.provider)
    wanted = select(statistics.c.day, *place, *(statistics.c[name] for name in Figures._fields))
    wanted = wanted.where(statistics.c.day >= since_day)
    if after is not None:
        day, *seen = after
        later = and_(statistics.c.day == day, tuple_(*place) > tuple_(*seen))
        wanted = wanted.where(or_(statistics.c.day < day, later))
    wanted = wanted.order_by(statistics.c.day.desc(), *place).limit(min(limit, CELLS_PAGE_MAX + 1))
    return [Cell(row[0], row[1], row[2], Figures(*row[3:])) for row in connection.execute(wanted)]


def _parts(connection: Connection, day: int) -> Iterator[tuple[tuple[str, str], list[Part]]]:
    """The parts of all accounts in each cell of a day, one cell in memory at a time."""
    bounds = [(usage.c.ttft_us <= wait * 1_000, place) for place, wait in enumerate(WAITS_MS)]
    whole = and_(usage.c.outcome == Outcome.COMPLETE.value, usage.c.ttft_us > 0)
    wait = case((~whole, _NOT_WAITED), *bounds, else_=len(WAITS_MS) - 1).label("wait")
    failed = case((usage.c.outcome.in_([outcome.value for outcome in FAILURES]), 1), else_=0)
    order = (usage.c.model, usage.c.provider, usage.c.account_id)
    sums = (func.count(), *(func.sum(one) for one in (usage.c.prompt_tokens, usage.c.completion_tokens, failed)))
    # A request's id begins with its time: a day is a range of the primary key.
    first, end = (f"gen-{at * _MS_PER_DAY:012x}" for at in (day, day + 1))
    wanted = select(*order, wait, *sums).where(usage.c.request_id >= first, usage.c.request_id < end)
    wanted = wanted.group_by(*order, "wait").order_by(*order)
    rows = connection.execute(wanted, execution_options={"yield_per": _ROWS_AT_ONCE})
    for (model, provider), cell in groupby(rows, key=lambda row: (str(row[0]), str(row[1]))):
        yield (model, provider), [_part(list(own)) for _, own in groupby(cell, key=lambda row: row[2])]


def _part(rows: list[tuple[int, ...]]) -> Part:
    """One account's part out of its rows: where they wait, then requests, tokens and failures."""
    waits = [0] * len(WAITS_MS)
    for row in rows:
        if row[3] != _NOT_WAITED:
            waits[row[3]] += row[4]
    requests, prompt_tokens, completion_tokens, failures = (sum(int(row[at]) for row in rows) for at in range(4, 8))
    return Part(requests, prompt_tokens, completion_tokens, failures, tuple(waits))
