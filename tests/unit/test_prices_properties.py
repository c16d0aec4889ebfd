"""What must hold for every price and every usage."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from dragonfly.catalog.prices import RATE_NUSD_MAX, TOKENS_MAX, PriceVersion, Rates, Tier
from dragonfly.core.money import NUSD_MAX, TOKENS_PER_PRICE_UNIT
from dragonfly.core.tokens import TokenUsage

paid = st.integers(1, RATE_NUSD_MAX)
any_rate = st.integers(0, RATE_NUSD_MAX)
rates = st.builds(
    Rates,
    prompt=paid,
    completion=paid,
    cache_read=any_rate,
    cache_write=any_rate,
    cache_write_1h=any_rate,
    reasoning=paid,
)
counts = st.one_of(st.integers(0, 200), st.integers(0, 2_000_000), st.integers(0, TOKENS_MAX))
markups = st.builds(Fraction, st.integers(100_000, 1_100_000), st.just(100_000))


@st.composite
def prices(draw: st.DrawFn) -> PriceVersion:
    borders = sorted(draw(st.sets(st.one_of(st.integers(1, 100), st.integers(1, TOKENS_MAX - 1)), max_size=4)))
    return PriceVersion(
        "drawn",
        draw(rates),
        tuple(Tier(border, draw(rates)) for border in borders),
        is_marginal=draw(st.booleans()),
        markup=draw(markups),
    )


@st.composite
def usages(draw: st.DrawFn, prompt_max: int = TOKENS_MAX, completion_max: int = TOKENS_MAX) -> TokenUsage:
    prompt = draw(st.integers(0, prompt_max))
    completion = draw(st.integers(0, completion_max))
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return TokenUsage(
        prompt,
        completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=draw(st.integers(0, completion)),
        cache_write_1h_tokens=draw(st.integers(0, written)),
    )


@given(prices(), counts, counts, st.data())
def test_no_usage_within_the_bounds_costs_more_than_the_upper_bound(
    price: PriceVersion, prompt_max: int, completion_max: int, data: st.DataObject
) -> None:
    usage = data.draw(usages(prompt_max, completion_max))
    assert price.cost(usage).customer_nusd <= price.most_nusd(prompt_max, completion_max)


@given(prices(), counts, counts, st.integers(0, 1_000), st.integers(0, 1_000))
def test_the_upper_bound_never_falls_when_there_is_more_to_count(
    price: PriceVersion, prompt: int, completion: int, more_prompt: int, more_completion: int
) -> None:
    larger = price.most_nusd(min(prompt + more_prompt, TOKENS_MAX), min(completion + more_completion, TOKENS_MAX))
    assert price.most_nusd(prompt, completion) <= larger


@given(prices(), usages())
def test_a_cost_is_never_negative_and_its_parts_add_up(price: PriceVersion, usage: TokenUsage) -> None:
    cost = price.cost(usage)
    assert cost.prompt_nusd >= 0
    assert cost.completion_nusd >= 0
    assert cost.prompt_nusd + cost.completion_nusd == cost.customer_nusd <= NUSD_MAX
    assert 0 <= cost.upstream_nusd <= cost.customer_nusd, "a markup never sells below the list price"


@given(prices(), usages())
def test_a_cost_is_the_exact_sum_rounded_once_half_up(price: PriceVersion, usage: TokenUsage) -> None:
    exact = exact_cost(price, usage)
    customer = exact * price.markup
    assert price.cost(usage).customer_nusd == (2 * customer + 1) // 2
    assert price.cost(usage).upstream_nusd == (2 * exact + 1) // 2


@given(prices(), usages(), st.integers(1, 1_000))
def test_more_of_what_is_not_cached_never_costs_less_within_a_tier(
    price: PriceVersion, usage: TokenUsage, more: int
) -> None:
    grown = usage._replace(completion_tokens=min(usage.completion_tokens + more, TOKENS_MAX))
    assert price.cost(usage).customer_nusd <= price.cost(grown).customer_nusd


@given(prices())
def test_a_price_that_is_not_free_never_rounds_real_work_to_a_credit(price: PriceVersion) -> None:
    assert price.cost(TokenUsage(TOKENS_MAX, TOKENS_MAX)).customer_nusd > 0


def exact_cost(price: PriceVersion, usage: TokenUsage) -> Fraction:
    """The slow, obvious way: every token by itself is too slow, every band by itself is not."""
    bands = [(0, price.rates), *((tier.above_prompt_tokens, tier.rates) for tier in price.tiers)]
    reached = [rates for above, rates in bands if above == 0 or usage.prompt_tokens > above][-1]
    total = (
        usage.completion_tokens - usage.reasoning_tokens
    ) * reached.completion + usage.reasoning_tokens * reached.reasoning
    written_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
    plain = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    classes = [
        ("cache_read", usage.cached_tokens),
        ("cache_write_1h", usage.cache_write_1h_tokens),
        ("cache_write", written_5m),
        ("prompt", plain),
    ]
    position = 0
    for name, count in classes:
        for index, (above, rates) in enumerate(bands):
            below = bands[index + 1][0] if index + 1 < len(bands) else TOKENS_MAX
            inside = max(0, min(position + count, below) - max(position, above))
            total += inside * getattr(rates if price.is_marginal else reached, name)
        position += count
    return Fraction(total, TOKENS_PER_PRICE_UNIT)
