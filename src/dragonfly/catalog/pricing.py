"""From the prices in the files to what is billed: currency, markup, validity, windows."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from dragonfly.catalog.prices import PriceVersion, Rates, Tier, price_tag
from dragonfly.catalog.schedule import FOREVER_NS, NS_PER_S, Calendar, DatedPrice, PriceSheet, Window
from dragonfly.catalog.schema import WEEKDAYS, CalendarTable, PriceTable, RateTable, TierTable, WindowTable

NOTHING_FOR_SALE = PriceSheet(())


@dataclass(frozen=True, slots=True)
class Terms:
    """What turns a list price into a selling price."""

    markup: Fraction
    usd_per_unit: Fraction
    """What one unit of the price's currency costs in USD; 1 for USD."""
    calendars: Mapping[str, Calendar]


def price_sheet(channel_id: str, tables: tuple[PriceTable, ...], terms: Terms) -> PriceSheet:
    """The versions of one channel, ascending; one without an end ends where the next begins."""
    starts = [table.valid_from or 0 for table in tables]
    ends = [*starts[1:], FOREVER_NS]
    return PriceSheet(
        tuple(
            _dated(channel_id, table, start, min(table.valid_to or FOREVER_NS, end), terms)
            for table, start, end in zip(tables, starts, ends, strict=True)
        )
    )


def calendars_of(tables: Iterable[CalendarTable]) -> dict[str, Calendar]:
    return {
        table.name: Calendar(
            name=table.name,
            days_off=frozenset(table.days_off),
            complete_from=table.complete_from,
            complete_to=table.complete_to,
            source=table.source,
        )
        for table in tables
    }


def calendar_names(tables: Iterable[PriceTable]) -> set[str]:
    """The calendars that these prices ask for."""
    windows = (window for table in tables for window in table.windows)
    return {window.when.except_holidays for window in windows if window.when.except_holidays is not None}


def _dated(channel_id: str, table: PriceTable, start_ns: int, end_ns: int, terms: Terms) -> DatedPrice:
    moment = datetime.fromtimestamp(start_ns // NS_PER_S, UTC)
    label = f"{channel_id}:{moment:%Y%m%dT%H%MZ}" if start_ns else f"{channel_id}:first"
    return DatedPrice(
        valid_from_ns=start_ns,
        valid_to_ns=end_ns,
        base=_version(label, "base", table, table, table.tiers, terms),
        windows=tuple(
            (_window(window, terms), _version(label, window.name, table, window, window.tiers, terms))
            for window in table.windows
        ),
        source=table.source,
        checked_on=table.checked_on,
    )


def _version(
    label: str, name: str, table: PriceTable, base: RateTable, tiers: tuple[TierTable, ...], terms: Terms
) -> PriceVersion:
    rates = _rates(base, terms)
    priced = tuple(Tier(tier.above_prompt_tokens, _rates(tier, terms)) for tier in tiers)
    is_marginal = table.tier_kind == "marginal" and bool(priced)
    tag = price_tag(rates, priced, is_marginal=is_marginal, markup=terms.markup)
    return PriceVersion(
        id=f"{label}:{name}:{tag}",
        rates=rates,
        tiers=priced,
        is_marginal=is_marginal,
        markup=terms.markup,
        is_free=table.free,
    )


def _rates(table: RateTable, terms: Terms) -> Rates:
    """Converted upwards to the next nano-dollar per million tokens: never below what the provider charges."""
    return Rates(*(math.ceil(amount * terms.usd_per_unit) for amount in table.amounts()))


def _window(table: WindowTable, terms: Terms) -> Window:
    name = table.when.except_holidays
    return Window(
        name=table.name,
        zone=table.when.zone,
        weekdays=frozenset(WEEKDAYS.index(day) for day in table.when.weekdays),
        hours=table.when.hours,
        calendar=None if name is None else terms.calendars[name],
    )
