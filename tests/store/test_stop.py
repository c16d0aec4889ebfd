"""The stop call: for the account's own answers only, on whichever worker they run, as often as one likes."""

import asyncio
import json

import pytest
from sqlalchemy import Engine

from dragonfly.admission.grants import KeyPolicy
from dragonfly.api.generation import GenerationNotFound
from dragonfly.api.stop import Reader, stop_action
from dragonfly.core.ids import AccountId, RequestId
from dragonfly.core.outcomes import Outcome
from dragonfly.infra.database import DatabaseThreads
from tests.factories import MovableClock, make_customer
from tests.store.desk import Desk, running_desk, until


def elsewhere(account_id: AccountId, request_id: RequestId) -> bool:
    return False


async def answer(action: Reader, key: KeyPolicy, request_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(await action(key, {"id": request_id}, {}))["data"]
    return found


async def test_an_answer_of_another_worker_is_stopped_through_the_feed(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    threads = DatabaseThreads()
    async with running_desk(engine, clock) as one, running_desk(engine, clock) as two:
        action = stop_action(engine, threads, clock, elsewhere)
        grant = await two.admit(await two.ask(alice))
        asked: list[tuple[str, str]] = []

        def stop(account_id: AccountId, request_id: RequestId) -> bool:
            asked.append((account_id, request_id))
            two.settle(grant, outcome=Outcome.STOPPED)
            return True

        two.gate.on_stop(stop)
        key = await one.gate.key(alice.secret)
        stopping = asyncio.create_task(answer(action, key, grant.ask.request_id))
        await until(lambda: bool(asked), two.gate.refresh)
        assert asked == [(alice.account_id, grant.ask.request_id)]
        assert await stopping == {"id": grant.ask.request_id, "stopped": True, "outcome": "stopped"}
        assert (await answer(action, key, grant.ask.request_id))["stopped"] is True
        assert len(asked) == 1
    threads.close()


async def ended(desk: Desk, customer: object) -> str:
    grant = await desk.admit(await desk.ask(customer))  # type: ignore[arg-type]
    await desk.settle_durably(grant)
    return grant.ask.request_id


async def test_an_answer_that_has_ended_says_how_and_others_ids_are_not_found(
    engine: Engine, clock: MovableClock
) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    threads = DatabaseThreads()
    async with running_desk(engine, clock) as desk:
        action = stop_action(engine, threads, clock, elsewhere)
        mine, his = await ended(desk, alice), await ended(desk, bob)
        key = await desk.gate.key(alice.secret)
        assert await answer(action, key, mine) == {"id": mine, "stopped": False, "outcome": "complete"}
        clock.move(2 * 24 * 3_600)  # so old that no other worker is asked
        for unknown in (his, "gen-" + "0" * 32, "gen-1", ""):
            with pytest.raises(GenerationNotFound):
                await answer(action, key, unknown)
    threads.close()
