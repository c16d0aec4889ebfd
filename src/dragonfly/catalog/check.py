"""Compares the built-in prices with the genai-prices package and reports drift. Nothing is fetched or changed.

A difference is news for the operator, not a correction: either side may be late. The other package knows no
weekdays, no holidays and USD only, so both are asked for every hour of a week, and for the hours after each
scheduled change.
"""

import enum
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, Protocol

from dragonfly.catalog.builtin import Builtin
from dragonfly.catalog.prices import PriceVersion
from dragonfly.catalog.pricing import Terms, calendar_names, calendars_of, price_sheet
from dragonfly.catalog.quotes import decimal_text, moment_text
from dragonfly.catalog.schedule import NS_PER_S, PriceSheet
from dragonfly.catalog.schema import ModelTable
from dragonfly.core.errors import DragonflyError
from dragonfly.core.money import NUSD_PER_USD

HOURS_SAMPLED = 7 * 24
CHECKED_DAYS_MAX = 60
CALENDAR_NOTICE_DAYS = 60
NS_PER_HOUR = 3_600 * NS_PER_S

GENAI_PROVIDERS = {
    "deepseek": "deepseek",
    "moonshotai": "moonshotai",
    "z-ai": "zai",
    "minimax": "minimax",
    "openai": "openai",
    "anthropic": "anthropic",
    "google-ai-studio": "google",
    "xai": "x-ai",
    "mistral": "mistral",
    "groq": "groq",
    "together": "together",
}
"""Our provider slugs -> theirs. What is missing here is not covered there."""

GENAI_KEYS = {
    "prompt": "input_mtok",
    "completion": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}

FALLBACKS = {"cache_read": "prompt", "cache_write": "prompt", "cache_write_1h": "cache_write"}
"""The class whose rate holds where one is not priced apart."""


class PricesMissing(DragonflyError):
    """The optional package is not installed."""

    code = "prices_missing"

    def __init__(self) -> None:
        super().__init__(
            "The comparison needs the package genai-prices. Install it with: pip install 'dragonfly-gateway[prices]'"
        )


class Finding(enum.Enum):
    """What a line of the report says."""

    DIFFERENT = "different"
    """Both sides have a price and they disagree."""
    UNKNOWN_THERE = "unknown_there"
    """We list a model that the other side does not."""
    UNKNOWN_HERE = "unknown_here"
    """The other side lists a model that we do not; most are of no interest."""
    NOT_COVERED = "not_covered"
    """The other side does not know the provider at all."""
    STALE = "stale"
    """Nobody has looked at this price for long."""
    CALENDAR_ENDS = "calendar_ends"
    """A holiday calendar that prices depend on is known for a short time only."""


class Drift(NamedTuple):
    """One line. Prices are decimal texts of USD per million tokens."""

    finding: Finding
    provider: str
    model: str = ""
    """The provider's own id."""
    rate_class: str = ""
    above_prompt_tokens: int = 0
    ours: str = ""
    theirs: str = ""
    when: str = ""
    """"always", or how many of the sampled hours and the first of them."""


class DriftReport(NamedTuple):
    """The whole comparison. `is_clean`: no price differs and none is stale."""

    source: str
    compared: int
    drifts: tuple[Drift, ...]

    @property
    def is_clean(self) -> bool:
        news = (Finding.DIFFERENT, Finding.STALE, Finding.CALENDAR_ENDS)
        return not any(drift.finding in news for drift in self.drifts)


class TheirRate(NamedTuple):
    """A rate of the other side: USD per million tokens, and (prompt tokens above which, rate) per tier."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()

    def at(self, prompt_tokens: int) -> Decimal:
        reached = [rate for start, rate in self.tiers if prompt_tokens > start]
        return reached[-1] if reached else self.base


class PriceBook(Protocol):
    """Somebody else's price list."""

    source: str

    def covers(self, provider: str) -> bool: ...

    def models(self, provider: str) -> tuple[str, ...]:
        """Their ids of a provider that is covered."""
        ...

    def find(self, provider: str, model: str) -> str | None:
        """Their id of the model that answers to our id."""
        ...

    def rates(self, provider: str, model: str, moment: datetime) -> Mapping[str, TheirRate]:
        """Rates by our class names, of their model id; classes that they do not price are missing."""
        ...


def check_catalog(
    known: Builtin, book: PriceBook, now_ns: int, checked_days_max: int = CHECKED_DAYS_MAX
) -> DriftReport:
    """Compares every built-in price in USD. Operators' own tables are not compared: they are their own source."""
    sheets = {(slug, model.upstream_model): _usd_sheet(known, model) for slug, model in known.models}
    drifts: list[Drift] = []
    compared = 0
    found: set[tuple[str, str]] = set()
    for slug, model in known.models:
        theirs = book.find(slug, model.upstream_model) if book.covers(slug) else None
        if theirs is None:
            finding = Finding.UNKNOWN_THERE if book.covers(slug) else Finding.NOT_COVERED
            drifts.append(Drift(finding, slug, model.upstream_model))
            continue
        compared += 1
        found.add((slug, theirs))
        drifts += _differences(slug, model, theirs, sheets[slug, model.upstream_model], book, now_ns)
    for slug in known.providers:
        if book.covers(slug):
            drifts += [
                Drift(Finding.UNKNOWN_HERE, slug, name) for name in book.models(slug) if (slug, name) not in found
            ]
    drifts += _stale(known, now_ns, checked_days_max)
    drifts += _calendars_ending(known, now_ns)
    return DriftReport(book.source, compared, tuple(drifts))


class GenaiPrices:
    """The bundled snapshot of the genai-prices package. Raises PricesMissing when it is not installed."""

    def __init__(self, package: str = "genai_prices") -> None:
        try:
            # Not at the top of the file: the package is optional, and loading it takes a third of a second.
            snapshot = importlib.import_module(f"{package}.data_snapshot").get_snapshot()
        except ImportError:
            raise PricesMissing from None
        self.source = f"genai-prices {importlib.metadata.version('genai-prices')}"
        providers = {provider.id: provider for provider in snapshot.providers}
        self._providers = {ours: providers[theirs] for ours, theirs in GENAI_PROVIDERS.items() if theirs in providers}

    def covers(self, provider: str) -> bool:
        return provider in self._providers

    def models(self, provider: str) -> tuple[str, ...]:
        return tuple(model.id for model in self._providers[provider].models if not model.deprecated)

    def find(self, provider: str, model: str) -> str | None:
        info = self._providers[provider].find_model(model)
        return None if info is None else str(info.id)

    def rates(self, provider: str, model: str, moment: datetime) -> Mapping[str, TheirRate]:
        info = next(info for info in self._providers[provider].models if info.id == model)
        prices = info.get_prices(moment)
        found = {}
        for name, key in GENAI_KEYS.items():
            price = getattr(prices, key)
            if price is None:
                continue
            tiers = tuple((tier.start, tier.price) for tier in getattr(price, "tiers", ()))
            found[name] = TheirRate(getattr(price, "base", price), tiers)
        return found


def _usd_sheet(known: Builtin, model: ModelTable) -> PriceSheet:
    tables = tuple(table for table in model.prices if table.currency == "USD")
    terms = Terms(Fraction(1), Fraction(1), calendars_of(known.calendars.values()))
    return price_sheet(model.upstream_model, tables, terms)


def _differences(
    slug: str, model: ModelTable, theirs: str, sheet: PriceSheet, book: PriceBook, now_ns: int
) -> Iterator[Drift]:
    """Each way in which a price differs, once, with how often."""
    instants = _instants(sheet, now_ns)
    seen: dict[tuple[str, int, str, str], list[int]] = {}
    for instant_ns in instants:
        price = sheet.at(instant_ns).price
        if price is None:
            continue
        rates = book.rates(slug, theirs, datetime.fromtimestamp(instant_ns // NS_PER_S, UTC))
        for difference in _compare(price, rates, has_output=model.kind == "chat"):
            seen.setdefault(difference, []).append(instant_ns)
    for (rate_class, above, our_text, their_text), hours in seen.items():
        when = "always"
        if len(hours) < len(instants):
            when = f"{len(hours)} of {len(instants)} sampled hours, first {moment_text(hours[0])}"
        yield Drift(Finding.DIFFERENT, slug, model.upstream_model, rate_class, above, our_text, their_text, when)


def _instants(sheet: PriceSheet, now_ns: int) -> Sequence[int]:
    """Every hour of the coming week, and the first hour of each later price."""
    hours = [now_ns + number * NS_PER_HOUR for number in range(HOURS_SAMPLED)]
    later = [dated.valid_from_ns + NS_PER_HOUR for dated in sheet.prices if dated.valid_from_ns > hours[-1]]
    return [*hours, *later]


def _compare(
    price: PriceVersion, theirs: Mapping[str, TheirRate], *, has_output: bool
) -> Iterator[tuple[str, int, str, str]]:
    """(class, prompt length above which, ours, theirs) of everything that differs."""
    borders = {tier.above_prompt_tokens for tier in price.tiers}
    borders |= {start for rate in theirs.values() for start, _ in rate.tiers}
    for above in sorted({0, *borders}):
        ours = price.rates_reached(above + 1)
        for name in GENAI_KEYS:
            if name == "completion" and not has_output:
                continue
            fallback = FALLBACKS.get(name)
            if name not in theirs and fallback and getattr(ours, name) == getattr(ours, fallback):
                continue  # neither side prices this class apart: a difference shows in the class it falls back to
            our_rate = Decimal(getattr(ours, name)) / NUSD_PER_USD
            their_rate = _their_rate(name, theirs, above + 1)
            if their_rate is None or our_rate != their_rate:
                shown = "none" if their_rate is None else _text(their_rate)
                yield name, above, _text(our_rate), shown


def _their_rate(name: str, theirs: Mapping[str, TheirRate], prompt_tokens: int) -> Decimal | None:
    """What they would bill: a class that they do not price falls back as ours do."""
    current: str | None = name
    while current is not None:
        if current in theirs:
            return theirs[current].at(prompt_tokens)
        current = FALLBACKS.get(current)
    return None


def _stale(known: Builtin, now_ns: int, days_max: int) -> Iterator[Drift]:
    today = _day(now_ns)
    for slug, model in known.models:
        for table in model.prices:
            is_over = table.valid_to is not None and table.valid_to <= now_ns
            if is_over or table.checked_on is None or today - table.checked_on <= timedelta(days=days_max):
                continue
            when = f"checked on {table.checked_on.isoformat()}"
            yield Drift(Finding.STALE, slug, model.upstream_model, table.currency, when=when)


def _calendars_ending(known: Builtin, now_ns: int) -> Iterator[Drift]:
    used = {name for _, model in known.models for name in calendar_names(model.prices)}
    for name in sorted(used):
        end = known.calendars[name].complete_to
        if end - _day(now_ns) <= timedelta(days=CALENDAR_NOTICE_DAYS):
            yield Drift(Finding.CALENDAR_ENDS, "", name, when=f"complete to {end.isoformat()}")


def _day(now_ns: int) -> date:
    return datetime.fromtimestamp(now_ns // NS_PER_S, UTC).date()


def _text(rate: Decimal) -> str:
    return decimal_text(Fraction(rate))
