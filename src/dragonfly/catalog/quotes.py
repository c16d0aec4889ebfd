"""Prices in the form in which they are shown: decimal strings of USD per token, with every exception beside them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact
from fractions import Fraction

from dragonfly.catalog.prices import PriceVersion, Rates
from dragonfly.catalog.schedule import FOREVER_NS, NS_PER_S, DatedPrice, Window
from dragonfly.catalog.schema import WEEKDAYS
from dragonfly.core.money import NUSD_PER_USD, TOKENS_PER_PRICE_UNIT

_EXACT = Context(prec=80, traps=[Inexact])
_SHOWN_AS = {
    "prompt": "prompt",
    "completion": "completion",
    "cache_read": "input_cache_read",
    "cache_write": "input_cache_write",
    "cache_write_1h": "input_cache_write_1h",
    "reasoning": "internal_reasoning",
}
"""Our classes -> the names of the model list."""


def per_token(rate: int, markup: Fraction) -> str:
    """USD per token, exactly, without exponent: 150_000_000 nano-USD per million tokens -> "0.00000015"."""
    price = rate * markup / (TOKENS_PER_PRICE_UNIT * NUSD_PER_USD)
    return decimal_text(price)


def decimal_text(value: Fraction) -> str:
    """A fraction that ends, as its digits. Raises decimal.Inexact for one that does not."""
    exact = _EXACT.divide(Decimal(value.numerator), Decimal(value.denominator))
    text = format(exact, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def rates_shown(rates: Rates, markup: Fraction) -> dict[str, str]:
    """Each class of a price, as customers pay it."""
    amounts = rates._asdict()
    return {shown: per_token(amounts[name], markup) for name, shown in _SHOWN_AS.items()}


def price_shown(price: PriceVersion) -> dict[str, object]:
    """One price with its length tiers, without windows."""
    shown: dict[str, object] = {**rates_shown(price.rates, price.markup), "request": "0"}
    tiers = list(_tiers(price))
    if tiers:
        shown["overrides"] = tiers
    return shown


def dated_shown(dated: DatedPrice, now_ns: int) -> dict[str, object]:
    """The base price with everything that overrides it; a later override wins, as readers of the list expect."""
    shown: dict[str, object] = {**rates_shown(dated.base.rates, dated.base.markup), "request": "0"}
    overrides: list[dict[str, object]] = list(_tiers(dated.base))
    # The first window wins in a schedule and the last override wins in a list, hence the reversal.
    for window, price in reversed(dated.windows):
        for hours in _hours(window, now_ns):
            overrides.append({**hours, **rates_shown(price.rates, price.markup)})
            overrides += [{**hours, **tier} for tier in _tiers(price)]
    if overrides:
        shown["overrides"] = overrides
    return shown


def version_shown(dated: DatedPrice, now_ns: int) -> dict[str, object]:
    """One entry of the price history, past or scheduled."""
    return {
        "id": dated.base.id,
        "valid_from": moment_text(dated.valid_from_ns) if dated.valid_from_ns else None,
        "valid_to": moment_text(dated.valid_to_ns) if dated.valid_to_ns < FOREVER_NS else None,
        "source": dated.source or None,
        "checked_on": dated.checked_on.isoformat() if dated.checked_on else None,
        "pricing": dated_shown(dated, now_ns),
    }


def moment_text(instant_ns: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(instant_ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tiers(price: PriceVersion) -> Iterator[dict[str, object]]:
    for tier in price.tiers:
        shown: dict[str, object] = {"min_prompt_tokens": tier.above_prompt_tokens + 1}
        if price.is_marginal:
            shown["applies_to"] = "tokens_above"
        yield {**shown, **rates_shown(tier.rates, price.markup)}


def _hours(window: Window, now_ns: int) -> Iterator[dict[str, object]]:
    """Each span of a window in UTC, as it stands on the present day, and in the zone that defines it."""
    day = window.day_of(now_ns)
    for start, end in window.hours:
        yield {
            "name": window.name,
            "utc_start": _utc_clock(window, now_ns, start),
            "utc_end": _utc_clock(window, now_ns, end),
            "zone": window.zone.key,
            "local_start": _clock(start),
            "local_end": _clock(end),
            "weekdays": [WEEKDAYS[number] for number in sorted(window.weekdays)],
            "except_holidays": window.calendar.name if window.calendar else None,
            "open_today": any(True for _ in window.spans(day)),
        }


def _utc_clock(window: Window, now_ns: int, minute: int) -> str:
    instant = window.instant(window.day_of(now_ns), minute)
    return datetime.fromtimestamp(instant // NS_PER_S, UTC).strftime("%H:%M")


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
