"""The watch: budgets and proofs that all processes share, on either database."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, func, select

from dragonfly.accounts.proofs import ProofInvalid
from dragonfly.accounts.tables import attempt_budgets, shown_proofs
from dragonfly.accounts.throttles import Rate, TooManyAttempts
from dragonfly.accounts.watch import WAITING_MAX, Attempt, Watch
from dragonfly.core.credentials import Seal
from dragonfly.infra.database import DatabaseAway, DatabaseThreads, read
from dragonfly.privacy.retention import run_retention
from tests.factories import PEPPER, MovableClock

TWICE = Rate("twice", 2, 10)
OFTEN = Rate("often", 100, 100)
HOUR_S = 3_600


@pytest.fixture
def threads() -> Iterator[DatabaseThreads]:
    made = DatabaseThreads()
    yield made
    made.close()


def watch(engine: Engine, threads: DatabaseThreads, clock: MovableClock) -> Watch:
    return Watch(engine, threads, clock, Seal({1: PEPPER}))


async def admitted(one: Watch, *attempts: Attempt) -> float:
    """0.0, or the seconds to wait."""
    try:
        await one.admit(*attempts)
    except TooManyAttempts as refused:
        return refused.retry_after_s
    return 0.0


async def test_two_processes_share_a_budget_that_fills_up_steadily(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    one, other = watch(engine, threads, clock), watch(engine, threads, clock)
    mine, yours = Attempt(TWICE, "a"), Attempt(TWICE, "b")
    assert [await admitted(each, mine) for each in (one, other)] == [0.0, 0.0]
    assert [await admitted(each, mine) for each in (one, other)] == [5.0, 5.0]
    assert await admitted(other, yours) == 0.0
    clock.move(5)
    assert await admitted(other, mine) == 0.0
    assert await admitted(one, mine) == 5.0
    await other.give_back(mine)
    assert await admitted(other, mine) == 0.0
    clock.move(60)
    assert [await admitted(one, mine) for _ in range(3)] == [0.0, 0.0, 5.0]


async def test_of_several_budgets_all_are_taken_or_none(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    one = watch(engine, threads, clock)
    both = (Attempt(OFTEN, "a"), Attempt(TWICE, "a"))
    for _ in range(20):
        await admitted(one, *both)
    assert [await admitted(one, Attempt(OFTEN, "a")) for _ in range(99)] == [0.0] * 98 + [pytest.approx(1.0)]


async def test_an_empty_budget_is_not_asked_for_again_before_it_can_have_something(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    one, sent = watch(engine, threads, clock), list[str]()
    while not await admitted(one, Attempt(TWICE, "a")):
        pass
    event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(str(arguments[2])))
    for _ in range(10):
        assert await admitted(one, Attempt(TWICE, "a"), Attempt(OFTEN, "a")) == 5.0
    assert not sent


async def test_a_proof_is_new_once_for_all_processes(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    several = [watch(engine, threads, clock) for _ in range(3)]

    async def is_new(one: Watch, proof: bytes) -> bool:
        try:
            await one.admit(proof=proof)
        except ProofInvalid:
            return False
        return True

    proofs = [bytes([number]) * 32 for number in range(4)]
    shown = [(one, proof) for proof in proofs for one in several for _ in range(2)]
    found = await asyncio.gather(*(is_new(*each) for each in shown))
    assert sum(found) == len(proofs)


async def test_processes_that_ask_for_the_same_budgets_at_once_wait_for_nobody(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    several = [watch(engine, threads, clock) for _ in range(3)]
    names = [f"subject {number}" for number in range(8)]
    asked = [
        admitted(one, *(Attempt(OFTEN, name) for name in (names[turn:] + names[:turn])))
        for turn in range(8)
        for one in several
    ]
    assert await asyncio.gather(*asked) == [0.0] * len(asked)
    left = [await admitted(several[0], Attempt(OFTEN, names[0])) for _ in range(101 - len(asked))]
    assert (left[-2:], len(asked)) == ([0.0, pytest.approx(1.0)], 24)


async def test_many_at_once_share_transactions_and_too_many_are_refused(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    begun: list[object] = []
    event.listen(engine, "begin", begun.append)
    one = watch(engine, threads, clock)
    asked = [asyncio.create_task(one.admit(proof=number.to_bytes(32, "big"))) for number in range(WAITING_MAX + 5)]
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, DatabaseAway) for each in ended) == 5
    assert sum(each is None for each in ended) == WAITING_MAX
    assert len(begun) <= WAITING_MAX // 50 + 1


async def test_a_request_that_is_given_up_harms_no_other(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    one = watch(engine, threads, clock)
    asked = [asyncio.create_task(one.admit(Attempt(OFTEN, "a"))) for _ in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in ended] == [type(None), asyncio.CancelledError, type(None)]
    await one.admit(Attempt(OFTEN, "a"))


async def test_both_are_forgotten_after_an_hour(
    engine: Engine, threads: DatabaseThreads, clock: MovableClock
) -> None:
    one = watch(engine, threads, clock)
    await one.admit(Attempt(TWICE, "a"), proof=bytes(32))

    def rows() -> list[int]:
        with read(engine) as connection:
            tables = (attempt_budgets, shown_proofs)
            return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]

    clock.move(HOUR_S - 1)
    run_retention(engine, now_ns=clock.now_ns())
    assert rows() == [1, 1]
    clock.move(10)
    run_retention(engine, now_ns=clock.now_ns())
    assert rows() == [0, 0]
