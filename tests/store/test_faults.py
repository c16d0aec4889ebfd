"""What happens to money when the database goes away, answers are lost, or this worker is taken for dead."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from dragonfly.admission.batches import Settled
from dragonfly.admission.errors import InsufficientBalance, StoreUnavailable
from dragonfly.admission.grants import Settlement
from dragonfly.admission.queries import beats_of_workers, leases_of_account
from dragonfly.admission.writer import MoneyWriter
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import NO_TOKENS, TokenUsage
from dragonfly.infra.database import DatabaseAway, open_engine, read
from dragonfly.keys.rules import KeyLimits
from dragonfly.settings import AdmissionSettings
from dragonfly.usage.queries import day_of, day_totals
from tests.factories import MovableClock, make_customer
from tests.fakes.outage import Outage, Trouble
from tests.store.desk import Desk, make_log, running_desk, until
from tests.store.test_gate import HOLD_NUSD

SPENT = TokenUsage(64, 100)
"""Costs HOLD_NUSD."""


@pytest.fixture
def shaky(url: str) -> Iterator[tuple[Engine, Outage]]:
    """An engine whose database can be made to fail."""
    engine = open_engine(url)
    outage = Outage(engine)
    yield engine, outage
    engine.dispose()


def lease_sum(desk: Desk, account_id: Any) -> int:
    with read(desk.engine) as connection:
        return sum(leases_of_account(connection, account_id).values())


@pytest.mark.parametrize("usage", [SPENT, NO_TOKENS], ids=["paid", "free"])
@pytest.mark.parametrize("trouble", [Trouble.AWAY, Trouble.COMMIT_FAILS, Trouble.COMMIT_LOST])
async def test_settlements_survive_an_outage_and_are_charged_once(
    engine: Engine, shaky: tuple[Engine, Outage], clock: MovableClock, trouble: Trouble, usage: TokenUsage
) -> None:
    alice = make_customer(engine, usd="100")
    durable: list[int] = []
    async with running_desk(shaky[0], clock) as desk:
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(20)]
        shaky[1].trouble = trouble
        for number, grant in enumerate(grants):
            desk.settle(grant, usage, on_durable=lambda number=number: durable.append(number))
            await asyncio.sleep(0)
        with pytest.raises(DatabaseAway):
            await desk.gate.beat()
        assert durable == []
        assert desk.gate.unsettled == 20
        shaky[1].trouble = Trouble.NONE
        await until(lambda: desk.gate.unsettled == 0, lambda: asyncio.sleep(0))
        assert sorted(durable) == list(range(20))
        assert desk.wallet(alice).charged_nusd == (20 * HOLD_NUSD if usage is SPENT else 0)
        assert desk.gate.refused_settlements == 0
        assert desk.verify().findings == ()
        with read(engine) as connection:
            day = day_of(clock.now_ns())
            totals = day_totals(connection, alice.account_id, first_day=day, last_day=day)
        assert sum(total.requests for total in totals) == 20
    assert desk.wallet(alice).leased_nusd == 0


async def test_without_the_database_leased_money_serves_and_the_rest_is_unavailable(
    engine: Engine, shaky: tuple[Engine, Outage], clock: MovableClock
) -> None:
    alice, bob = make_customer(engine, usd="100"), make_customer(engine, name="Bob")
    async with running_desk(shaky[0], clock) as desk:
        await desk.admit(await desk.ask(alice))
        shaky[1].trouble = Trouble.AWAY
        clock.move(5.0)
        assert desk.gate.admit(await desk.ask(alice)) is not None
        with pytest.raises(StoreUnavailable):
            await desk.ask(bob)
        with pytest.raises(StoreUnavailable):
            await desk.admit(await desk.ask(alice, output_tokens=8_000, choices=100))
        clock.move(6.0)
        with pytest.raises(StoreUnavailable):
            await desk.ask(alice)
        shaky[1].trouble = Trouble.NONE
        clock.move(1.0)
        assert await desk.admit(await desk.ask(bob)) is not None


async def test_a_request_that_met_the_outage_keeps_no_place(
    engine: Engine, shaky: tuple[Engine, Outage], clock: MovableClock
) -> None:
    alice = make_customer(engine, limits=KeyLimits(concurrency_max=1))
    async with running_desk(shaky[0], clock) as desk:
        ask = await desk.ask(alice)
        shaky[1].trouble = Trouble.AWAY
        with pytest.raises(StoreUnavailable):
            await desk.gate.admit_waiting(ask)
        shaky[1].trouble = Trouble.NONE
        assert await desk.gate.admit_waiting(ask) is not None


async def test_a_stop_without_the_database_is_bounded(
    engine: Engine, shaky: tuple[Engine, Outage], clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice))
        writer = MoneyWriter(shaky[0], clock, make_log(), batch_max=10)
        writer.start(asyncio.get_running_loop())
        shaky[1].trouble = Trouble.AWAY
        candidate = grant.ask.offers[0].candidates[0]
        charge = desk.gate.charge(grant, candidate, SPENT, Outcome.COMPLETE)
        settlement = Settlement(Outcome.COMPLETE, candidate, SPENT, charge, "acme/plain", "stop", 200, 1, 1, 1)
        writer.settle(Settled(grant, settlement, "", False, None))
        with pytest.raises(DatabaseAway):
            await writer.run(beats_of_workers)
        assert await writer.stop(wait_s=0.05) is False
        assert writer.unsettled == 1
        await until(lambda: writer.has_ended, lambda: asyncio.sleep(0))
        with pytest.raises(DatabaseAway):
            await writer.run(beats_of_workers)


async def test_a_worker_without_a_heartbeat_spends_nothing(
    engine: Engine, shaky: tuple[Engine, Outage], clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    settings = AdmissionSettings(heartbeat_s=2, heartbeat_dead_s=8)
    async with running_desk(shaky[0], clock, settings) as desk:
        await desk.admit(await desk.ask(alice))
        policy = await desk.gate.key(alice.secret)
        shaky[1].trouble = Trouble.AWAY
        clock.move(5.9)
        assert desk.gate.admit(await desk.ask(policy)) is not None
        clock.move(0.2)
        ask = await desk.ask(policy)
        assert desk.gate.admit(ask) is None
        with pytest.raises(StoreUnavailable):
            await desk.gate.admit_waiting(ask)


async def test_a_full_queue_of_settlements_admits_nobody(
    engine: Engine, shaky: tuple[Engine, Outage], clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    async with running_desk(shaky[0], clock, AdmissionSettings(settle_queue_max=100)) as desk:
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(110)]
        shaky[1].trouble = Trouble.AWAY
        for grant in grants[:99]:
            desk.settle(grant, SPENT)
        ask = await desk.ask(alice)
        extra = desk.gate.admit(ask)
        assert extra is not None
        for grant in grants[99:]:
            desk.settle(grant, SPENT)
        with pytest.raises(StoreUnavailable):
            desk.gate.admit(ask)
        shaky[1].trouble = Trouble.NONE
        desk.settle(extra, SPENT)
        await until(lambda: desk.gate.unsettled == 0, lambda: asyncio.sleep(0))
        assert desk.gate.admit(ask) is not None
        assert desk.wallet(alice).charged_nusd == 111 * HOLD_NUSD
        assert desk.verify().findings == ()


@pytest.mark.parametrize("trouble", [Trouble.COMMIT_FAILS, Trouble.COMMIT_LOST])
async def test_a_lease_of_unknown_size_is_given_back_whole(
    engine: Engine, shaky: tuple[Engine, Outage], clock: MovableClock, trouble: Trouble
) -> None:
    alice = make_customer(engine, nusd=3 * HOLD_NUSD)
    async with running_desk(shaky[0], clock) as desk:
        first = await desk.admit(await desk.ask(alice))
        shaky[1].trouble = trouble
        with pytest.raises(StoreUnavailable):
            await desk.admit(await desk.ask(alice))
        shaky[1].trouble = Trouble.NONE
        await desk.settle_durably(first, SPENT)
        await desk.gate.return_idle()
        assert desk.wallet(alice).leased_nusd == lease_sum(desk, alice.account_id) == 0
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(2)]
        with pytest.raises(InsufficientBalance):
            await desk.admit(await desk.ask(alice))
        for grant in grants:
            await desk.settle_durably(grant, SPENT)
        assert desk.wallet(alice).balance_nusd == 0
        assert desk.verify().findings == ()


async def test_a_dead_worker_s_leases_come_back_and_its_late_settlements_are_paid(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    async with running_desk(engine, clock) as late, running_desk(engine, clock) as other:
        grants = [await late.admit(await late.ask(alice)) for _ in range(3)]
        assert await other.gate.sweep() == 0
        clock.move(14.0)
        await other.gate.beat()
        assert await other.gate.sweep() == 0
        clock.move(1.0)
        assert await other.gate.sweep() == 1
        assert late.wallet(alice).leased_nusd == 0
        for grant in grants:
            await late.settle_durably(grant, SPENT)
        assert late.wallet(alice).charged_nusd == 3 * HOLD_NUSD
        assert late.verify().findings == ()
        before = late.gate.worker_id
        grant = await late.admit(await late.ask(alice))
        assert late.gate.worker_id != before
        await late.settle_durably(grant, SPENT)
        assert late.verify().findings == ()


async def test_a_late_settlement_takes_no_more_than_the_account_has(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=2 * HOLD_NUSD + HOLD_NUSD // 4)
    async with running_desk(engine, clock) as late, running_desk(engine, clock) as other:
        grants = [await late.admit(await late.ask(alice)) for _ in range(2)]
        await other.gate.sweep()
        clock.move(15.0)
        await other.gate.beat()
        assert await other.gate.sweep() == 1
        spent_meanwhile = await other.admit(await other.ask(alice))
        await other.settle_durably(spent_meanwhile, SPENT)
        durable = asyncio.Event()
        late.settle(grants[0], SPENT)
        late.settle(grants[1], SPENT, on_durable=durable.set)
        await asyncio.wait_for(durable.wait(), 20)
        wallet = late.wallet(alice)
        assert wallet.balance_nusd == 0
        assert wallet.charged_nusd == 2 * HOLD_NUSD + HOLD_NUSD // 4
        assert late.verify().findings == ()


async def test_a_worker_that_beats_is_never_swept(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="100")
    async with running_desk(engine, clock) as one, running_desk(engine, clock) as two:
        await one.admit(await one.ask(alice))
        await two.admit(await two.ask(alice))
        leased = one.wallet(alice).leased_nusd
        for _ in range(30):
            clock.move(2.0)
            await one.gate.beat()
            await two.gate.beat()
            assert await one.gate.sweep() == await two.gate.sweep() == 0
        assert one.wallet(alice).leased_nusd == leased


async def test_a_settlement_that_the_database_refuses_does_not_keep_the_others_back(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    async with running_desk(engine, clock) as desk:
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(9)]
        durable: list[int] = []
        for number, grant in enumerate(grants):
            if number == 4:
                grant.ask = grant.ask._replace(started_ns=2**70)  # no database has such a number
            desk.settle(grant, SPENT, on_durable=lambda number=number: durable.append(number))
        await until(lambda: desk.gate.unsettled == 0, lambda: asyncio.sleep(0))
        assert sorted(durable) == list(range(9))
        assert desk.wallet(alice).charged_nusd == 8 * HOLD_NUSD
        assert desk.gate.refused_settlements == 1
        assert desk.verify().findings == ()


async def test_one_caller_s_mistake_does_not_keep_the_others_answers(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="100")
    told: list[dict[str, Any]] = []
    async with running_desk(engine, clock) as desk:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(2)]
        desk.settle(grants[0], on_durable=lambda: 1 // 0)
        await desk.settle_durably(grants[1])
        assert [type(context["exception"]) for context in told] == [ZeroDivisionError]


async def test_a_grant_is_settled_once(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice))
        await desk.settle_durably(grant)
        with pytest.raises(AssertionError, match="once"):
            desk.settle(grant)


async def test_after_the_stop_nobody_is_admitted(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        ask = await desk.ask(alice)
        grant = await desk.admit(ask)
        desk.settle(grant, SPENT)
    with pytest.raises(StoreUnavailable):
        desk.gate.admit(ask)
    with pytest.raises(StoreUnavailable):
        await desk.gate.admit_waiting(ask)
    wallet = desk.wallet(alice)
    assert (wallet.leased_nusd, wallet.charged_nusd) == (0, HOLD_NUSD)
