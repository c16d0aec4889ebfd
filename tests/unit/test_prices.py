"""What a request costs, by hand, in every form that a price can take."""

from fractions import Fraction

import pytest

from dragonfly.catalog.prices import (
    RATE_NUSD_MAX,
    TOKENS_MAX,
    Cost,
    PriceError,
    PriceVersion,
    Rates,
    Tier,
    price_tag,
)
from dragonfly.core.money import NUSD_MAX, NUSD_PER_USD
from dragonfly.core.tokens import TokenUsage

USD = NUSD_PER_USD
PLAIN = Rates(
    prompt=150_000_000,
    completion=600_000_000,
    cache_read=3_000_000,
    cache_write=150_000_000,
    cache_write_1h=150_000_000,
    reasoning=600_000_000,
)
"""0.15 / 0.003 / 0.60 USD per million tokens."""
EVERY_CLASS = Rates(
    prompt=3 * USD,
    completion=15 * USD,
    cache_read=USD // 10,
    cache_write=4 * USD,
    cache_write_1h=6 * USD,
    reasoning=20 * USD,
)
SMALL = Rates(USD, 2 * USD, USD // 2, USD, USD, 2 * USD)
LARGE = Rates(4 * USD, 8 * USD, 2 * USD, 4 * USD, 4 * USD, 8 * USD)
WHOLE = (Tier(1_000, LARGE),)


def price(
    rates: Rates = PLAIN, tiers: tuple[Tier, ...] = (), *, is_marginal: bool = False, markup: Fraction = Fraction(1)
) -> PriceVersion:
    return PriceVersion("test", rates, tiers, is_marginal=is_marginal, markup=markup)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # 1,000 x 0.15 USD/M = 150,000 nUSD; 200 x 0.60 USD/M = 120,000 nUSD.
        (TokenUsage(1_000, 200), Cost(270_000, 270_000, 150_000, 120_000)),
        # 400 at 0.15 = 60,000; 600 cached at 0.003 = 1,800; 200 at 0.60 = 120,000.
        (TokenUsage(1_000, 200, cached_tokens=600), Cost(181_800, 181_800, 61_800, 120_000)),
        # All cached: 1,000 x 0.003 USD/M = 3,000.
        (TokenUsage(1_000, 0, cached_tokens=1_000), Cost(3_000, 3_000, 3_000, 0)),
        # Reasoning has no price of its own here: it is output.
        (TokenUsage(0, 200, reasoning_tokens=150), Cost(120_000, 120_000, 0, 120_000)),
        (TokenUsage(0, 0), Cost(0, 0, 0, 0)),
        # One token of each: 150 + 600.
        (TokenUsage(1, 1), Cost(750, 750, 150, 600)),
        # 0.003 USD/M is 3 nUSD per cached token.
        (TokenUsage(1, 0, cached_tokens=1), Cost(3, 3, 3, 0)),
    ],
)
def test_a_plain_price_charges_each_class_at_its_rate(usage: TokenUsage, expected: Cost) -> None:
    assert price().cost(usage) == expected


@pytest.mark.parametrize(
    ("usage", "prompt_nusd", "completion_nusd"),
    [
        # 500 plain x 3,000 + 200 read x 100 + 300 written x 4,000 = 1,500,000 + 20,000 + 1,200,000.
        (TokenUsage(1_000, 10, cached_tokens=200, cache_write_tokens=300), 2_720_000, 150_000),
        # The same, 100 of the written ones for an hour: 100 x 6,000 + 200 x 4,000 = 1,400,000.
        (
            TokenUsage(1_000, 10, cached_tokens=200, cache_write_tokens=300, cache_write_1h_tokens=100),
            2_920_000,
            150_000,
        ),
        # 6 plain x 15,000 + 4 reasoning x 20,000.
        (TokenUsage(0, 10, reasoning_tokens=4), 0, 170_000),
    ],
)
def test_cache_writes_and_reasoning_have_rates_of_their_own(
    usage: TokenUsage, prompt_nusd: int, completion_nusd: int
) -> None:
    total = prompt_nusd + completion_nusd
    assert price(EVERY_CLASS).cost(usage) == Cost(total, total, prompt_nusd, completion_nusd)


@pytest.mark.parametrize(
    ("usage", "expected_nusd"),
    [
        # Up to and including the border the small rates hold: 1,000 x 1,000 + 10 x 2,000.
        (TokenUsage(1_000, 10), 1_020_000),
        # One token above, the whole request costs the large ones: 1,001 x 4,000 + 10 x 8,000.
        (TokenUsage(1_001, 10), 4_084_000),
        # The prompt's full length decides, also when nearly all of it is cached: 1,000 x 2,000 + 1 x 4,000.
        (TokenUsage(1_001, 0, cached_tokens=1_000), 2_004_000),
        # Output alone never reaches a tier.
        (TokenUsage(0, 5_000), 10_000_000),
    ],
)
def test_a_tier_holds_for_the_whole_request_above_its_border(usage: TokenUsage, expected_nusd: int) -> None:
    assert price(SMALL, WHOLE).cost(usage).customer_nusd == expected_nusd


@pytest.mark.parametrize(
    ("usage", "expected_nusd"),
    [
        (TokenUsage(1_000, 10), 1_020_000),
        # Only the token above the border is dearer, and output goes by the tier reached:
        # 1,000 x 1,000 + 1 x 4,000 + 10 x 8,000.
        (TokenUsage(1_001, 10), 1_084_000),
        # 600 cached lie at the front: 600 x 500 + 400 x 1,000 + 200 x 4,000.
        (TokenUsage(1_200, 0, cached_tokens=600), 1_500_000),
        # 1,100 cached reach beyond the border: 1,000 x 500 + 100 x 2,000 + 100 x 4,000.
        (TokenUsage(1_200, 0, cached_tokens=1_100), 1_100_000),
    ],
)
def test_a_marginal_tier_holds_for_the_tokens_above_its_border(usage: TokenUsage, expected_nusd: int) -> None:
    assert price(SMALL, WHOLE, is_marginal=True).cost(usage).customer_nusd == expected_nusd


def test_marginal_bands_charge_written_tokens_where_they_lie() -> None:
    upper = Rates(2 * USD, 2 * USD, USD, 8 * USD, 10 * USD, 2 * USD)
    lower = Rates(USD, 2 * USD, USD // 2, 4 * USD, 5 * USD, 2 * USD)
    usage = TokenUsage(1_300, 0, cached_tokens=900, cache_write_tokens=300, cache_write_1h_tokens=50)
    # 900 read x 500; 50 for an hour x 5,000; 50 written x 4,000 up to the border; 200 written x 8,000 and
    # 100 plain x 2,000 above it.
    expected = 450_000 + 250_000 + 200_000 + 1_600_000 + 200_000
    assert price(lower, (Tier(1_000, upper),), is_marginal=True).cost(usage).customer_nusd == expected


def test_several_tiers_each_begin_above_their_border() -> None:
    tiers = (Tier(10, LARGE), Tier(20, Rates(*(rate * 2 for rate in LARGE))))
    whole = price(SMALL, tiers)
    assert [whole.cost(TokenUsage(count, 0)).customer_nusd for count in (10, 11, 20, 21)] == [
        10_000,
        44_000,
        80_000,
        168_000,
    ]
    marginal = price(SMALL, tiers, is_marginal=True)
    assert [marginal.cost(TokenUsage(count, 0)).customer_nusd for count in (10, 11, 20, 21)] == [
        10_000,
        14_000,
        50_000,
        58_000,
    ]


@pytest.mark.parametrize(
    ("rate", "tokens", "expected_nusd"),
    [
        (499_999, 1, 0),  # 0.499999 nUSD
        (500_000, 1, 1),  # exactly a half goes up
        (500_001, 1, 1),
        (1_500_000, 1, 2),
        (1_499_999, 1, 1),
        (500_000, 3, 2),  # 1.5 goes up
    ],
)
def test_a_cost_is_rounded_half_up_to_a_nano_dollar(rate: int, tokens: int, expected_nusd: int) -> None:
    flat = Rates(rate, rate, rate, rate, rate, rate)
    assert price(flat).cost(TokenUsage(tokens, 0)).customer_nusd == expected_nusd


def test_prompt_and_completion_are_rounded_together_and_not_apart() -> None:
    flat = Rates(*[500_000] * 6)
    # 0.5 + 0.5 is 1, not 1 + 1.
    assert price(flat).cost(TokenUsage(1, 1)) == Cost(1, 1, 1, 0)
    # 0.4 + 0.4 is 0.8 and becomes 1, not 0 + 0.
    assert price(Rates(*[400_000] * 6)).cost(TokenUsage(1, 1)) == Cost(1, 1, 0, 1)


@pytest.mark.parametrize(
    ("markup", "expected_nusd"),
    [
        (Fraction(1), 270_000),
        (Fraction(211, 200), 284_850),  # 5.5 %
        (Fraction(2), 540_000),
        (Fraction(1_000_001, 1_000_000), 270_000),  # 270,000.27
        (Fraction(1_000_002, 1_000_000), 270_001),  # 270,000.54
    ],
)
def test_a_markup_is_an_exact_factor_inside_the_one_rounding(markup: Fraction, expected_nusd: int) -> None:
    cost = price(markup=markup).cost(TokenUsage(1_000, 200))
    assert cost.customer_nusd == expected_nusd
    assert cost.upstream_nusd == 270_000, "the provider bills its list price"
    assert cost.prompt_nusd + cost.completion_nusd == cost.customer_nusd


def test_a_free_price_costs_nothing_and_says_so() -> None:
    free = PriceVersion("free", Rates(0, 0, 0, 0, 0, 0), is_free=True)
    assert free.cost(TokenUsage(10**6, 10**6, 5, 5)) == Cost(0, 0, 0, 0)
    assert free.most_nusd(10**6, 10**6) == 0


@pytest.mark.parametrize(
    ("prompt", "completion", "expected_nusd"),
    [
        # The dearest way to have 1,000 tokens of prompt is to write them for an hour, of output to reason.
        (1_000, 0, 6_000_000),
        (0, 10, 200_000),
        (1_000, 10, 6_200_000),
        (0, 0, 0),
    ],
)
def test_the_upper_bound_takes_the_dearest_class(prompt: int, completion: int, expected_nusd: int) -> None:
    assert price(EVERY_CLASS).most_nusd(prompt, completion) == expected_nusd


def test_the_upper_bound_takes_the_dearest_tier_that_can_be_reached() -> None:
    tiered = price(SMALL, WHOLE)
    assert tiered.most_nusd(1_000, 1) == 1_002_000
    assert tiered.most_nusd(1_001, 1) == 4_012_000


def test_the_upper_bound_is_not_lowered_by_a_cheaper_tier() -> None:
    cheaper_above = price(LARGE, (Tier(1_000, SMALL),))
    assert cheaper_above.most_nusd(1_001, 1) == 1_001 * 4_000 + 8_000


@pytest.mark.parametrize(
    "rates",
    [
        Rates(-1, USD, USD, USD, USD, USD),
        Rates(USD, -1, USD, USD, USD, USD),
        Rates(USD, USD, -1, USD, USD, USD),
        Rates(0, USD, USD, USD, USD, USD),
        Rates(USD, 0, USD, USD, USD, USD),
        Rates(USD, USD, USD, USD, USD, 0),
        Rates(RATE_NUSD_MAX + 1, USD, USD, USD, USD, USD),
        Rates(10**30, USD, USD, USD, USD, USD),
        Rates(0.15, USD, USD, USD, USD, USD),  # type: ignore[arg-type]
        Rates(float("nan"), USD, USD, USD, USD, USD),  # type: ignore[arg-type]
        Rates("150000000", USD, USD, USD, USD, USD),  # type: ignore[arg-type]
        Rates(True, USD, USD, USD, USD, USD),
        (USD, USD, USD, USD, USD, USD),
    ],
    ids=str,
)
def test_a_rate_that_could_give_credit_or_zero_is_refused(rates: Rates) -> None:
    with pytest.raises(PriceError):
        PriceVersion("bad", rates)
    with pytest.raises(PriceError):
        PriceVersion("bad", PLAIN, (Tier(10, rates),))


def test_a_free_price_with_a_rate_is_refused() -> None:
    with pytest.raises(PriceError):
        PriceVersion("bad", PLAIN, is_free=True)


@pytest.mark.parametrize(
    "tiers",
    [
        (Tier(0, LARGE),),
        (Tier(-5, LARGE),),
        (Tier(10, LARGE), Tier(10, LARGE)),
        (Tier(20, LARGE), Tier(10, LARGE)),
        (Tier(TOKENS_MAX, LARGE),),
        (Tier(1.5, LARGE),),  # type: ignore[arg-type]
        tuple(Tier(border, LARGE) for border in range(1, 18)),
    ],
    ids=["zero", "negative", "twice", "descending", "endless", "fraction", "too many"],
)
def test_tiers_that_make_no_sense_are_refused(tiers: tuple[Tier, ...]) -> None:
    with pytest.raises(PriceError):
        PriceVersion("bad", SMALL, tiers)


@pytest.mark.parametrize(
    "markup", [Fraction(0), Fraction(-1), Fraction(99, 100), Fraction(12), 1.5, float("nan"), "2"]
)
def test_a_markup_that_gives_money_away_or_is_not_exact_is_refused(markup: Fraction) -> None:
    with pytest.raises(PriceError):
        PriceVersion("bad", PLAIN, markup=markup)


@pytest.mark.parametrize(
    "usage",
    [
        TokenUsage(-1, 0),
        TokenUsage(0, -1),
        TokenUsage(10, 0, cached_tokens=-1),
        TokenUsage(10, 0, cache_write_tokens=-1),
        TokenUsage(10, 10, reasoning_tokens=-1),
        TokenUsage(10, 0, cache_write_1h_tokens=-1),
        TokenUsage(10, 0, cached_tokens=11),
        TokenUsage(10, 0, cached_tokens=6, cache_write_tokens=5),
        TokenUsage(10, 0, cache_write_tokens=5, cache_write_1h_tokens=6),
        TokenUsage(10, 10, reasoning_tokens=11),
        TokenUsage(TOKENS_MAX + 1, 0),
        TokenUsage(0, 10**40),
    ],
    ids=str,
)
@pytest.mark.parametrize("sold_at", [price(), price(SMALL, WHOLE, is_marginal=True)], ids=["plain", "marginal"])
def test_a_usage_that_cannot_be_is_never_priced(usage: TokenUsage, sold_at: PriceVersion) -> None:
    with pytest.raises(AssertionError):
        sold_at.cost(usage)


@pytest.mark.parametrize("count", [1.0, float("nan"), float("inf"), "10", None])
def test_a_count_that_is_no_integer_is_never_priced(count: object) -> None:
    with pytest.raises((AssertionError, TypeError)):
        price().cost(TokenUsage(count, 0))  # type: ignore[arg-type]
    with pytest.raises((AssertionError, TypeError)):
        price().most_nusd(count, 0)  # type: ignore[arg-type]


def test_the_dearest_request_fits_into_64_bits() -> None:
    top = Rates(*[RATE_NUSD_MAX] * 6)
    dearest = price(top, markup=Fraction(11))
    cost = dearest.cost(TokenUsage(TOKENS_MAX, TOKENS_MAX))
    assert 0 < cost.customer_nusd <= NUSD_MAX
    assert dearest.most_nusd(TOKENS_MAX, TOKENS_MAX) == cost.customer_nusd


def test_the_tag_of_a_version_changes_with_every_number() -> None:
    variants = [
        price_tag(PLAIN, (), is_marginal=False, markup=Fraction(1)),
        price_tag(PLAIN, (), is_marginal=False, markup=Fraction(211, 200)),
        price_tag(PLAIN._replace(cache_read=3_000_001), (), is_marginal=False, markup=Fraction(1)),
        price_tag(PLAIN, WHOLE, is_marginal=False, markup=Fraction(1)),
        price_tag(PLAIN, WHOLE, is_marginal=True, markup=Fraction(1)),
        price_tag(PLAIN, (Tier(1_001, LARGE),), is_marginal=False, markup=Fraction(1)),
    ]
    assert len(set(variants)) == len(variants)
    assert price_tag(PLAIN, (), is_marginal=False, markup=Fraction(1)) == variants[0]
