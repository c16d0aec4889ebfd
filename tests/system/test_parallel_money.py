"""Money for ten and two hundred who want it at once: on one worker, on several, on two nodes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from sqlalchemy import Engine, func, select

from dragonfly.infra.database import open_engine, read
from dragonfly.ledger.tables import wallets
from tests.fakes.upstream import Gate, Script, Send, WaitFor, answer
from tests.http.rig import Answer, post
from tests.system.program import Program
from tests.system.served import WAIT_S, Served, chat, cost_of, served, whole

REQUESTS = 200
AFFORDED = 10
PLACES = [("sqlite", 1, 1), ("postgresql", 1, 1), ("postgresql", 4, 1), ("postgresql", 2, 2)]


def held_back(gate: Gate) -> Script:
    (sent,) = answer(200, whole())
    assert isinstance(sent, Send)
    return [WaitFor(gate), sent]


def least_open(engine: Engine) -> int:
    """The smallest amount that any wallet has, once what is leased is taken off; in nano-USD."""
    with read(engine) as connection:
        least = func.min(wallets.c.balance_nusd - wallets.c.leased_nusd)
        return int(connection.execute(select(least)).scalar_one())


@contextlib.asynccontextmanager
async def watched(engine: Engine) -> AsyncIterator[list[int]]:
    """What a look from the side finds, again and again, until the end."""
    found: list[int] = []
    ended = asyncio.Event()

    async def watch() -> None:
        while not ended.is_set():
            found.append(await asyncio.to_thread(least_open, engine))

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        ended.set()
        await watching


async def needed_usd(one: Served, body: bytes) -> Decimal:
    """What must be there for one request: a customer with nearly nothing is told."""
    refused = await one.ask(body, key=one.customer("0.000000001"))
    assert refused.status == 402
    return Decimal(refused.json()["error"]["metadata"]["needed_usd"])


async def all_at_once(nodes: list[Served], body: bytes, key: str) -> list["asyncio.Task[Answer]"]:
    """Sends on connections that are open already; the answers to be."""
    clients = [await nodes[number % len(nodes)].connect() for number in range(REQUESTS)]
    for client in clients:
        client.send(post(body, key=key.encode()))
    return [asyncio.create_task(client.receive()) for client in clients]


@pytest.mark.parametrize(("database", "workers", "nodes"), PLACES)
async def test_two_hundred_at_once_on_money_for_ten_are_ten_answers(
    request: pytest.FixtureRequest, program: Program, database: str, workers: int, nodes: int
) -> None:
    url = request.getfixturevalue("postgresql_url") if database == "postgresql" else ""
    gate = Gate()
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(served(program, lambda _: held_back(gate), url=url, workers=workers))
        places = [one, *[await stack.enter_async_context(one.another_node()) for _ in range(nodes - 1)]]
        engine = open_engine(url or f"sqlite:///{one.database}")
        stack.callback(engine.dispose)
        body = chat(max_tokens=1_000)
        needed = await needed_usd(one, body)
        key = one.customer(str(AFFORDED * needed))
        async with watched(engine) as looks:
            answers = await all_at_once(places, body, key)
            async with asyncio.timeout(WAIT_S):
                while sum(one_answer.done() for one_answer in answers) < REQUESTS - AFFORDED:
                    await asyncio.sleep(0.01)
                while len(one.upstream.requests) < AFFORDED:
                    await asyncio.sleep(0.01)
            refused = [one_answer.result() for one_answer in answers if one_answer.done()]
            gate.open()
            ended = await asyncio.gather(*answers)
        assert {got.status for got in refused} == {402}
        for got in refused:
            told = got.json()["error"]["metadata"]
            assert Decimal(told["needed_usd"]) == needed
            assert 0 <= Decimal(told["available_usd"]) < needed
        paid = [Decimal(cost_of(got)) for got in ended if got.status == 200]
        assert len(paid) == AFFORDED == len(one.upstream.requests)
        found = await one.until_nothing_is_held(key=key)
        assert Decimal(found["used"]) == sum(paid)
        assert Decimal(found["balance"]) == AFFORDED * needed - sum(paid)
        assert len(looks) > 1
        assert min(looks) >= 0
        assert one.books_are_right()
