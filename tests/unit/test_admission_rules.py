"""Holds, leases, charges: what must be true for every price, request and usage."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dragonfly.admission.batches import Settled, build
from dragonfly.admission.grants import Ask, Candidate, Grant, KeyPolicy, Offer, Settlement
from dragonfly.admission.rules import (
    BYTES_PER_TOKEN_MIN,
    OUTPUT_TOKENS_MIN,
    PROMPT_TOKENS_EXTRA,
    Demand,
    charge,
    demand,
    hold_within,
    lease_amount,
    most_nusd,
)
from dragonfly.catalog.prices import PriceVersion, Rates, Tier
from dragonfly.core.ids import AccountId, KeyId, RequestId
from dragonfly.core.money import NanoUsd
from dragonfly.core.outcomes import CHARGING, Charging, Outcome
from dragonfly.core.secrets import Secret
from dragonfly.core.tokens import TokenUsage
from dragonfly.ledger.rules import UPSTREAM_COST_BOOK, absorbed_upstream_nusd, leased_book, payable_book
from dragonfly.providers.channel import Channel, Origin

POLICY = KeyPolicy(KeyId("0000000000"), AccountId("acc-alice"), True, 0, 0, None, None)
rates = st.builds(Rates, *(st.integers(1, 10**11) for _ in range(6)))
prices = st.builds(
    PriceVersion,
    id=st.just("v1"),
    rates=rates,
    tiers=st.one_of(st.just(()), st.builds(lambda r, above: (Tier(above, r),), rates, st.integers(1, 300_000))),
    is_marginal=st.booleans(),
    markup=st.fractions(1, 3, max_denominator=1_000),
)


def make_candidate(price: PriceVersion, provider: str = "acme") -> Candidate:
    origin = Origin("127.0.0.1", 1, tls=False)
    channel = Channel(f"acme/x@{provider}", provider, "x", origin, "/", Secret(""), "openai")
    return Candidate(channel, price, 1, 1)


def make_ask(
    *prices: PriceVersion,
    body_bytes: int = 0,
    output_tokens: int | None = None,
    choices: int = 1,
    context: int = 200_000,
    output: int = 8_000,
    media_tokens: int = 0,
) -> Ask:
    candidates = tuple(make_candidate(price) for price in prices)
    offer = Offer("acme/x", candidates, context, output)
    return Ask(POLICY, RequestId("gen-1"), (offer,), body_bytes, output_tokens, choices, True, 1, media_tokens)


asks = st.builds(
    lambda price, **fields: make_ask(price, **fields),
    prices,
    body_bytes=st.integers(0, 20_000_000),
    output_tokens=st.one_of(st.none(), st.integers(0, 2**40)),
    choices=st.integers(1, 128),
    media_tokens=st.integers(0, 10**7),
)


@st.composite
def usages(draw: st.DrawFn, prompt_max: int = 400_000, completion_max: int = 400_000) -> TokenUsage:
    prompt, completion = draw(st.integers(0, prompt_max)), draw(st.integers(0, completion_max))
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return TokenUsage(prompt, completion, cached, written, draw(st.integers(0, completion)))


@given(asks, st.data())
def test_a_hold_covers_every_usage_within_the_asked_limits(ask: Ask, data: st.DataObject) -> None:
    offer = ask.offers[0]
    counted = ask.body_bytes // BYTES_PER_TOKEN_MIN + PROMPT_TOKENS_EXTRA + ask.media_tokens
    prompt_max = min(counted, offer.context_tokens_max)
    asked = offer.output_tokens_max if ask.output_tokens is None else ask.output_tokens
    usage = data.draw(usages(prompt_max, min(asked, offer.output_tokens_max) * ask.choices))
    cost = charge(demand(ask).full_nusd, offer.candidates[0], usage, Outcome.COMPLETE)
    assert cost.absorbed_nusd == 0


@given(prices, prices, st.integers(0, 10**6))
def test_a_hold_is_that_of_the_dearest_candidate(one: PriceVersion, other: PriceVersion, body: int) -> None:
    both = most_nusd(make_ask(one, other, body_bytes=body), None)
    assert both == max(most_nusd(make_ask(price, body_bytes=body), None) for price in (one, other))


@given(asks, st.integers(0, 10**13))
def test_a_clamp_is_the_largest_that_the_money_affords(ask: Ask, free: int) -> None:
    wanted = demand(ask)
    hold = hold_within(ask, wanted, free)
    if free >= wanted.full_nusd:
        assert hold == (wanted.full_nusd, None)
    elif free < wanted.least_nusd:
        assert hold is None
    else:
        assert hold is not None
        assert hold.output_tokens_clamp is not None
        assert hold.output_tokens_clamp >= OUTPUT_TOKENS_MIN
        assert hold.hold_nusd == most_nusd(ask, hold.output_tokens_clamp) <= free
        assert most_nusd(ask, hold.output_tokens_clamp + 1) > free


@given(asks)
def test_only_a_caller_without_a_limit_may_get_less(ask: Ask) -> None:
    wanted = demand(ask)
    assert wanted.least_nusd <= wanted.full_nusd
    if ask.output_tokens is not None:
        assert wanted.least_nusd == wanted.full_nusd


@given(prices, st.integers(0, 10**13), usages(), st.sampled_from(list(Outcome)))
def test_no_charge_exceeds_its_hold_and_nothing_gets_lost(
    price: PriceVersion, hold: int, usage: TokenUsage, outcome: Outcome
) -> None:
    candidate = make_candidate(price)
    full = price.cost(usage)
    made = charge(hold, candidate, usage, outcome)
    assert 0 <= made.cost_nusd <= hold
    assert made.cost_nusd + made.absorbed_nusd == full.customer_nusd
    assert made.upstream_nusd == full.upstream_nusd
    assert made.prompt_cost_nusd >= 0
    assert made.completion_cost_nusd >= 0
    assert made.prompt_cost_nusd + made.completion_cost_nusd == made.cost_nusd
    if CHARGING[outcome] is Charging.NOTHING:
        assert made.cost_nusd == 0


def test_every_outcome_has_its_charge() -> None:
    assert set(CHARGING) == set(Outcome)


def test_a_budget_for_thinking_is_held_on_top_of_the_output_limit() -> None:
    price = PriceVersion("v1", Rates(1, 10**9, 1, 1, 1, 10**9))
    ask = make_ask(price, output_tokens=10, output=8_000)
    assert most_nusd(ask._replace(extra_tokens=500), 10) == most_nusd(ask, 510)
    endless = most_nusd(ask._replace(extra_tokens=10**8), 10)
    assert endless == price.most_nusd(PROMPT_TOKENS_EXTRA, 10 + 8_000)


@pytest.mark.parametrize("choices", [1, 10**9, 2**62])
def test_absurd_numbers_of_choices_are_bounded(choices: int) -> None:
    price = PriceVersion("v1", Rates(1, 10**12, 1, 1, 1, 10**12), markup=Fraction(11))
    assert 0 < most_nusd(make_ask(price, choices=choices), None) < 2**63


demands = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(lambda pair: Demand(max(pair), min(pair))),
    max_size=20,
)


@given(st.integers(0, 10**6), st.integers(0, 10**8), demands, st.integers(1, 10**7))
@example(0, 100, [Demand(60, 60), Demand(60, 60), Demand(40, 40)], 1)
def test_a_lease_takes_what_helps_and_no_more_than_there_is(
    free: int, available: int, waiting: list[Demand], lease: int
) -> None:
    amount = lease_amount(free, available, waiting, lease)
    assert 0 <= amount <= available
    first = next(iter(waiting), None)
    if first is not None and first.least_nusd <= free + available:
        assert free + amount >= min(first.full_nusd, free + available)
    if amount and available <= lease and waiting:
        assert amount <= sum(demand.full_nusd for demand in waiting)
    if waiting and all(demand.least_nusd > free + available for demand in waiting):
        assert amount == 0


def test_a_small_wallet_gives_what_is_needed_and_a_large_one_gives_ahead() -> None:
    wanted = [Demand(70, 70)]
    assert lease_amount(0, 1_000, wanted, 1_000) == 70
    assert lease_amount(0, 8_000, wanted, 1_000) == 1_000
    assert lease_amount(0, 4_000, wanted, 1_000) == 500
    assert lease_amount(100, 8_000, wanted, 1_000) == 0
    assert lease_amount(100, 8_000, [], 1_000) == 1_000
    assert lease_amount(100, 500, [], 1_000) == 0


settlements = st.tuples(
    prices,
    usages(1_000, 1_000),
    st.sampled_from(list(Outcome)),
    st.integers(0, 10**9),
    st.sampled_from(["alice", "bob", "charlie"]),
    st.sampled_from(["acme", "globex"]),
)


def make_settled(number: int, parts: tuple[PriceVersion, TokenUsage, Outcome, int, str, str]) -> Settled:
    price, usage, outcome, hold, name, provider = parts
    policy = replace(POLICY, account_id=AccountId(f"acc-{name}"), key_id=KeyId(f"key-{name}"))
    ask = make_ask(price)._replace(key=policy, request_id=RequestId(f"gen-{number}"))
    candidate = make_candidate(price, provider)
    made = charge(hold, candidate, usage, outcome)
    settlement = Settlement(outcome, candidate, usage, made, "acme/x", "stop", 200, 1, 1, 2)
    return Settled(Grant(ask, NanoUsd(hold), None), settlement, f"lea-{name}", False, None)


@given(st.lists(settlements, max_size=20))
def test_a_batch_books_every_request_once_and_balances(parts: list[tuple]) -> None:  # type: ignore[type-arg]
    settled = [make_settled(number, part) for number, part in enumerate(parts)]
    batch = build(settled, 5)
    assert len(batch.usage) == len(settled)
    by_group: dict[str, int] = {}
    for group_id, _, amount in batch.entries:
        by_group[group_id] = by_group.get(group_id, 0) + amount
        assert amount
    assert set(by_group.values()) <= {0}
    assert set(by_group) == {group[0] for group in batch.groups}
    for account_id in {item.grant.ask.key.account_id for item in settled}:
        mine = [item for item in settled if item.grant.ask.key.account_id == account_id]
        cost = sum(item.settlement.charge.cost_nusd for item in mine)
        booked = [row[2] for row in batch.entries if row[1] == leased_book(account_id)]
        assert sum(booked) == -cost
        assert [row for row in batch.wallets if row[0] == account_id] == ([(account_id, cost, cost)] if cost else [])
        assert sum(row[1] for row in batch.leases if row[0] == mine[0].lease_id) == cost
        assert sum(row[10] for row in batch.usage_days if row[4] == account_id) == cost
    for provider in ("acme", "globex"):
        made = [item.settlement.charge for item in settled if item.settlement.candidate.channel.provider == provider]
        payable = sum(row[2] for row in batch.entries if row[1] == payable_book(provider))
        assert payable == sum(one.upstream_nusd for one in made)
    covered = [item.settlement.charge for item in settled]
    paid_for = sum(
        one.upstream_nusd - absorbed_upstream_nusd(one.upstream_nusd, one.absorbed_nusd) for one in covered
    )
    assert -sum(row[2] for row in batch.entries if row[1] == UPSTREAM_COST_BOOK) == paid_for


def test_a_request_that_moved_no_money_has_a_row_and_no_group() -> None:
    price = PriceVersion("v1", Rates(1, 1, 1, 1, 1, 1))
    batch = build([make_settled(1, (price, TokenUsage(0, 0), Outcome.EMPTY, 0, "alice", "acme"))], 5)
    assert len(batch.usage) == 1
    assert (batch.groups, batch.entries, batch.wallets, batch.leases) == ([], [], [], [])
