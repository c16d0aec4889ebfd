"""The gate as the data plane uses it: keys, holds, leases, settlements, on a real database."""

import asyncio

import pytest
from sqlalchemy import Engine

from dragonfly.admission.errors import (
    AccountUnverified,
    InsufficientBalance,
    ModelNotAllowed,
    ModelNotFound,
    ModelUnpriced,
    RateLimited,
)
from dragonfly.admission.queries import leases_of_account
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read
from dragonfly.keys.queries import key_of_account
from dragonfly.keys.rules import KeyLimits
from dragonfly.usage.queries import usage_by_request
from tests.factories import MovableClock, make_customer, make_key
from tests.store.desk import (
    COMPLETION_NUSD,
    FREE_MODEL,
    MODEL,
    OTHER_MODEL,
    PROMPT_NUSD,
    UNPRICED_MODEL,
    running_desk,
    until,
)

EXTRA_NUSD = 64 * PROMPT_NUSD
"""What every hold has for the prompt of an empty body."""
HOLD_NUSD = EXTRA_NUSD + 100 * COMPLETION_NUSD
"""The hold of `Desk.ask` as it is."""


async def test_a_settled_request_is_charged_to_the_nano_dollar(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="10")
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice))
        assert grant.hold_nusd == HOLD_NUSD
        assert desk.wallet(alice).balance_nusd == 10_000_000_000
        settlement = await desk.settle_durably(grant, TokenUsage(10, 20, cached_tokens=3))
        cost = 10 * PROMPT_NUSD + 20 * COMPLETION_NUSD
        assert settlement.charge.cost_nusd == cost
        wallet = desk.wallet(alice)
        assert (wallet.balance_nusd, wallet.charged_nusd) == (10_000_000_000 - cost, cost)
        with read(engine) as connection:
            row = usage_by_request(connection, alice.account_id, grant.ask.request_id)
        assert row is not None
        assert (row.cost_nusd, row.upstream_nusd, row.absorbed_nusd) == (cost, cost // 2, 0)
        assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (10, 20, 3)
        assert (row.outcome, row.provider, row.price_version_id) == ("complete", "acme", "acme-1")
        assert desk.verify().findings == ()
    assert desk.wallet(alice).leased_nusd == 0


async def test_the_first_request_leases_and_the_next_ones_ask_nobody(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="100")
    async with running_desk(engine, clock) as desk:
        ask = await desk.ask(alice)
        assert desk.gate.admit(ask) is None
        await desk.gate.admit_waiting(ask)
        for _ in range(100):
            assert desk.gate.admit(await desk.ask(alice)) is not None
        assert desk.wallet(alice).leased_nusd == 1_000_000_000
        assert desk.gate.key_cached(alice.secret) is not None


async def test_a_small_wallet_leases_only_what_the_request_needs(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="0.5")
    async with running_desk(engine, clock) as desk:
        await desk.admit(await desk.ask(alice))
        assert desk.wallet(alice).leased_nusd == HOLD_NUSD


async def test_two_hundred_parallel_requests_on_money_for_ten_give_ten(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=10 * HOLD_NUSD)
    async with running_desk(engine, clock) as desk:
        asks = [await desk.ask(alice) for _ in range(200)]
        results = await asyncio.gather(*(desk.admit(ask) for ask in asks), return_exceptions=True)
        grants = [result for result in results if not isinstance(result, BaseException)]
        refusals = [result for result in results if isinstance(result, BaseException)]
        assert len(grants) == 10
        assert all(isinstance(refusal, InsufficientBalance) for refusal in refusals)
        assert {(r.needed_nusd, r.available_nusd, r.limit) for r in refusals} == {(HOLD_NUSD, 0, "account")}
        spent = TokenUsage(64, 100)
        await asyncio.gather(*(desk.settle_durably(grant, spent) for grant in grants))
        assert desk.wallet(alice)[:2] == (0, 0)
        with pytest.raises(InsufficientBalance):
            await desk.admit(await desk.ask(alice))
        assert desk.verify().findings == ()


async def test_a_caller_without_a_limit_gets_what_the_balance_affords(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=EXTRA_NUSD + 1_000 * COMPLETION_NUSD + 7)
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice, output_tokens=None))
        assert grant.output_tokens_clamp == 1_000
        assert grant.hold_nusd == EXTRA_NUSD + 1_000 * COMPLETION_NUSD
        await desk.settle_durably(grant)
        grant = await desk.admit(await desk.ask(alice, output_tokens=None, choices=4))
        assert grant.output_tokens_clamp == 250
        await desk.settle_durably(grant)


async def test_money_for_less_than_a_few_tokens_is_refused_with_the_amounts(
    engine: Engine, clock: MovableClock
) -> None:
    least = EXTRA_NUSD + 16 * COMPLETION_NUSD
    alice = make_customer(engine, nusd=least - 1)
    async with running_desk(engine, clock) as desk:
        with pytest.raises(InsufficientBalance) as caught:
            await desk.admit(await desk.ask(alice, output_tokens=None))
        refusal = caught.value
        assert (refusal.needed_nusd, refusal.available_nusd, refusal.limit) == (least, least - 1, "account")
        with pytest.raises(InsufficientBalance):
            await desk.admit(await desk.ask(alice, output_tokens=17))
        assert (await desk.admit(await desk.ask(alice, output_tokens=15))).output_tokens_clamp is None


async def test_an_overrun_costs_the_hold_and_the_operator_the_rest(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="1")
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice))
        settlement = await desk.settle_durably(grant, TokenUsage(64, 1_000))
        overrun = 900 * COMPLETION_NUSD
        assert settlement.charge.cost_nusd == HOLD_NUSD
        assert settlement.charge.absorbed_nusd == overrun
        assert desk.wallet(alice).balance_nusd == 1_000_000_000 - HOLD_NUSD
        assert desk.verify().findings == ()


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_every_outcome_books_and_returns_its_hold(
    engine: Engine, clock: MovableClock, outcome: Outcome
) -> None:
    alice = make_customer(engine, nusd=HOLD_NUSD)
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice))
        settlement = await desk.settle_durably(grant, TokenUsage(5, 5), outcome)
        wallet = desk.wallet(alice)
        assert wallet.balance_nusd == HOLD_NUSD - settlement.charge.cost_nusd
        again = await desk.admit(await desk.ask(alice, output_tokens=90))
        await desk.settle_durably(again, outcome=Outcome.EMPTY)
        assert desk.verify().findings == ()
    assert desk.wallet(alice).leased_nusd == 0


async def test_a_key_spends_no_more_than_its_limit(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="5", limits=KeyLimits(spend_limit_nusd=2 * HOLD_NUSD + 5))
    async with running_desk(engine, clock) as desk:
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(2)]
        with pytest.raises(InsufficientBalance) as caught:
            await desk.admit(await desk.ask(alice))
        assert (caught.value.limit, caught.value.available_nusd) == ("key", 5)
        for grant in grants:
            await desk.settle_durably(grant, TokenUsage(64, 100))
        assert desk.verify().findings == ()
        with read(engine) as connection:
            key = key_of_account(connection, alice.key_id, account_id=alice.account_id)
        assert key is not None
        assert (key.spent_nusd, key.leased_nusd) == (2 * HOLD_NUSD, 0)
        with pytest.raises(InsufficientBalance):
            await desk.admit(await desk.ask(alice))


async def test_a_free_model_needs_no_money(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="0")
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice, model=FREE_MODEL, output_tokens=None))
        assert (grant.hold_nusd, grant.output_tokens_clamp) == (0, None)
        assert (await desk.settle_durably(grant, TokenUsage(5, 5))).charge.cost_nusd == 0
        assert desk.verify().findings == ()


async def test_refusals_come_before_money(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, is_verified=False)
    bob = make_customer(engine, name="Bob", limits=KeyLimits(models=frozenset({OTHER_MODEL})))
    async with running_desk(engine, clock) as desk:
        with pytest.raises(AccountUnverified):
            await desk.admit(await desk.ask(alice))
        with pytest.raises(ModelNotAllowed):
            await desk.admit(await desk.ask(bob, model=MODEL))
        assert (await desk.admit(await desk.ask(bob, model=OTHER_MODEL))).hold_nusd == HOLD_NUSD
        with pytest.raises(ModelNotFound):
            desk.gate.offer("acme/none")
        with pytest.raises(ModelUnpriced):
            desk.gate.offer(UNPRICED_MODEL)


async def test_limits_hold_and_give_their_places_back(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, limits=KeyLimits(requests_per_minute=3, concurrency_max=2))
    async with running_desk(engine, clock) as desk:
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(2)]
        with pytest.raises(RateLimited, match="at the same time"):
            await desk.admit(await desk.ask(alice))
        desk.settle(grants.pop())
        policy = grants[0].ask.key
        assert desk.gate.rate_state(policy)[:2] == (3, 1)
        grants.append(await desk.admit(await desk.ask(alice)))
        desk.settle(grants.pop())
        with pytest.raises(RateLimited, match="per minute") as caught:
            await desk.admit(await desk.ask(alice))
        assert caught.value.retry_after_s == pytest.approx(20.0)
        clock.move(20.0)
        await desk.gate.beat()
        assert await desk.admit(await desk.ask(alice)) is not None


async def test_a_refused_request_keeps_no_place(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=HOLD_NUSD, limits=KeyLimits(concurrency_max=1))
    async with running_desk(engine, clock) as desk:
        for _ in range(3):
            with pytest.raises(InsufficientBalance):
                await desk.admit(await desk.ask(alice, output_tokens=101))
        assert await desk.admit(await desk.ask(alice)) is not None


async def test_keys_of_one_account_share_its_money(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="100")
    _, secret = make_key(engine, alice.account_id)
    async with running_desk(engine, clock) as desk:
        await desk.admit(await desk.ask(alice))
        await desk.admit(await desk.ask(await desk.gate.key(secret)))
        with read(engine) as connection:
            assert len(leases_of_account(connection, alice.account_id)) == 1


async def test_a_request_given_up_while_it_waits_holds_nothing(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=HOLD_NUSD, limits=KeyLimits(concurrency_max=1))
    async with running_desk(engine, clock) as desk:
        for turns in range(6):
            waiting = asyncio.create_task(desk.gate.admit_waiting(await desk.ask(alice)))
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            (result,) = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(result, asyncio.CancelledError)
        waiting = asyncio.create_task(desk.gate.admit_waiting(await desk.ask(alice)))
        await until(lambda: desk.gate.held_nusd > 0, lambda: asyncio.sleep(0))
        assert not waiting.done(), "the hold is there, and its request does not know yet"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert desk.gate.held_nusd == 0
        grant = await desk.admit(await desk.ask(alice))
        assert desk.gate.held_nusd == grant.hold_nusd == HOLD_NUSD
        await desk.settle_durably(grant)
