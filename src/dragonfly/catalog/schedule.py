"""When a price holds: dated versions, and windows of the day in the provider's own time zone.

All instants are nanoseconds since the Unix epoch, UTC. A border belongs to what begins there.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dragonfly.catalog.prices import PriceVersion

FOREVER_NS = 2**63 - 1
NS_PER_S = 1_000_000_000
MINUTES_PER_DAY = 24 * 60
_LAST_SECOND = 253_402_000_000
"""In the year 9999, with room for any zone: no clock of ours passes it, and datetime ends there."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Days off, with the span for which the official list is known; after it, the days listed may be too few."""

    name: str
    days_off: frozenset[date]
    complete_from: date
    complete_to: date
    source: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """Recurring hours, e.g. 09:00-12:00 and 14:00-18:00 on Monday to Friday in Asia/Shanghai."""

    name: str
    zone: ZoneInfo
    weekdays: frozenset[int]
    """0 is Monday."""
    hours: tuple[tuple[int, int], ...]
    """Minutes after local midnight, start inclusive, end exclusive; 1440 is the next midnight."""
    calendar: Calendar | None = None
    """Days on which the window does not open."""

    def spans(self, day: date) -> Iterator[tuple[int, int]]:
        """The window's (start, end) on a local day."""
        if day.weekday() not in self.weekdays or (self.calendar is not None and day in self.calendar.days_off):
            return
        for start, end in self.hours:
            yield self.instant(day, start), self.instant(day, end)

    def day_of(self, now_ns: int) -> date:
        """The local calendar day of an instant."""
        return datetime.fromtimestamp(min(now_ns // NS_PER_S, _LAST_SECOND), self.zone).date()

    def midnight_after(self, day: date) -> int:
        return self.instant(day, MINUTES_PER_DAY)

    def instant(self, day: date, minute: int) -> int:
        """The instant that many minutes after a local day began, by the clock on the wall."""
        days, rest = divmod(minute, MINUTES_PER_DAY)
        local = datetime.combine(day + timedelta(days=days), time(*divmod(rest, 60)), self.zone)
        return instant_ns(local)


@dataclass(frozen=True, slots=True)
class DatedPrice:
    """What one channel costs between two instants: a base price, and windows that override it (the first wins)."""

    valid_from_ns: int
    valid_to_ns: int
    base: PriceVersion
    windows: tuple[tuple[Window, PriceVersion], ...] = ()
    source: str = ""
    checked_on: date | None = None

    def at(self, now_ns: int) -> tuple[PriceVersion, int]:
        """The price at an instant inside the validity, and the instant until which it surely stays."""
        price: PriceVersion | None = None
        until_ns = self.valid_to_ns
        for window, window_price in self.windows:
            day = window.day_of(now_ns)
            until_ns = min(until_ns, window.midnight_after(day))
            for start_ns, end_ns in window.spans(day):
                if start_ns <= now_ns < end_ns and price is None:
                    price = window_price
                until_ns = min([until_ns, *(border for border in (start_ns, end_ns) if border > now_ns)])
        return price or self.base, until_ns


class Quote(NamedTuple):
    """The price at an instant; None where nothing is for sale. `from_ns` <= instant < `until_ns`."""

    price: PriceVersion | None
    dated: DatedPrice | None
    until_ns: int


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """Every known price of one channel, past and future, ascending and without overlap."""

    prices: tuple[DatedPrice, ...]

    def __post_init__(self) -> None:
        for dated in self.prices:
            assert dated.valid_from_ns < dated.valid_to_ns, "a price is valid for some time"
        for before, after in itertools.pairwise(self.prices):
            assert before.valid_to_ns <= after.valid_from_ns, "prices do not overlap"

    def at(self, now_ns: int) -> Quote:
        for dated in self.prices:
            if now_ns < dated.valid_from_ns:
                return Quote(None, None, dated.valid_from_ns)
            if now_ns < dated.valid_to_ns:
                price, until_ns = dated.at(now_ns)
                return Quote(price, dated, until_ns)
        return Quote(None, None, FOREVER_NS)


def instant_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch of an aware datetime, exactly."""
    assert moment.tzinfo is not None, "an instant has a zone"
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000
