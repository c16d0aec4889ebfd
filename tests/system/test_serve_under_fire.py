"""A serving process while things go wrong around it: locks, revocations, empty wallets, rude clients."""

import asyncio
import contextlib
import json
import random
import sqlite3
from decimal import Decimal

from tests.fakes.upstream import STREAM_HEAD, Close, Gate, Received, Reset, Script, Send, Stall, WaitFor, cut
from tests.http.rig import Answer, post
from tests.system.program import Program
from tests.system.served import COST, UNLOCKED, Served, chat, cost_of, ending, event, http_chunks, served, well

QUICK_DEATH = "[admission]\nheartbeat_s = 0.2\nheartbeat_dead_s = 1\nlease_idle_s = 0.5\n"
WITH_USAGE = {"include_usage": True}


def held_back(gate: Gate, **usage: int) -> Script:
    """A stream whose end waits for the gate."""
    start = Send(STREAM_HEAD + http_chunks(event("first")))
    return [start, WaitFor(gate), Send(http_chunks(event("last"), *ending(**usage), b""))]


def wish(request: Received) -> str:
    """What a test asks of the provider, in the field `user`."""
    return str(json.loads(request.body).get("user", ""))


async def test_a_locked_database_refuses_nobody_as_unauthorised_or_poor(program: Program) -> None:
    gate = Gate()

    def provider(request: Received) -> Script:
        return held_back(gate) if wish(request) == "held" else well(request)

    async with served(program, provider, more="[admission]\nheartbeat_s = 1\n") as one:
        poor = one.customer("0.4")
        assert (await one.ask()).status == 200
        running = await one.begin(b"first", user="held", stream_options=WITH_USAGE)
        with sqlite3.connect(one.database, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            refused = await one.ask(key=poor)
            gate.open()
            warm = asyncio.create_task(one.ask())
            reading = await one.credits()
            assert (refused.status, refused.code) == (503, "store_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
            assert not warm.done(), "its charge is not durable yet"
            assert reading["used"] == COST
            await one.until_ready(503)
            other.execute("COMMIT")
        ended = await running.receive()
        assert ended.complete
        assert ended.events()[-1] == "[DONE]"
        assert cost_of(ended) == COST
        assert (await warm).status == 200
        assert (await one.ask(key=poor)).status == 200
        await one.until_ready(200)
        assert one.books_are_right()


async def test_a_revoked_key_is_refused_within_a_second_and_its_running_stream_ends_well(program: Program) -> None:
    gate = Gate()

    def provider(request: Received) -> Script:
        return held_back(gate) if wish(request) == "held" else well(request)

    async with served(program, provider) as one:
        running = await one.begin(b"first", user="held", stream_options=WITH_USAGE)
        key_id = json.loads((await one.get("/v1/key")).body)["data"]["hash"]
        assert one.program.run("key", "revoke", key_id).code == 0
        async with asyncio.timeout(1.5):
            while (refused := await one.ask()).status != 401:
                assert refused.status == 200
        assert refused.code == "invalid_api_key"
        gate.open()
        ended = await running.receive()
        assert ended.events()[-1] == "[DONE]"
        assert cost_of(ended) == COST


async def test_a_wallet_pays_for_just_as_many_streams_as_it_covers(program: Program) -> None:
    """Eight streams hold 0.1 USD and a little each, of 0.45 USD: four run, four are told what is missing."""
    gate = Gate()
    async with served(program, lambda _: held_back(gate, completion_tokens=50_000, total_tokens=50_030)) as one:
        key = one.customer("0.45")
        wants = chat(stream=True, max_tokens=50_000, stream_options=WITH_USAGE)
        clients = [await one.connect() for _ in range(8)]
        for client in clients:
            client.send(post(wants, key=key.encode()))
        answers = [asyncio.create_task(client.receive()) for client in clients]
        refused: list[Answer] = []
        async with asyncio.timeout(20):
            while len(refused) < 4:
                await asyncio.sleep(0.01)
                refused = [one_answer.result() for one_answer in answers if one_answer.done()]
        gate.open()
        ended = await asyncio.gather(*answers)
        for got in refused:
            assert (got.status, got.code) == (402, "insufficient_balance")
            told = got.json()["error"]["metadata"]
            assert told["limit"] == "account"
            assert Decimal(told["available_usd"]) < Decimal(told["needed_usd"])
        paid = [cost_of(got) for got in ended if got.status == 200]
        assert paid == ["0.10003"] * 4
        found = await one.until_nothing_is_held(key=key)
        assert (found["used"], found["balance"]) == ("0.40012", "0.04988")
        assert one.books_are_right()


FAULTS = ("", "", "cut", "reset", "stall", "silent")
MANNERS = ("stays", "stays", "leaves", "tears", "resets")
RUDE_CLIENTS = 8
RUDE_REQUESTS = 12


async def behave(one: Served, draws: random.Random) -> None:
    """One client that does all that clients should not do."""
    for _ in range(RUDE_REQUESTS):
        body = chat(stream=draws.random() < 0.7, user=draws.choice(FAULTS))
        request = post(body, key=one.key.encode())
        manner = draws.choice(MANNERS)
        client = await one.connect()
        if manner == "tears":
            client.send(request[: draws.randrange(1, len(request))])
        else:
            client.send(request)
        with contextlib.suppress(ConnectionError, TimeoutError):
            if manner == "stays":
                got = await client.receive()
                assert got.complete
                assert got.status in (200, 502, 503, 504)
            elif manner != "tears":
                async with asyncio.timeout(draws.random() / 5):
                    await client.reader.read(draws.randrange(1, 2_000))
        if manner == "resets":
            client.reset()
        else:
            client.close()


async def test_rude_clients_and_a_failing_provider_leave_nothing_behind(program: Program) -> None:
    draws, outside = random.Random(7), random.Random(8)

    def provider(request: Received) -> Script:
        good = well(request)
        length = sum(len(step.data) for step in good if isinstance(step, Send))
        match wish(request):
            case "cut":
                return cut(good, outside.randrange(length), Close())
            case "reset":
                return cut(good, outside.randrange(length), Reset())
            case "stall":
                return cut(good, outside.randrange(length), Stall())
            case "silent":
                return [Stall()]
        return good

    timeouts = "timeouts = { connect_s = 1, head_s = 1, idle_s = 1 }"
    quick = "[upstream]\nbackoff_s = 0.01\nbackoff_max_s = 0.02\ncooldown_s = 0.01\ncooldown_max_s = 0.02\n"
    async with served(program, provider, acme=timeouts, more=UNLOCKED + quick + QUICK_DEATH) as one:
        at_first = one.sockets()
        await asyncio.gather(*(behave(one, draws) for _ in range(RUDE_CLIENTS)))
        found = await one.until_nothing_is_held()
        assert Decimal(found["balance"]) + Decimal(found["used"]) == 10
        async with asyncio.timeout(20):
            # Some to the provider may stay warm.
            while one.sockets() > at_first + one.upstream.open_connections:
                await asyncio.sleep(0.05)
        assert (await one.ask()).status == 200
        assert one.books_are_right()
        assert one.running is not None
        assert await one.running.stop() == 0
        assert "crashed" not in one.running.errors
        assert "uncaught" not in one.running.errors


async def test_a_stop_lets_streams_end_and_tells_the_others(program: Program) -> None:
    gate = Gate()

    def provider(request: Received) -> Script:
        user = wish(request)
        if user == "ends":
            return held_back(gate)
        return [Stall()] if user == "silent" else [Send(STREAM_HEAD + http_chunks(event("first"))), Stall()]

    async with served(program, provider) as one:
        ends = await one.begin(b"first", user="ends", stream_options=WITH_USAGE)
        goes_on = await one.begin(b"first", user="goes on")
        waits = await one.connect()
        waits.send(post(chat(user="silent"), key=one.key.encode()))
        async with asyncio.timeout(10):
            while len(one.upstream.requests) < 3:
                await asyncio.sleep(0.01)
        assert one.running is not None
        stopping = asyncio.create_task(one.running.stop())
        gate.open()
        ended = await ends.receive()
        assert (ended.events()[-1], cost_of(ended)) == ("[DONE]", COST)
        broken = await goes_on.receive()
        assert broken.events()[-2]["error"]["code"] == "shutting_down"
        assert broken.events()[-2]["choices"][0]["finish_reason"] == "error"
        refused = await waits.receive()
        assert (refused.status, refused.code) == (503, "shutting_down")
        assert await stopping == 0
        with sqlite3.connect(one.database) as database:
            rows = database.execute("SELECT outcome, cost_nusd FROM usage ORDER BY outcome").fetchall()
            leases = database.execute("SELECT count(*) FROM leases").fetchone()
        assert rows == [("complete", 50_000), ("shutdown", 0), ("shutdown", 0)]
        assert leases == (0,)
