"""Whatever a provider reports, the customer pays between nothing and the hold, and real work is never free."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dragonfly.admission.grants import Candidate
from dragonfly.admission.rules import charge
from dragonfly.catalog.prices import PriceVersion, Rates, Tier
from dragonfly.core.money import NUSD_MAX
from dragonfly.core.outcomes import Outcome
from dragonfly.core.secrets import Secret
from dragonfly.providers.channel import Channel, Origin
from dragonfly.providers.dialects import DIALECTS, dialect
from dragonfly.providers.dialects.usage import read_report

RATES = Rates(1_000_000_000, 4_000_000_000, 250_000_000, 1_250_000_000, 2_000_000_000, 4_000_000_000)
"""1 and 4 dollars per million tokens."""
TIER = Tier(1_000, Rates(*(2 * rate for rate in RATES)))
PRICES = {
    "plain": PriceVersion("plain", RATES),
    "markup": PriceVersion("markup", RATES, markup=Fraction(21, 20)),
    "tier": PriceVersion("tier", RATES, (TIER,)),
    "marginal": PriceVersion("marginal", RATES, (TIER,), is_marginal=True),
}
HOLD_NUSD = 50_000_000
HOSTILE: tuple[Any, ...] = (
    -1,
    -(2**63),
    2**31,
    2**63,
    2**64,
    10**40,
    0,
    1,
    1.5,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "5",
    "-5",
    "1e9",
    "",
    None,
    True,
    False,
    [],
    {},
)
NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "prompt_cache_miss_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
counts = st.sampled_from(HOSTILE) | st.integers() | st.floats() | st.text(max_size=3)
details = st.dictionaries(st.sampled_from(("cached_tokens", "cache_write_tokens", "reasoning_tokens")), counts)
reports = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NAMES, counts),
        "prompt_tokens_details": details | counts,
        "completion_tokens_details": details | counts,
    },
)


def candidate(price: PriceVersion) -> Candidate:
    channel = Channel(
        id="m@acme",
        provider="acme",
        upstream_model="m",
        origin=Origin("127.0.0.1", 1, tls=False),
        path="/",
        credential=Secret(""),
        dialect="openai",
    )
    return Candidate(channel, price, RATES.prompt, RATES.completion)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # which depends on the machine's load
@pytest.mark.parametrize("price", PRICES.values(), ids=list(PRICES))
@given(report=reports, name=st.sampled_from(sorted(DIALECTS)), outcome=st.sampled_from(list(Outcome)))
@example(report={"prompt_tokens": 10**40, "completion_tokens": 10**40}, name="openai", outcome=Outcome.COMPLETE)
@example(report={"prompt_tokens": 5, "cached_tokens": -(2**63)}, name="openai", outcome=Outcome.COMPLETE)
@example(
    report={"input_tokens": 0, "cache_read_input_tokens": 10**40, "cache_creation_input_tokens": 10**40},
    name="openai",
    outcome=Outcome.COMPLETE,
)
def test_no_report_gives_a_credit_an_overflow_or_free_work(
    price: PriceVersion, report: dict[str, Any], name: str, outcome: Outcome
) -> None:
    reading = read_report(report, dialect(name).usage)
    if reading is None:
        return
    made = charge(HOLD_NUSD, candidate(price), reading.usage, outcome)
    assert all(type(amount) is int and 0 <= amount <= NUSD_MAX for amount in made)
    assert made.cost_nusd <= HOLD_NUSD
    assert made.prompt_cost_nusd + made.completion_cost_nusd == made.cost_nusd
    if reading.usage.prompt_tokens or reading.usage.completion_tokens:
        assert made.upstream_nusd > 0
        assert made.cost_nusd + made.absorbed_nusd > 0
