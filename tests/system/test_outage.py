"""The database goes away under load and comes back: new requests are told to retry, running ones lose nothing.

It goes in two ways: it stops, so that everybody is refused, or it stands there and answers nothing. The full run is
`make kill-test`, with 30 seconds.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import func, select

from dragonfly.core.money import from_usd
from dragonfly.infra.database import open_engine, read
from dragonfly.usage.tables import usage
from tests.fakes.stalling import stalling_line
from tests.fakes.upstream import STREAM_HEAD, Gate, Received, Script, Send, WaitFor
from tests.http.rig import Answer, Client
from tests.postgres import PostgresServer, postgres_database
from tests.system.program import Program
from tests.system.served import COST, OUTAGE_S, Served, cost_of, ending, event, http_chunks, served, well

WITH_USAGE = {"include_usage": True}
Going = Callable[[PostgresServer], AbstractContextManager["Database"]]
ASKING = 4
RUNNING = 6
LATER_S = 30.0
"""Once the database is back, everything that waited is through within this time."""
QUICK_DEATH = "[admission]\nheartbeat_s = 0.2\nheartbeat_dead_s = 1\nlease_idle_s = 0.5\n"
"""After the outage, every worker has been silent for long enough to be taken for dead."""


@dataclass
class Asking:
    """Clients that go on asking through the outage."""

    one: Served
    answers: list[Answer] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)
    is_over: bool = False

    async def ask(self, key: str) -> None:
        while not self.is_over:
            got = await self.one.ask(key=key)
            assert got.complete
            if got.status == 200:
                self.answers.append(got)
            else:
                self.refusals[got.status] += 1
                assert got.code == "store_unavailable", got.body
                assert int(got.headers["retry-after"]) >= 1
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Database:
    """A database on a server of its own, and how to take it away and to bring it back."""

    url: str
    leave: Callable[[], None]
    come_back: Callable[[], None]


@contextlib.contextmanager
def that_stops(server: PostgresServer) -> Iterator[Database]:
    with postgres_database(server.url) as url:
        yield Database(url, server.stop, server.start)


@contextlib.contextmanager
def that_falls_silent(server: PostgresServer) -> Iterator[Database]:
    with postgres_database(server.url) as url, stalling_line(server.url) as line:
        yield Database(line.url(url), line.stall, line.resume)


def held_back(gate: Gate) -> Script:
    start = Send(STREAM_HEAD + http_chunks(event("first")))
    return [start, WaitFor(gate), Send(http_chunks(event("last"), *ending(), b""))]


async def read_until(client: Client, mark: bytes) -> None:
    async with asyncio.timeout(20):
        await client.receive_until(mark)


def stored(url: str) -> tuple[int, int]:
    """How many requests were settled, and what they cost."""
    engine = open_engine(url)
    with read(engine) as connection:
        count, cost = connection.execute(select(func.count(), func.sum(usage.c.cost_nusd)).select_from(usage)).one()
    engine.dispose()
    return int(count), int(cost)


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * OUTAGE_S)
@pytest.mark.parametrize(("going", "workers"), [(that_stops, 1), (that_stops, 2), (that_falls_silent, 2)])
async def test_an_outage_costs_nobody_an_answer_or_a_cent(
    program: Program, own_postgresql: PostgresServer, going: Going, workers: int
) -> None:
    gate = Gate()

    def provider(request: Received) -> Script:
        return held_back(gate) if json.loads(request.body).get("user") == "held" else well(request)

    with going(own_postgresql) as database:
        async with served(program, provider, url=database.url, workers=workers, more=QUICK_DEATH) as one:
            known, poor, unheard, late = one.key, one.customer("0.4"), one.customer(), one.customer()
            assert [(await one.ask(key=key)).status for key in (known, poor)] == [200, 200]
            running = [await one.begin(b"first", user="held", stream_options=WITH_USAGE) for _ in range(RUNNING)]
            load = Asking(one)
            async with asyncio.TaskGroup() as group:
                for key in (known, poor, unheard):
                    for _ in range(ASKING):
                        group.create_task(load.ask(key))
                database.leave()
                gone_s = time.monotonic()
                gate.open()
                for client in running:
                    await read_until(client, b"last")
                await one.until_ready(503)
                told = await one.ask(key=late)
                assert (told.status, told.code) == (503, "store_unavailable")
                assert int(told.headers["retry-after"]) >= 1
                while time.monotonic() - gone_s < OUTAGE_S:
                    await asyncio.sleep(0.05)
                database.come_back()
                async with asyncio.timeout(LATER_S):
                    ended = [await client.receive() for client in running]
                    await one.until_ready(200)
                    for key in (known, poor, unheard):
                        while (await one.ask(key=key)).status != 200:
                            await asyncio.sleep(0.05)
                load.is_over = True
            assert {cost_of(got) for got in (*ended, *load.answers)} == {COST}
            assert set(load.refusals) <= {503}
            for key in (known, poor, unheard):
                await one.until_nothing_is_held(key=key)
            count, cost = stored(database.url)
            assert count == 2 + RUNNING + len(load.answers) + 3
            assert cost == count * from_usd(COST)
            assert one.books_are_right()
