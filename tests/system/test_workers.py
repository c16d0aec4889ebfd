"""Several workers and several nodes on one PostgreSQL database: shared socket, deaths, stops, news about keys."""

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.upstream import STREAM_HEAD, Gate, Received, Script, Send, WaitFor
from tests.http.rig import Client, post
from tests.postgres import postgres_database
from tests.system.program import Program
from tests.system.served import COST, UNLOCKED, Served, chat, cost_of, ending, event, http_chunks, served, well

WITH_USAGE = {"include_usage": True}
PROMISED_S = 1.0


def workers_of(one: Served) -> list[int]:
    """Process ids of the workers, from the kernel."""
    children = Path(f"/proc/{one.process_id}/task/{one.process_id}/children").read_text()
    return [int(number) for number in children.split()]


def still_there(process_ids: list[int]) -> bool:
    return any(Path(f"/proc/{process_id}").exists() for process_id in process_ids)


def client_sockets(one: Served, process_id: int) -> int:
    """Connections that a worker has on the port of `one`."""
    inodes = set()
    for link in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{one.port:04X}") and row[3] == "01" and row[9] in inodes for row in rows)


async def until_replaced(one: Served, process_id: int) -> None:
    async with asyncio.timeout(20):
        while process_id in (now := workers_of(one)) or len(now) < one.workers:
            await asyncio.sleep(0.02)


async def ask_on(client: Client, one: Served) -> int:
    client.send(post(chat(), key=one.key.encode()))
    return (await client.receive()).status


def held_back(gate: Gate) -> Script:
    start = Send(STREAM_HEAD + http_chunks(event("first")))
    return [start, WaitFor(gate), Send(http_chunks(event("last"), *ending(), b""))]


async def test_workers_share_the_connections_evenly_and_stop_together(program: Program, postgresql_url: str) -> None:
    gate = Gate()

    def provider(request: Received) -> Script:
        return held_back(gate) if json.loads(request.body).get("user") == "held" else well(request)

    async with served(program, provider, url=postgresql_url, workers=3, more=UNLOCKED) as one:
        clients = [await one.connect() for _ in range(30)]
        assert [await ask_on(client, one) for client in clients] == [200] * 30
        pids = workers_of(one)
        counts = sorted(client_sockets(one, pid) for pid in pids)
        assert sum(counts) == 30
        assert counts[0] >= 3  # of ten; on a busy machine one may be late for its turn
        assert (await one.get("/healthz")).status == 200
        await one.until_ready(200)
        running = [await one.begin(b"first", user="held", stream_options=WITH_USAGE) for _ in range(6)]
        assert one.running is not None
        stopping = asyncio.create_task(one.running.stop())
        gate.open()
        for client in running:
            ended = await client.receive()
            assert (ended.events()[-1], cost_of(ended)) == ("[DONE]", COST)
        assert await stopping == 0
        assert not still_there(pids)
    lines = [json.loads(line) for line in one.running.errors.splitlines()]
    assert sorted(line["worker"] for line in lines if line["event"] == "stopped") == [0, 1, 2]
    assert {line["event"] for line in lines if line["level"] != "info"} == {"lockdown_incomplete"}
    assert one.books_are_right()


async def test_a_worker_that_is_killed_is_replaced_and_no_connection_is_refused(
    program: Program, postgresql_url: str
) -> None:
    async with served(program, url=postgresql_url, workers=2) as one:
        for victim in workers_of(one):
            os.kill(victim, signal.SIGKILL)
            # New connections wait at the socket, which is the supervisor's too.
            assert [(await one.ask()).status for _ in range(5)] == [200] * 5
            await until_replaced(one, victim)
        both = workers_of(one)
        for victim in both:
            os.kill(victim, signal.SIGKILL)
        assert (await one.ask()).status == 200
        for victim in both:
            await until_replaced(one, victim)
        assert one.running is not None
        assert await one.running.stop() == 0
    ended = [json.loads(line) for line in one.running.errors.splitlines() if "worker_ended" in line]
    assert {line["exit_status"] for line in ended} == {-signal.SIGKILL}
    assert len(ended) == 4
    assert one.books_are_right()


async def test_a_worker_that_is_asked_to_stop_finishes_its_answers_and_is_replaced(
    program: Program, postgresql_url: str
) -> None:
    gate = Gate()
    async with served(program, lambda _: held_back(gate), url=postgresql_url, workers=2) as one:
        running = [await one.begin(b"first", stream_options=WITH_USAGE) for _ in range(4)]
        asked = workers_of(one)
        for process_id in asked:
            os.kill(process_id, signal.SIGTERM)
        gate.open()
        for client in running:
            assert cost_of(await client.receive()) == COST
        for process_id in asked:
            await until_replaced(one, process_id)
        assert (await one.ask(chat(stream=True))).status == 200


async def test_workers_stop_in_order_when_their_supervisor_dies(program: Program, postgresql_url: str) -> None:
    gate = Gate()
    async with served(program, lambda _: held_back(gate), url=postgresql_url, workers=2) as one:
        running = await one.begin(b"first", stream_options=WITH_USAGE)
        pids = workers_of(one)
        os.kill(one.process_id, signal.SIGKILL)
        gate.open()
        assert cost_of(await running.receive()) == COST
        async with asyncio.timeout(20):
            while still_there(pids):
                await asyncio.sleep(0.02)
        assert one.books_are_right()


@pytest.mark.parametrize("given", ["option", "setting"])
def test_several_workers_on_sqlite_are_refused_with_a_sentence(program: Program, given: str) -> None:
    if given == "option":
        ended = program.run("serve", "--workers", "2")
    else:
        ended = program.run("serve", DRAGONFLY_SERVER__WORKERS="2")
    assert ended.code == 3
    assert ended.errors.startswith("server.workers: SQLite lets one process write at a time")
    assert "PostgreSQL" in ended.errors
    assert not (program.folder / "data").exists()


async def test_a_revoked_key_is_refused_within_a_second_by_every_worker_of_every_node(
    program: Program, postgresql_url: str
) -> None:
    async with served(program, url=postgresql_url, workers=2, more=UNLOCKED) as one, one.another_node() as other:
        clients = [(await node.connect(), node) for node in (one, other) for _ in range(6)]
        assert [await ask_on(*client) for client in clients] == [200] * 12
        for node in (one, other):
            assert [client_sockets(node, pid) > 0 for pid in workers_of(node)] == [True, True]
        key_id = json.loads((await one.get("/v1/key")).body)["data"]["hash"]
        assert one.program.run("key", "revoke", key_id).code == 0
        revoked_s = time.monotonic()
        left = list(clients)
        while left:
            began_s = time.monotonic()
            statuses = await asyncio.gather(*(ask_on(*client) for client in left))
            assert set(statuses) <= {200, 401}
            if began_s - revoked_s >= PROMISED_S:
                assert set(statuses) == {401}
            left = [client for client, status in zip(left, statuses, strict=True) if status == 200]
        assert time.monotonic() - revoked_s < 10 * PROMISED_S


async def test_an_installation_moves_from_sqlite_to_postgresql_and_goes_on(
    program: Program, postgresql_server_url: str
) -> None:
    with postgres_database(postgresql_server_url) as target:
        async with served(program) as one:
            assert (await one.ask()).status == 200
            source = f"sqlite:///{one.database}"
            refused = await asyncio.to_thread(one.program.run, "database", "copy", source, target)
            assert (refused.code, refused.output) == (1, "")
            assert "A gateway is running" in refused.errors
            assert one.running is not None
            assert await one.running.stop() == 0
            copied = one.program.run("database", "copy", source, target, "--json")
            assert (copied.code, copied.errors) == (0, "")
            rows = {table["name"]: table["rows"] for table in copied.json["tables"]}
            assert (rows["accounts"], rows["usage"], rows["workers"]) == (1, 1, 0)
            again = one.program.run("database", "copy", source, target)
            assert (again.code, again.errors[:24]) == (1, "The target is not empty.")
            settings = one.program.folder / "dragonfly.toml"
            moved = settings.read_text().replace("workers = 1", "workers = 2")
            settings.write_text(f'database_url = "{target}"\n{moved}')
            one.workers = 2
            async with one.start():
                assert (await one.ask()).status == 200
                assert (await one.credits())["used"] == "0.0001"
                assert one.books_are_right()


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("sqlite:///missing.db", "postgresql://localhost/x", "FROM is a file that does not exist."),
        ("data/dragonfly.db", "postgresql://localhost/x", "FROM needs sqlite:///"),
        ("sqlite:///data/dragonfly.db", "mysql://localhost/x", "TO needs sqlite:///"),
        ("sqlite:///data/dragonfly.db", "postgresql://nobody@127.0.0.1:1/none", "The database cannot be reached"),
    ],
)
def test_a_copy_of_what_is_not_there_is_refused_with_a_sentence(
    program: Program, source: str, target: str, said: str
) -> None:
    assert program.run("migrate").code == 0
    ended = program.run("database", "copy", source, target)
    assert ended.code in (1, 4)
    assert ended.errors.startswith(said)
    assert not (program.folder / "missing.db").exists()
