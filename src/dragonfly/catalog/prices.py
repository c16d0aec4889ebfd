"""One price: what a request costs the customer and the operator, in integers, with one rounding.

A rate is an integer of nano-USD per million tokens. A cost is the exact sum over the token classes, multiplied by
the markup and rounded half up once. Nothing here knows time: `dragonfly.catalog.schedule` picks the version.
"""

import hashlib
import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from dragonfly.core.money import NUSD_MAX, NUSD_PER_USD, TOKENS_PER_PRICE_UNIT
from dragonfly.core.tokens import TokenUsage

TOKENS_MAX = 2**31 - 1
"""Most tokens of one class in one request; a power of two less one, so that one comparison checks them all."""
RATE_NUSD_MAX = 10_000 * NUSD_PER_USD
"""Dearest accepted rate: 10,000 USD per million tokens."""
MARKUP_MAX = Fraction(11)
"""Highest accepted factor on the list price: a markup of 1,000 %."""
TIERS_MAX = 16
TAG_DIGITS = 10

assert 2 * TOKENS_MAX * RATE_NUSD_MAX * MARKUP_MAX / TOKENS_PER_PRICE_UNIT < NUSD_MAX, "a cost fits into 64 bits"


class PriceError(ValueError):
    """A price that must not be sold at; the message says what is wrong with it."""


class Rates(NamedTuple):
    """Nano-USD per million tokens of each class; every class has its own, missing ones are filled in at load."""

    prompt: int
    completion: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    reasoning: int


class Tier(NamedTuple):
    """Rates from a prompt length on: they hold when the prompt has more than `above_prompt_tokens` tokens."""

    above_prompt_tokens: int
    rates: Rates


class Cost(NamedTuple):
    """What one request costs, in nano-USD. `customer_nusd` is rounded once; its two parts add up to it."""

    customer_nusd: int
    upstream_nusd: int
    prompt_nusd: int
    completion_nusd: int


class _Bound(NamedTuple):
    """The dearest rates that a prompt of more than `above_prompt_tokens` tokens, or any shorter one, may reach."""

    above_prompt_tokens: int
    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """An immutable price of one channel. `rates` are the provider's list price, `markup` the factor on top.

    `tiers` ascend. A tier holds for the whole request, or, when `is_marginal`, only for the prompt tokens above
    its border; output then goes by the highest tier that the prompt reached. A cached token never changes a tier.
    Raises PriceError for anything that could give a credit, an accidental zero or a cost beyond 64 bits.
    """

    id: str
    rates: Rates
    tiers: tuple[Tier, ...] = ()
    is_marginal: bool = False
    markup: Fraction = Fraction(1)
    is_free: bool = False
    """An explicit price of zero; a zero without this flag is an error."""
    _first_border: int = field(init=False, repr=False, compare=False)
    _factor: int = field(init=False, repr=False, compare=False)
    """Twice the markup's numerator: half-up division needs it doubled."""
    _divisor: int = field(init=False, repr=False, compare=False)
    """Tokens per price unit times the markup's denominator."""
    _bounds: tuple[_Bound, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_tiers(self.tiers)
        for rates in (self.rates, *(tier.rates for tier in self.tiers)):
            _check_rates(rates, is_free=self.is_free)
        if not isinstance(self.markup, Fraction) or not 1 <= self.markup <= MARKUP_MAX:
            raise PriceError("a markup is a factor between 1 and 11")
        first_border = self.tiers[0].above_prompt_tokens if self.tiers else TOKENS_MAX
        object.__setattr__(self, "_first_border", first_border)
        object.__setattr__(self, "_factor", 2 * self.markup.numerator)
        object.__setattr__(self, "_divisor", TOKENS_PER_PRICE_UNIT * self.markup.denominator)
        object.__setattr__(self, "_bounds", _bounds(self.rates, self.tiers))

    def cost(self, usage: TokenUsage) -> Cost:
        """The cost of a normalised usage; contradictory counts are the adapter's fault and assert."""
        prompt, completion, read, written, reasoning, _, written_1h = usage
        # The bitwise "or" of the counts is negative when one of them is, exceeds 2^n - 1 when one of them does,
        # and refuses floats, decimals and texts: one comparison for all of them.
        assert 0 <= prompt | completion | read | written | reasoning | written_1h <= TOKENS_MAX, "counts in bounds"
        assert read + written <= prompt, "cached tokens are part of the prompt"
        assert written_1h <= written, "tokens written for an hour are part of those written"
        assert reasoning <= completion, "reasoning is part of the completion"
        if prompt <= self._first_border:
            rates = self.rates
        elif self.is_marginal:
            return self._cost_marginal(usage)
        else:
            rates = self.rates_reached(prompt)
        in_rate, out_rate, read_rate, write_rate, write_1h_rate, reasoning_rate = rates
        prompt_exact = (
            (prompt - read - written) * in_rate
            + read * read_rate
            + (written - written_1h) * write_rate
            + written_1h * write_1h_rate
        )
        completion_exact = (completion - reasoning) * out_rate + reasoning * reasoning_rate
        return self._rounded(prompt_exact, completion_exact)

    def most_nusd(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Upper bound for the customer, in nano-USD: every usage of at most this many tokens costs at most this."""
        assert 0 <= prompt_tokens | completion_tokens <= TOKENS_MAX, "counts in bounds"
        bounds = self._bounds
        bound = bounds[0]
        if prompt_tokens > self._first_border:
            bound = next(b for b in reversed(bounds) if prompt_tokens > b.above_prompt_tokens)
        exact = prompt_tokens * bound.prompt + completion_tokens * bound.completion
        divisor = self._divisor
        return (exact * self._factor + divisor) // (2 * divisor)

    def customer_rate(self, rate: int) -> Fraction:
        """A list rate with the markup, exactly: nano-USD per million tokens."""
        return rate * self.markup

    def _rounded(self, prompt_exact: int, completion_exact: int) -> Cost:
        """One rounding of the whole; the completion's part is what the prompt's part leaves of it."""
        divisor = self._divisor
        exact = prompt_exact + completion_exact
        customer = (exact * self._factor + divisor) // (2 * divisor)
        prompt = (prompt_exact * self._factor + divisor) // (2 * divisor)
        upstream = (2 * exact + TOKENS_PER_PRICE_UNIT) // (2 * TOKENS_PER_PRICE_UNIT)
        return Cost(customer, upstream, prompt, customer - prompt)

    def rates_reached(self, prompt_tokens: int) -> Rates:
        """The list rates of the highest tier that a prompt of this length reaches."""
        reached = self.rates
        for tier in self.tiers:
            if prompt_tokens <= tier.above_prompt_tokens:
                break
            reached = tier.rates
        return reached

    def _cost_marginal(self, usage: TokenUsage) -> Cost:
        """Each prompt token at the rates of the band it lies in.

        A cache holds a prefix, so cached tokens lie first, then the written ones (those kept for an hour before
        the others, as providers demand it of the request), then the rest.
        """
        read_end = usage.cached_tokens
        written_1h_end = read_end + usage.cache_write_1h_tokens
        written_end = read_end + usage.cache_write_tokens
        prompt_exact = 0
        starts = (0, *(tier.above_prompt_tokens for tier in self.tiers))
        ends = (*starts[1:], TOKENS_MAX)
        bands = (self.rates, *(tier.rates for tier in self.tiers))
        for start, end, rates in zip(starts, ends, bands, strict=True):
            prompt_exact += _overlap(0, read_end, start, end) * rates.cache_read
            prompt_exact += _overlap(read_end, written_1h_end, start, end) * rates.cache_write_1h
            prompt_exact += _overlap(written_1h_end, written_end, start, end) * rates.cache_write
            prompt_exact += _overlap(written_end, usage.prompt_tokens, start, end) * rates.prompt
        top = self.rates_reached(usage.prompt_tokens)
        plain_tokens = usage.completion_tokens - usage.reasoning_tokens
        return self._rounded(prompt_exact, plain_tokens * top.completion + usage.reasoning_tokens * top.reasoning)


def price_tag(rates: Rates, tiers: tuple[Tier, ...], *, is_marginal: bool, markup: Fraction) -> str:
    """A few hexadecimal digits that differ when any number of the price does; part of a version's id."""
    numbers = repr((tuple(rates), [(t.above_prompt_tokens, *t.rates) for t in tiers], is_marginal, str(markup)))
    return hashlib.sha256(numbers.encode()).hexdigest()[:TAG_DIGITS]


def _overlap(start: int, end: int, band_start: int, band_end: int) -> int:
    return max(0, min(end, band_end) - max(start, band_start))


def _bounds(base: Rates, tiers: tuple[Tier, ...]) -> tuple[_Bound, ...]:
    """The running maxima: a tier that is cheaper than the one before must not lower the bound."""
    prompt = completion = 0
    bounds = []
    for above, rates in (Tier(0, base), *tiers):
        prompt = max(prompt, rates.prompt, rates.cache_read, rates.cache_write, rates.cache_write_1h)
        completion = max(completion, rates.completion, rates.reasoning)
        bounds.append(_Bound(above, prompt, completion))
    return tuple(bounds)


def _check_rates(rates: Rates, *, is_free: bool) -> None:
    if not isinstance(rates, Rates) or any(type(rate) is not int for rate in rates):
        raise PriceError("rates are integers of nano-USD per million tokens")
    if any(not 0 <= rate <= RATE_NUSD_MAX for rate in rates):
        raise PriceError("a rate lies between 0 and 10,000 USD per million tokens")
    if is_free and any(rates):
        raise PriceError("a free price has no rate above zero")
    if not is_free and not (rates.prompt and rates.completion and rates.reasoning):
        raise PriceError("a rate of zero needs the price to be marked as free")


def _check_tiers(tiers: tuple[Tier, ...]) -> None:
    if len(tiers) > TIERS_MAX:
        raise PriceError("a price has at most 16 length tiers")
    borders = [tier.above_prompt_tokens for tier in tiers]
    if any(type(border) is not int or not 0 < border < TOKENS_MAX for border in borders):
        raise PriceError("a tier begins above a positive number of prompt tokens")
    if any(low >= high for low, high in itertools.pairwise(borders)):
        raise PriceError("tiers ascend by their prompt length")
