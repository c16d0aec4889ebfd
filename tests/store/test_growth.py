"""Holds of streams that grow, on a real database: never more than there is, all of it given back."""

import asyncio

import pytest
from sqlalchemy import Engine

from dragonfly.admission.errors import InsufficientBalance, StoreUnavailable
from dragonfly.admission.rules import STEP_TOKENS
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis, TokenUsage
from dragonfly.infra.database import write
from dragonfly.keys.actions import limit_key
from dragonfly.keys.rules import KeyLimits
from dragonfly.settings import AdmissionSettings
from tests.factories import MovableClock, make_customer
from tests.store.desk import COMPLETION_NUSD, GROWING_MODEL, MODEL, OUTPUT_TOKENS, running_desk
from tests.store.test_gate import EXTRA_NUSD

STEP_NUSD = STEP_TOKENS * COMPLETION_NUSD
FIRST_NUSD = EXTRA_NUSD + STEP_NUSD


async def test_a_stream_holds_one_step_and_grows_to_all_that_it_may_become(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="10")
    async with running_desk(engine, clock) as desk:
        for limit in (None, 5_000):
            for _ in range(2):  # from the database, and from memory
                grant = await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=limit))
                assert (grant.hold_nusd, grant.covered_tokens) == (FIRST_NUSD, STEP_TOKENS)
                assert desk.gate.extend(grant, 2 * STEP_TOKENS)
                assert (grant.hold_nusd, grant.covered_tokens) == (FIRST_NUSD + STEP_NUSD, 2 * STEP_TOKENS)
                assert desk.gate.extend(grant, 10**6)
                most = limit or OUTPUT_TOKENS
                assert (grant.hold_nusd, grant.covered_tokens) == (EXTRA_NUSD + most * COMPLETION_NUSD, None)
                await desk.settle_durably(grant, TokenUsage(64, most))
        assert desk.gate.held_nusd == 0
        assert desk.verify().findings == ()


async def test_what_is_whole_small_or_hidden_is_held_in_full(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="10")
    async with running_desk(engine, clock) as desk:
        whole = (await desk.ask(alice, model=GROWING_MODEL, output_tokens=5_000))._replace(streamed=False)
        small = await desk.ask(alice, model=GROWING_MODEL, output_tokens=STEP_TOKENS)
        hidden = await desk.ask(alice, model=MODEL, output_tokens=5_000)
        for ask in (whole, small, hidden):
            grant = await desk.admit(ask)
            assert grant.covered_tokens is None
            assert grant.hold_nusd == EXTRA_NUSD + (ask.output_tokens or 0) * COMPLETION_NUSD


async def test_a_small_balance_serves_several_streams_until_it_is_used_up(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, nusd=3 * FIRST_NUSD)
    async with running_desk(engine, clock) as desk:
        grants = [await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=None)) for _ in range(3)]
        with pytest.raises(InsufficientBalance):
            await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=None))
        assert not desk.gate.extend(grants[0], 2 * STEP_TOKENS)
        with pytest.raises(InsufficientBalance) as caught:
            await desk.gate.extend_waiting(grants[0], 2 * STEP_TOKENS)
        assert caught.value.limit == "account"
        assert grants[0].covered_tokens == STEP_TOKENS
        await desk.settle_durably(grants[1], TokenUsage(64, 10))
        await desk.gate.extend_waiting(grants[0], STEP_TOKENS + 100)
        delivered = TokenUsage(64, STEP_TOKENS + 100, basis=Basis.ESTIMATED)
        settlement = await desk.settle_durably(grants[0], delivered, Outcome.WALLET_EMPTY)
        assert settlement.charge.absorbed_nusd == 0
        await desk.settle_durably(grants[2], TokenUsage(64, STEP_TOKENS))
        assert desk.wallet(alice).balance_nusd >= 0
        assert desk.verify().findings == ()


async def test_a_growing_stream_without_a_limit_is_told_what_the_balance_affords(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, nusd=EXTRA_NUSD + 5_000 * COMPLETION_NUSD)
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=None))
        assert (grant.output_tokens_clamp, grant.hold_nusd) == (5_000, FIRST_NUSD)
        await desk.gate.extend_waiting(grant, 10_000)
        assert (grant.covered_tokens, grant.hold_nusd) == (None, EXTRA_NUSD + 5_000 * COMPLETION_NUSD)
        await desk.settle_durably(grant, TokenUsage(64, 5_000))
        assert desk.wallet(alice).balance_nusd == 0
        bob = make_customer(engine, name="Bob", nusd=EXTRA_NUSD + 100 * COMPLETION_NUSD)
        grant = await desk.admit(await desk.ask(bob, model=GROWING_MODEL, output_tokens=None))
        assert (grant.output_tokens_clamp, grant.covered_tokens) == (100, None)


async def test_a_hold_moves_to_the_new_purse_when_its_own_is_closed(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="10", limits=KeyLimits(spend_limit_nusd=5 * FIRST_NUSD))
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=None))
        with write(engine) as connection:
            limit_key(
                connection,
                alice.key_id,
                account_id=alice.account_id,
                limits=KeyLimits(spend_limit_nusd=4 * FIRST_NUSD),
            )
        await desk.gate.refresh()
        other = await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=None))
        assert not desk.gate.extend(grant, 2 * STEP_TOKENS), "its purse is closed"
        await desk.gate.extend_waiting(grant, 2 * STEP_TOKENS)
        assert desk.gate.held_nusd == grant.hold_nusd + other.hold_nusd
        await desk.settle_durably(grant, TokenUsage(64, 2 * STEP_TOKENS))
        await desk.settle_durably(other, TokenUsage(64, 1))
        assert desk.gate.held_nusd == 0
        assert desk.verify().findings == ()


async def test_a_stream_that_ends_while_it_asks_for_more_keeps_nothing(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=3 * FIRST_NUSD)
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=None))
        asking = asyncio.create_task(desk.gate.extend_waiting(grant, 2 * STEP_TOKENS))
        await asyncio.sleep(0)
        desk.settle(grant, TokenUsage(64, 1))
        await asking
        assert desk.gate.held_nusd == 0
        assert desk.verify().findings == ()


async def test_parallel_streams_never_hold_more_than_there_is(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=20 * FIRST_NUSD)
    settings = AdmissionSettings(lease_nusd=2 * FIRST_NUSD)
    async with running_desk(engine, clock, settings) as one, running_desk(engine, clock, settings) as two:

        async def stream(desk: object, steps: int) -> bool:
            gate = desk.gate  # type: ignore[attr-defined]
            grant = await desk.admit(await desk.ask(alice, model=GROWING_MODEL, output_tokens=None))  # type: ignore[attr-defined]
            used, is_cut = STEP_TOKENS, False
            for step in range(2, steps):
                try:
                    if not gate.extend(grant, step * STEP_TOKENS):
                        await gate.extend_waiting(grant, step * STEP_TOKENS)
                except InsufficientBalance:
                    is_cut = True
                    break
                used = min(OUTPUT_TOKENS, step * STEP_TOKENS)
                assert one.wallet(alice).available_nusd >= 0
            outcome = Outcome.WALLET_EMPTY if is_cut else Outcome.COMPLETE
            settlement = await desk.settle_durably(grant, TokenUsage(64, used), outcome)  # type: ignore[attr-defined]
            assert settlement.charge.absorbed_nusd == 0
            return is_cut

        asks = [stream(desk, steps) for desk in (one, two) for steps in (3, 4, 5, 6)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        assert all(isinstance(result, bool | InsufficientBalance | StoreUnavailable) for result in results), results
        assert one.verify().findings == ()
        assert one.wallet(alice).balance_nusd >= 0
