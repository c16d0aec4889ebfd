"""Several workers on one wallet, idle leases, and a long random life with the proof of the books at every step."""

import asyncio
import random

import pytest
from sqlalchemy import Engine, select

from dragonfly.admission.actions import WorkerLost, beat, declare_dead, register_worker, release_leases
from dragonfly.admission.errors import InsufficientBalance, StoreUnavailable
from dragonfly.admission.grants import Grant
from dragonfly.admission.queries import beats_of_workers, is_dead, leases_of_account
from dragonfly.admission.tables import leases
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import limit_key
from dragonfly.keys.rules import KeyLimits
from dragonfly.settings import AdmissionSettings
from tests.factories import Customer, MovableClock, give_credit, make_customer
from tests.store.desk import Desk, running_desk, until
from tests.store.test_gate import HOLD_NUSD

SPENT = TokenUsage(64, 100)


async def test_two_workers_share_money_for_ten_exactly(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, nusd=10 * HOLD_NUSD)
    async with running_desk(engine, clock) as one, running_desk(engine, clock) as two:
        asks = [(desk, await desk.ask(alice)) for desk in (one, two) for _ in range(100)]
        results = await asyncio.gather(*(desk.admit(ask) for desk, ask in asks), return_exceptions=True)
        granted = [
            (desk, result)
            for (desk, _), result in zip(asks, results, strict=True)
            if not isinstance(result, BaseException)
        ]
        assert len(granted) == 10
        assert sum(isinstance(result, InsufficientBalance) for result in results) == 190
        assert one.verify().findings == ()
        await asyncio.gather(*(desk.settle_durably(grant, SPENT) for desk, grant in granted))
        assert one.wallet(alice)[:2] == (0, 0)
        assert one.verify().findings == ()


async def test_unused_leases_go_back_small_ones_soon_large_ones_later(engine: Engine, clock: MovableClock) -> None:
    alice, bob = make_customer(engine, usd="0.5"), make_customer(engine, name="Bob", usd="100")
    async with running_desk(engine, clock, AdmissionSettings(lease_idle_s=30)) as desk:
        for customer in (alice, bob):
            desk.settle(await desk.admit(await desk.ask(customer)))
        clock.move(1.0)
        await desk.gate.return_idle()
        assert desk.wallet(alice).leased_nusd == 0
        assert desk.wallet(bob).leased_nusd == 1_000_000_000
        clock.move(29.0)
        await desk.gate.beat()
        await desk.gate.return_idle()
        assert desk.wallet(bob).leased_nusd == 0
        with read(engine) as connection:
            assert connection.execute(select(leases.c.id)).all() == []
        grant = await desk.admit(await desk.ask(alice))
        clock.move(5.0)
        await desk.gate.return_idle()
        assert desk.wallet(alice).leased_nusd == HOLD_NUSD
        await desk.settle_durably(grant, SPENT)
        assert desk.verify().findings == ()


async def test_a_busy_lease_is_extended_before_anybody_waits(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="100")
    settings = AdmissionSettings(lease_nusd=10 * HOLD_NUSD)
    async with running_desk(engine, clock, settings) as desk:
        await desk.admit(await desk.ask(alice))
        for _ in range(50):
            ask = await desk.ask(alice)
            grant = desk.gate.admit(ask)
            assert grant is not None
            before = desk.wallet(alice).leased_nusd
            desk.settle(grant, SPENT)
            await desk.gate.beat()
            await asyncio.sleep(0)
            assert desk.wallet(alice).leased_nusd >= 3 * HOLD_NUSD
            assert before > 0


async def test_a_caller_who_meets_an_extension_in_flight_is_not_cut_short(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    settings = AdmissionSettings(lease_nusd=10 * HOLD_NUSD)
    async with running_desk(engine, clock, settings) as desk:
        await desk.admit(await desk.ask(alice))
        ask = await desk.ask(alice, output_tokens=None)
        for _ in range(7):
            assert desk.gate.admit(await desk.ask(alice)) is not None
        await asyncio.sleep(0)  # the extension ahead of need is on its way, and knows nothing of what follows
        grant = await desk.gate.admit_waiting(ask)
        assert grant.output_tokens_clamp is None


def test_a_worker_that_beat_meanwhile_is_not_declared_dead(engine: Engine) -> None:
    with write(engine) as connection:
        register_worker(connection, "wrk-1", now_ns=1)
        beat(connection, "wrk-1", now_ns=2)
        assert not declare_dead(connection, "wrk-1", beats=0)
        assert not is_dead(connection, "wrk-1")
        assert declare_dead(connection, "wrk-1", beats=1)
        assert is_dead(connection, "wrk-1")
        with pytest.raises(WorkerLost):
            beat(connection, "wrk-1", now_ns=3)
        assert release_leases(connection, "wrk-1", now_ns=4)
        assert beats_of_workers(connection) == []


async def test_a_stopped_worker_leaves_nothing_behind(engine: Engine, clock: MovableClock) -> None:
    customers = [make_customer(engine, name=name, usd="100") for name in ("Alice", "Bob", "Charlie")]
    async with running_desk(engine, clock) as desk:
        for customer in customers:
            desk.settle(await desk.admit(await desk.ask(customer)), SPENT)
        with read(engine) as connection:
            assert [worker.id for worker in beats_of_workers(connection)] == [desk.gate.worker_id]
    with read(engine) as connection:
        assert beats_of_workers(connection) == []
        assert [leases_of_account(connection, customer.account_id) for customer in customers] == [{}, {}, {}]
    assert [desk.wallet(customer).charged_nusd for customer in customers] == [HOLD_NUSD] * 3


async def test_a_lowered_key_limit_holds_from_the_next_request(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="100", limits=KeyLimits(spend_limit_nusd=50_000_000_000))
    async with running_desk(engine, clock) as desk:
        await desk.settle_durably(await desk.admit(await desk.ask(alice)), SPENT)
        with write(engine) as connection:
            lowered = KeyLimits(spend_limit_nusd=2 * HOLD_NUSD - 1)
            limit_key(connection, alice.key_id, lowered, account_id=alice.account_id)
        await desk.gate.refresh()
        with pytest.raises(InsufficientBalance) as caught:
            await desk.admit(await desk.ask(alice))
        assert caught.value.limit == "key"
        await desk.gate.return_idle()
        with pytest.raises(InsufficientBalance) as caught:
            await desk.admit(await desk.ask(alice))
        assert caught.value.available_nusd == HOLD_NUSD - 1
        assert (await desk.admit(await desk.ask(alice, output_tokens=99))).hold_nusd < HOLD_NUSD
        assert desk.verify().findings == ()


class _Life:
    """Two workers and three customers who do whatever comes to a seeded mind."""

    def __init__(self, seed: int, desks: list[Desk], customers: list[Customer], clock: MovableClock) -> None:
        self.random = random.Random(seed)
        self.desks = desks
        self.customers = customers
        self.clock = clock
        self.open: list[tuple[Desk, Grant]] = []
        self.credited = 0

    async def step(self) -> None:
        roll = self.random.random()
        desk = self.random.choice(self.desks)
        if roll < 0.45:
            await self.admit(desk)
        elif roll < 0.80 and self.open:
            await self.settle()
        elif roll < 0.85:
            give_credit(desk.engine, self.random.choice(self.customers).account_id, nusd=HOLD_NUSD)
            self.credited += HOLD_NUSD
        elif roll < 0.90:
            self.clock.move(self.random.choice((0.5, 1.5, 4.0)))
        elif roll < 0.95:
            await desk.gate.return_idle()
        else:
            # The other worker looks dead to this one when it does not beat.
            self.clock.move(16.0)
            await desk.gate.beat()
            await desk.gate.sweep()

    async def admit(self, desk: Desk) -> None:
        output = self.random.choice((None, 1, 50, 100, 400))
        try:
            ask = await desk.ask(self.random.choice(self.customers), output_tokens=output)
            self.open.append((desk, await desk.admit(ask)))
        except (InsufficientBalance, StoreUnavailable):
            pass

    async def settle(self) -> None:
        desk, grant = self.open.pop(self.random.randrange(len(self.open)))
        usage = TokenUsage(self.random.randrange(100), self.random.randrange(600))
        await desk.settle_durably(grant, usage, self.random.choice(list(Outcome)))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_books_hold_at_every_step_of_a_random_life(engine: Engine, clock: MovableClock, seed: int) -> None:
    customers = [
        make_customer(engine, nusd=5 * HOLD_NUSD),
        make_customer(engine, name="Bob", usd="50"),
        make_customer(engine, name="Charlie", usd="1", limits=KeyLimits(spend_limit_nusd=20 * HOLD_NUSD)),
    ]
    settings = AdmissionSettings(recall_s=0.01)
    async with running_desk(engine, clock, settings) as one, running_desk(engine, clock, settings) as two:
        life = _Life(seed, [one, two], customers, clock)
        for _ in range(100):
            await life.step()
            report = one.verify()
            assert report.findings == ()
        for desk, grant in life.open:
            await desk.settle_durably(grant, SPENT)
        await until(lambda: one.gate.unsettled + two.gate.unsettled == 0, lambda: asyncio.sleep(0))
        report = one.verify()
        assert report.findings == ()
    charged = sum(one.wallet(customer).charged_nusd for customer in customers)
    assert report.balances_nusd + charged == 5 * HOLD_NUSD + 51_000_000_000 + life.credited
    assert [one.wallet(customer).leased_nusd for customer in customers] == [0, 0, 0]
