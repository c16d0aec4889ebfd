"""A gateway that dies by `kill -9` under load: no answer is lost, none charged twice, no money stays away.

On SQLite the only process dies and is started again, on PostgreSQL workers die and their supervisor replaces them.
The full run is `make kill-test`.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Engine, select

from dragonfly.core.money import from_usd
from dragonfly.infra.database import open_engine, read
from dragonfly.usage.tables import usage
from tests.http.rig import Client, post
from tests.system.program import Program
from tests.system.served import COST, WAIT_S, Served, chat, cost_of, served
from tests.system.test_workers import until_replaced, workers_of

KILLS = int(os.environ.get("KILLS", "10"))
SECONDS_PER_KILL = 8
STREAMING, WHOLE = 3, 3
ANSWERS_PER_KILL_MAX = 40
"""Before a kill; the number is random, so that kills meet every phase of a request."""
QUICK_DEATH = "[admission]\nheartbeat_s = 0.2\nheartbeat_dead_s = 1\nlease_idle_s = 0.5\nconcurrency_max = 0\n"
"""Killed once a second, no process lives to bury the one before: places for open requests would run out."""


@dataclass
class Load:
    """Clients that ask again and again, and what they got."""

    one: Served
    costs: dict[str, str] = field(default_factory=dict)
    """Of whole answers, by request id."""
    torn: int = 0
    """Requests that were on their way when their connection ended."""

    is_enough: bool = False

    def stop(self) -> None:
        """Each client asks no more once it has its answer."""
        self.is_enough = True

    async def ask_until_enough(self, *, stream: bool) -> None:
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        while not self.is_enough:
            with contextlib.suppress(ConnectionError):
                client = await self.one.connect()
                try:
                    await self._ask_until_torn(client, post(chat(**more), key=self.one.key.encode()))
                finally:
                    client.close()
            await asyncio.sleep(0.01)

    async def _ask_until_torn(self, client: Client, request: bytes) -> None:
        while not self.is_enough:
            client.send(request)
            got = None
            with contextlib.suppress(ConnectionError):
                got = await client.receive()
            if got is None or not got.complete:
                self.torn += 1
                return
            assert got.status == 200, got.body
            self.costs[got.headers["x-request-id"]] = cost_of(got)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.costs) < count:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def loading(one: Served) -> AsyncIterator[Load]:
    """Clients of both kinds, until the end."""
    load = Load(one)
    kinds = [True] * STREAMING + [False] * WHOLE
    async with asyncio.TaskGroup() as group:
        for stream in kinds:
            group.create_task(load.ask_until_enough(stream=stream))
        try:
            yield load
        finally:
            load.stop()


def stored_costs(engine: Engine) -> dict[str, tuple[str, int]]:
    """Outcome and cost of every request in the database."""
    with read(engine) as connection:
        rows = connection.execute(select(usage.c.request_id, usage.c.outcome, usage.c.cost_nusd))
        return {row.request_id: (row.outcome, row.cost_nusd) for row in rows}


async def check(one: Served, engine: Engine, load: Load) -> None:
    """Nothing is held for longer than the dead may be silent; each answer that was seen is charged, once."""
    found = await one.until_nothing_is_held()
    stored = stored_costs(engine)
    assert set(load.costs.values()) == {COST}
    assert {stored[request_id] for request_id in load.costs} == {("complete", from_usd(COST))}
    assert from_usd(found["used"]) == sum(cost for _, cost in stored.values())
    # What was charged and not seen whole: at most what was on its way on each connection that broke.
    assert len(stored) <= len(load.costs) + load.torn
    assert one.books_are_right()


@pytest.mark.slow
@pytest.mark.timeout(60 + KILLS * SECONDS_PER_KILL)
async def test_killed_processes_on_sqlite_lose_and_double_nothing(program: Program) -> None:
    draws = random.Random(KILLS)
    async with served(program, more=QUICK_DEATH) as one:
        engine = open_engine(f"sqlite:///{one.database}")
        async with contextlib.AsyncExitStack() as started, loading(one) as load:
            for _ in range(KILLS):
                await load.until(len(load.costs) + draws.randrange(1, ANSWERS_PER_KILL_MAX))
                await one.kill()
                assert one.books_are_right()
                await started.enter_async_context(one.start())
            await load.until(len(load.costs) + 1)
            load.stop()
            await check(one, engine, load)
        engine.dispose()


@pytest.mark.slow
@pytest.mark.timeout(60 + KILLS * SECONDS_PER_KILL)
async def test_killed_workers_on_postgresql_lose_and_double_nothing(program: Program, postgresql_url: str) -> None:
    draws = random.Random(KILLS)
    engine = open_engine(postgresql_url)
    async with served(program, url=postgresql_url, workers=2, more=QUICK_DEATH) as one, loading(one) as load:
        for _ in range(KILLS):
            await load.until(len(load.costs) + draws.randrange(1, ANSWERS_PER_KILL_MAX))
            victim = draws.choice(workers_of(one))
            os.kill(victim, signal.SIGKILL)
            await until_replaced(one, victim)
            assert one.books_are_right()
        await load.until(len(load.costs) + 1)
        load.stop()
        await check(one, engine, load)
    engine.dispose()
