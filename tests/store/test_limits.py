"""Limits of keys and accounts on a real database, in one worker and over several."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import Engine, insert, select

from dragonfly.accounts.people import add_person
from dragonfly.accounts.tables import accounts
from dragonfly.admission.breaker import Spending, is_far_above, trip_breakers
from dragonfly.admission.errors import InsufficientBalance, KeyPaused, RateLimited
from dragonfly.admission.grants import Grant
from dragonfly.admission.tables import shared_places
from dragonfly.core.ids import AccountId, IdSource, KeyId
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import KeyInvalid, limit_account, resume_key
from dragonfly.keys.rules import KeyLimits, SpendLimits
from dragonfly.mail.tables import mail_outbox
from dragonfly.settings import AdmissionSettings
from dragonfly.usage.queries import day_of
from dragonfly.usage.tables import usage_days
from tests.factories import START_NS, Customer, MovableClock, make_customer, make_key
from tests.store.desk import Desk, running_desk
from tests.store.test_gate import HOLD_NUSD

DAY_S = 86_400
FULL = TokenUsage(64, 100)
"""Costs the whole hold of `Desk.ask`."""


async def spend(desk: Desk, customer: Customer, count: int) -> None:
    for _ in range(count):
        await desk.settle_durably(await desk.admit(await desk.ask(customer)), FULL)


async def refusal(desk: Desk, customer: Customer) -> str:
    with pytest.raises(InsufficientBalance) as caught:
        await desk.admit(await desk.ask(customer))
    return caught.value.limit


@pytest.mark.parametrize(
    ("name", "next_window_s"),
    [("daily", DAY_S), ("weekly", 7 * DAY_S), ("monthly", 31 * DAY_S)],
)
@pytest.mark.parametrize("owner", ["key", "account"])
async def test_a_window_of_spending_is_never_exceeded_and_begins_anew(
    engine: Engine, clock: MovableClock, owner: str, name: str, next_window_s: int
) -> None:
    limit = {f"{name}_nusd": 3 * HOLD_NUSD + 5}
    limits = KeyLimits(**{f"spend_{one}": value for one, value in limit.items()}) if owner == "key" else None
    alice = make_customer(engine, usd="100", limits=limits)
    if owner == "account":
        with write(engine) as connection:
            limit_account(connection, alice.account_id, SpendLimits(**limit), now_ns=START_NS)
    async with running_desk(engine, clock) as one, running_desk(engine, clock) as two:
        await spend(one, alice, 1)
        open_ = [await two.admit(await two.ask(alice)) for _ in range(2)]
        assert await refusal(one, alice) == f"{owner}_{name}", "what is leased counts"
        for grant in open_:
            await two.settle_durably(grant, FULL)
        assert await refusal(two, alice) == f"{owner}_{name}"
        clock.move(next_window_s)
        for desk in (one, two):
            await desk.gate.beat()
        await spend(one, alice, 3)
        assert await refusal(two, alice) == f"{owner}_{name}"
        assert one.verify().findings == ()


async def test_a_limit_of_the_account_that_is_set_later_holds_for_running_workers(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    _, secret = make_key(engine, alice.account_id)
    async with running_desk(engine, clock) as desk:
        await spend(desk, alice, 2)
        with write(engine) as connection:
            limit_account(connection, alice.account_id, SpendLimits(daily_nusd=3 * HOLD_NUSD), now_ns=START_NS)
        await desk.gate.refresh()
        await spend(desk, alice, 1)
        other = Customer(alice.account_id, KeyId(secret.decode()[6:16]), secret)
        assert await refusal(desk, other) == "account_daily"


async def test_tokens_per_minute_are_taken_ahead_and_corrected_by_the_count(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100", limits=KeyLimits(tokens_per_minute=1_000))
    async with running_desk(engine, clock) as desk:
        ask = await desk.ask(alice, output_tokens=400)
        grants = [await desk.admit(await desk.ask(alice, output_tokens=400)) for _ in range(2)]
        with pytest.raises(RateLimited, match="tokens per minute") as caught:
            await desk.admit(await desk.ask(alice, output_tokens=400))
        assert 0 < caught.value.retry_after_s < 60
        assert desk.gate.token_state(ask.key)[:2] == (1_000, 1_000 - 2 * 401)
        for grant in grants:
            desk.settle(grant, TokenUsage(10, 40))
        assert desk.gate.token_state(ask.key).remaining == 900
        await desk.admit(await desk.ask(alice, output_tokens=400))
        large = await desk.ask(alice, output_tokens=2_000)
        with pytest.raises(RateLimited):
            await desk.admit(large)
        clock.move(60.0)
        await desk.gate.beat()
        assert await desk.admit(large), "more than a minute's tokens, when nothing else was used"
        assert desk.gate.token_state(ask.key).remaining == 0


async def crowd(stack: AsyncExitStack, engine: Engine, clock: MovableClock, count: int) -> list[Desk]:
    settings = AdmissionSettings(lease_nusd=10 * HOLD_NUSD)
    desks = [await stack.enter_async_context(running_desk(engine, clock, settings)) for _ in range(count)]
    for desk in desks:
        await desk.gate.refresh()
    return desks


@pytest.mark.parametrize("limits", [{"requests_per_minute": 100}, {"requests_per_minute": 7}])
async def test_requests_per_minute_over_several_workers_are_those_of_the_key(
    engine: Engine, clock: MovableClock, limits: dict[str, int]
) -> None:
    limit = limits["requests_per_minute"]
    alice = make_customer(engine, usd="100", limits=KeyLimits(concurrency_max=0, **limits))
    async with AsyncExitStack() as stack:
        desks = await crowd(stack, engine, clock, 4)
        admitted = 0
        for _ in range(3):
            for minute in range(2):
                asks = [(desk, await desk.ask(alice)) for desk in desks for _ in range(limit)]
                results = await asyncio.gather(*(desk.admit(ask) for desk, ask in asks), return_exceptions=True)
                failures = [one for one in results if isinstance(one, BaseException)]
                assert all(isinstance(one, RateLimited) for one in failures), failures
                admitted += sum(not isinstance(one, BaseException) for one in results)
                assert admitted <= limit * (1 + minute) * 1.05
                assert admitted >= limit * (1 + minute) * 0.9, "and nobody is kept from it"
                clock.move(60.0)
                for desk in desks:
                    await desk.gate.beat()
            admitted = 0
            clock.move(60.0)
            for desk in desks:
                await desk.gate.beat()


async def test_concurrency_over_several_workers_is_that_of_the_key(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="100", limits=KeyLimits(concurrency_max=10, requests_per_minute=0))
    async with AsyncExitStack() as stack:
        desks = await crowd(stack, engine, clock, 3)
        asks = [(desk, await desk.ask(alice)) for desk in desks for _ in range(20)]
        results = await asyncio.gather(*(desk.admit(ask) for desk, ask in asks), return_exceptions=True)
        grants = [
            (desk, one) for (desk, _), one in zip(asks, results, strict=True) if not isinstance(one, BaseException)
        ]
        assert len(grants) == 10
        for desk, grant in grants:
            desk.settle(grant)
        clock.move(1.0)
        for desk in desks:
            await desk.gate.return_idle()
        alone = [await desks[2].admit(await desks[2].ask(alice)) for _ in range(10)]
        with pytest.raises(RateLimited, match="at the same time"):
            await desks[0].admit(await desks[0].ask(alice))
        for grant in alone:
            desks[2].settle(grant)
    with read(engine) as connection:
        assert connection.execute(select(shared_places)).all() == []


async def test_tokens_over_several_workers_are_those_of_the_key(engine: Engine, clock: MovableClock) -> None:
    limits = KeyLimits(tokens_per_minute=10_000, requests_per_minute=0, concurrency_max=0)
    alice = make_customer(engine, usd="100", limits=limits)
    async with AsyncExitStack() as stack:
        desks = await crowd(stack, engine, clock, 2)
        used = 0
        for _ in range(200):
            for desk in desks:
                try:
                    grant = await desk.admit(await desk.ask(alice, output_tokens=400))
                except RateLimited:
                    continue
                await desk.settle_durably(grant, TokenUsage(40, 60))
                used += 100
        assert 9_000 <= used <= 10_500


async def admitted(desk: Desk, customer: Customer, count: int, *, output_tokens: int = 100) -> list[Grant]:
    """What comes through of so many requests."""
    asks = [await desk.ask(customer, output_tokens=output_tokens) for _ in range(count)]
    results = await asyncio.gather(*(desk.admit(ask) for ask in asks), return_exceptions=True)
    assert all(isinstance(one, Grant | RateLimited) for one in results), results
    return [one for one in results if isinstance(one, Grant)]


async def test_a_worker_that_is_left_alone_goes_on_counting_where_all_stood(
    engine: Engine, clock: MovableClock
) -> None:
    limits = KeyLimits(requests_per_minute=10, tokens_per_minute=10_000)
    alice = make_customer(engine, usd="100", limits=limits)
    async with running_desk(engine, clock) as desk:
        async with running_desk(engine, clock) as other:
            await desk.gate.refresh()
            assert len(await admitted(other, alice, 4)) == 4
            assert len(await admitted(desk, alice, 3)) == 3
        await desk.gate.sweep()
        assert len(await admitted(desk, alice, 10)) == 3
        clock.move(60.0)
        await desk.gate.beat()
        assert len(await admitted(desk, alice, 20)) == 10


@pytest.mark.parametrize(
    "limits",
    [
        KeyLimits(requests_per_minute=10, concurrency_max=0),
        KeyLimits(requests_per_minute=0, concurrency_max=10),
        KeyLimits(requests_per_minute=0, concurrency_max=0, tokens_per_minute=10 * (1 + 100)),
    ],
    ids=["requests", "places", "tokens"],
)
async def test_a_worker_that_comes_gets_nothing_that_the_first_one_gave_already(
    engine: Engine, clock: MovableClock, limits: KeyLimits
) -> None:
    alice = make_customer(engine, usd="100", limits=limits)
    async with running_desk(engine, clock) as first:
        assert len(await admitted(first, alice, 8)) == 8
        async with running_desk(engine, clock) as second:
            asking = asyncio.create_task(admitted(second, alice, 10))
            await first.gate.refresh()  # as it does every half second
            assert len(await asking) == 2
            assert await admitted(first, alice, 10) == []


@pytest.mark.parametrize(
    "networks", [("300.0.0.0/8",), (), tuple(f"10.0.{n}.0/24" for n in range(60)), ("10.0.0.1/8",)]
)
def test_networks_that_are_none_are_refused(engine: Engine, networks: tuple[str, ...]) -> None:
    alice = make_customer(engine)
    with pytest.raises(KeyInvalid):
        make_key(engine, alice.account_id, limits=KeyLimits(networks=networks))


def test_the_rule_of_the_breaker() -> None:
    habit = (10, 20, 30)
    assert is_far_above(Spending(201, habit), factor=10, floor_nusd=100)
    assert not is_far_above(Spending(200, habit), factor=10, floor_nusd=100)
    assert not is_far_above(Spending(201, habit), factor=10, floor_nusd=202), "too little to matter"
    assert not is_far_above(Spending(10**9, habit[:2]), factor=10, floor_nusd=1), "no habit yet"
    assert not is_far_above(Spending(10**9, habit), factor=0, floor_nusd=1), "switched off"


async def test_a_key_that_burns_far_above_its_habit_is_paused_and_its_owner_told(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine, usd="100")
    today = day_of(clock.now_ns())
    with write(engine) as connection:
        connection.execute(accounts.update().where(accounts.c.id == alice.account_id).values(email="a@example.com"))
        for day in range(1, 6):
            connection.execute(insert(usage_days).values(day_row(alice, today - day, cost=HOLD_NUSD // 100)))
        add_person(connection, AccountId(alice.account_id), "a@example.com", role="customer", language="zh")
    settings = AdmissionSettings(breaker_floor_nusd=HOLD_NUSD)
    async with running_desk(engine, clock) as desk:
        await spend(desk, alice, 3)
        spent = desk.gate.take_spent()
        assert spent == {alice.key_id: 3 * HOLD_NUSD}
        assert desk.gate.take_spent() == {}
        for tripped in (1, 0):
            with write(engine) as connection:
                assert trip_breakers(connection, IdSource(), spent, settings, now_ns=clock.now_ns()) == tripped
        with read(engine) as connection:
            mails = connection.execute(
                select(mail_outbox.c.kind, mail_outbox.c.address, mail_outbox.c.language)
            ).all()
        assert mails == [("spend_breaker", "a@example.com", "zh")]
        await desk.gate.refresh()
        with pytest.raises(KeyPaused):
            await desk.admit(await desk.ask(alice))
        with write(engine) as connection:
            resume_key(connection, alice.key_id, account_id=AccountId(alice.account_id), now_ns=clock.now_ns())
        await desk.gate.refresh()
        await spend(desk, alice, 1)
        with write(engine) as connection:
            assert trip_breakers(connection, IdSource(), spent, settings, now_ns=clock.now_ns()) == 0, "left alone"


def day_row(customer: Customer, day: int, *, cost: int) -> dict[str, object]:
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"), 0)
    whose = {"key_id": customer.key_id, "account_id": customer.account_id}
    return {**whose, **counts, "day": day, "model": "m", "provider": "p", "requests": 1, "cost_nusd": cost}
