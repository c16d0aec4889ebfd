"""Limits of a key that is used on two nodes with two workers each: what they let through beyond the number."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.fakes.upstream import Gate, Received, Script
from tests.http.rig import Answer, Client, post
from tests.system.program import Program
from tests.system.served import USAGE, WAIT_S, Served, chat, served
from tests.system.test_parallel_money import held_back, needed_usd

OVERSHOOT = 1.05
PER_MINUTE = 100
TOKENS_PER_MINUTE = 4_000
OPEN_MAX = 20
QUICK_DEATH = "[admission]\nheartbeat_s = 0.2\nheartbeat_dead_s = 1\n"
CLIENTS = 12
MODERATE = 25


@contextlib.asynccontextmanager
async def two_nodes(program: Program, url: str, gate: Gate) -> AsyncIterator[list[Served]]:
    def provider(_: Received) -> Script:
        return held_back(gate)

    async with served(program, provider, url=url, workers=2) as one, one.another_node() as other:
        yield [one, other]


async def ask_in_turn(client: Client, key: str, count: int) -> list[Answer]:
    found = []
    for _ in range(count):
        client.send(post(chat(), key=key.encode()))
        found.append(await client.receive())
    return found


async def test_requests_per_minute_hold_over_all_workers(program: Program, postgresql_url: str) -> None:
    async with two_nodes(program, postgresql_url, Gate(is_open=True)) as nodes:
        key = nodes[0].another_key("--requests-per-minute", str(PER_MINUTE))
        clients = [await nodes[number % 2].connect() for number in range(CLIENTS)]
        began_s = time.monotonic()
        found = await asyncio.gather(*(ask_in_turn(client, key, MODERATE) for client in clients))
        passed_s = time.monotonic() - began_s
        answers = [got for some in found for got in some]
        statuses = Counter(got.status for got in answers)
        assert set(statuses) == {200, 429}
        refilled = PER_MINUTE * passed_s / 60
        assert statuses[200] <= OVERSHOOT * (PER_MINUTE + refilled) + 1
        assert statuses[200] >= 0.9 * PER_MINUTE
        refused = [got for got in answers if got.status == 429]
        assert all(int(got.headers["retry-after"]) >= 1 for got in refused)


async def test_tokens_per_minute_hold_over_all_workers(program: Program, postgresql_url: str) -> None:
    async with two_nodes(program, postgresql_url, Gate(is_open=True)) as nodes:
        key = nodes[0].another_key("--requests-per-minute", "0", "--tokens-per-minute", str(TOKENS_PER_MINUTE))
        clients = [await nodes[number % 2].connect() for number in range(CLIENTS)]
        began_s = time.monotonic()
        found = await asyncio.gather(*(ask_in_turn(client, key, MODERATE) for client in clients))
        passed_s = time.monotonic() - began_s
        statuses = Counter(got.status for some in found for got in some)
        assert set(statuses) == {200, 429}
        used = statuses[200] * USAGE["total_tokens"]
        refilled = TOKENS_PER_MINUTE * passed_s / 60
        assert used <= OVERSHOOT * (TOKENS_PER_MINUTE + refilled) + USAGE["total_tokens"]
        assert used >= 0.75 * TOKENS_PER_MINUTE, "what is taken ahead for a request is more than it uses"
        what = {got.json()["error"]["metadata"]["what"] for some in found for got in some if got.status == 429}
        assert what == {"tokens"}


async def test_a_node_that_comes_under_load_adds_nothing_to_a_limit(program: Program, postgresql_url: str) -> None:
    async with served(program, lambda _: held_back(Gate(is_open=True)), url=postgresql_url) as one:
        key = one.another_key("--requests-per-minute", str(PER_MINUTE))
        began_s = time.monotonic()
        clients = [await one.connect() for _ in range(4)]
        found = await asyncio.gather(*(ask_in_turn(client, key, PER_MINUTE // 4 - 5) for client in clients))
        async with one.another_node() as other:
            clients = [await node.connect() for node in (other, other, one, one)]
            found += await asyncio.gather(*(ask_in_turn(client, key, MODERATE) for client in clients))
        passed_s = time.monotonic() - began_s
        statuses = Counter(got.status for some in found for got in some)
        assert set(statuses) == {200, 429}
        assert statuses[200] <= OVERSHOOT * (PER_MINUTE + PER_MINUTE * passed_s / 60) + 1


async def test_the_places_of_a_node_that_was_killed_come_back(program: Program, postgresql_url: str) -> None:
    gate = Gate()
    async with (
        served(program, lambda _: held_back(gate), url=postgresql_url, more=QUICK_DEATH) as one,
        one.another_node() as other,
    ):
        key = one.another_key("--requests-per-minute", "0", "--concurrency", str(OPEN_MAX))
        for client in [await other.connect() for _ in range(OPEN_MAX)]:
            client.send(post(chat(), key=key.encode()))
        async with asyncio.timeout(WAIT_S):
            while len(one.upstream.requests) < OPEN_MAX:
                await asyncio.sleep(0.02)
        refused = await one.ask(key=key)
        assert (refused.status, refused.json()["error"]["metadata"]["what"]) == (429, "concurrency")
        await other.kill()
        gate.open()
        async with asyncio.timeout(WAIT_S):
            while {got.status for got in await asyncio.gather(*(one.ask(key=key) for _ in range(OPEN_MAX)))} != {200}:
                await asyncio.sleep(0.05)
        assert one.books_are_right()


async def test_requests_open_at_once_hold_over_all_workers(program: Program, postgresql_url: str) -> None:
    gate = Gate()
    async with two_nodes(program, postgresql_url, gate) as nodes:
        key = nodes[0].another_key("--requests-per-minute", "0", "--concurrency", str(OPEN_MAX))
        clients = [await nodes[number % 2].connect() for number in range(3 * OPEN_MAX)]
        asking = [asyncio.create_task(ask_in_turn(client, key, 1)) for client in clients]
        async with asyncio.timeout(WAIT_S):
            while sum(one.done() for one in asking) + len(nodes[0].upstream.requests) < len(asking):
                await asyncio.sleep(0.02)
        assert len(nodes[0].upstream.requests) <= OVERSHOOT * OPEN_MAX
        gate.open()
        statuses = Counter(got.status for some in await asyncio.gather(*asking) for got in some)
        assert set(statuses) == {200, 429}
        assert statuses[200] >= 0.9 * OPEN_MAX
        async with asyncio.timeout(WAIT_S):
            for node in nodes:
                while (await node.ask(key=key)).status != 200:
                    await asyncio.sleep(0.05)  # the other node's workers keep their places for a moment


@pytest.mark.parametrize("option", ["--limit", "--daily"])
async def test_what_a_key_may_spend_holds_over_all_workers_exactly(
    program: Program, postgresql_url: str, option: str
) -> None:
    gate = Gate()
    async with two_nodes(program, postgresql_url, gate) as nodes:
        body = chat(max_tokens=1_000)
        needed = await needed_usd(nodes[0], body)
        limit = 10 * needed
        key = nodes[0].another_key("--requests-per-minute", "0", option, str(limit))
        clients = [await nodes[number % 2].connect() for number in range(40)]
        for client in clients:
            client.send(post(body, key=key.encode()))
        answers = [asyncio.create_task(client.receive()) for client in clients]
        async with asyncio.timeout(WAIT_S):
            while sum(one.done() for one in answers) < 30:
                await asyncio.sleep(0.02)
        gate.open()
        got = await asyncio.gather(*answers)
        assert Counter(one.status for one in got) == {200: 10, 402: 30}
        told = {one.json()["error"]["metadata"]["limit"] for one in got if one.status == 402}
        assert told == {"key" if option == "--limit" else "key_daily"}
        spent = Decimal((await nodes[1].get("/v1/key", key=key)).json()["data"]["usage"])
        assert spent <= limit
        assert nodes[0].books_are_right()
