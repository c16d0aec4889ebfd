"""`dragonfly demo` as a stranger meets it: what it prints works, the balance falls by the cost, it stops cleanly."""

import asyncio
import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

import httpx
import openai
import pytest

from tests.system.program import Program, Running

LAST_LINE = "Stop with Ctrl-C"


@dataclass(frozen=True)
class Demo:
    """A running demo with what its banner says."""

    running: Running
    base_url: str
    key: str

    @property
    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.base_url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)


async def begun(running: Running) -> Demo:
    await running.until(LAST_LINE)
    found = re.search(r"export OPENAI_BASE_URL=(\S+) OPENAI_API_KEY=(sk-df-\w+)", running.output)
    assert found, running.output
    return Demo(running, found[1], found[2])


@pytest.fixture
async def demo(program: Program) -> AsyncIterator[Demo]:
    async with program.running("demo", PORT="0") as running:
        yield await begun(running)


async def stream(client: httpx.AsyncClient, model: str) -> list[str]:
    """The data of every event of one streamed answer."""
    body = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    data = []
    async with client.stream("POST", "/chat/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                data.append(line.removeprefix("data: "))
    return data


async def test_what_the_banner_says_works_and_the_balance_falls_by_the_cost(demo: Demo) -> None:
    assert demo.running.output.count(demo.key) == 1
    assert "simulated" in demo.running.output
    async with demo.client as client:
        root = demo.base_url.removesuffix("/v1")
        for path in ("/healthz", "/readyz"):
            assert (await client.get(root + path)).status_code == 200
        models = (await client.get("/models")).json()["data"]
        assert [model["id"] for model in models] == ["simulated/chat"]
        before = (await client.get("/credits")).json()["data"]
        events = await stream(client, models[0]["id"])
        assert events[-1] == "[DONE]"
        usage = json.loads(events[-2])["usage"]
        after = (await client.get("/credits")).json()["data"]
        known = (await client.get("/key")).json()["data"]
    assert Decimal(usage["cost"]) > 0
    assert (before["credited"], before["used"]) == ("5", "0")
    assert Decimal(before["balance"]) - Decimal(after["balance"]) == Decimal(usage["cost"])
    assert after["used"] == usage["cost"]
    assert known["usage"] == float(usage["cost"])


async def test_the_snippet_for_the_sdk_works(demo: Demo) -> None:
    async with openai.AsyncOpenAI(base_url=demo.base_url, api_key=demo.key, max_retries=0) as client:
        streamed = await client.chat.completions.create(
            model="simulated/chat",
            messages=[{"role": "user", "content": "Say hello."}],
            stream=True,
            stream_options={"include_usage": True},
        )
        text, cost = "", None
        async for chunk in streamed:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            cost = getattr(chunk.usage, "cost", cost)
    assert "simulated" in text.lower()
    assert cost is not None
    assert Decimal(cost) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_in_time_while_an_answer_runs_and_leaves_nothing(
    program: Program, number: signal.Signals
) -> None:
    temporary = program.folder / "tmp"
    temporary.mkdir()
    async with program.running("demo", PORT="0", TMPDIR=str(temporary)) as running:
        demo = await begun(running)
        assert list(temporary.iterdir())
        async with demo.client as client:
            asking = asyncio.create_task(stream(client, "simulated/chat"))
            await asyncio.wait([asking], timeout=0.5)
            assert await running.stop(number) == 0
            await asyncio.wait([asking])
            events = asking.result() if asking.exception() is None else []
    assert not list(temporary.iterdir())
    assert running.errors == ""
    assert not events or events[-1] == "[DONE]"


def test_a_port_in_use_is_told_in_a_sentence(program: Program) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = program.run("demo", PORT=str(port))
    assert ended.code == 1
    assert ended.errors == f"Port {port} is in use. Stop what listens there, or choose another port.\n"


def test_a_port_that_is_no_number_is_told_in_a_sentence(program: Program) -> None:
    ended = program.run("demo", PORT="eighty")
    assert (ended.code, ended.errors) == (1, "PORT: needs a whole number from 0 to 65535.\n")
