"""Serving: what a start and a stop do, in which order and within which time."""

import asyncio
import io
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dragonfly.app.serve import AddressUnusable, Served, Step, bind, serve, stop_in_steps
from dragonfly.core.clock import SystemClock
from dragonfly.infra.logging import EventLog
from dragonfly.settings import ServerSettings

REQUEST = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"


class House:
    """Something to serve that writes down what happens to it."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.stream = io.BytesIO()
        self.log = EventLog(self.stream, SystemClock(), strict=True)
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.bound = bind("127.0.0.1", 0)
        self.address = self.bound.getsockname()
        self.started = asyncio.Event()
        self.draining = asyncio.Event()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.set()
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def step(self, name: str, doing: Callable[[], Awaitable[object]] | None = None) -> Step:
        async def run() -> None:
            self.happened.append(name)
            if doing is not None:
                await doing()

        return Step(name, run)

    def start(self, *, shutdown_s: float = 5.0, **steps: tuple[Step, ...]) -> "asyncio.Task[None]":
        served = Served(
            app=self.app,
            protocol=HttpToolsProtocol,
            starts=steps.get("starts", (self.step("start"),)),
            stops=steps.get("stops", (self.step("stop"),)),
            draining=self._drain,
        )
        settings = ServerSettings(shutdown_s=shutdown_s)
        return asyncio.create_task(serve(served, self.bound, settings, self.log, self.started.set))

    def _drain(self) -> None:
        self.happened.append("draining")
        self.draining.set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.stream.getvalue().splitlines()]


@pytest.fixture
async def house() -> House:
    return House()


def stop(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_running_answer_finish_and_then_stops_in_order(
    house: House, number: signal.Signals
) -> None:
    house.may_answer.clear()
    serving = house.start(stops=(house.step("first"), house.step("second")))
    async with asyncio.timeout(60):
        await house.started.wait()
        reader, writer = await house.connect()
        writer.write(REQUEST)
        await house.asked.wait()
        stop(number)
        await house.draining.wait()
        assert not serving.done()
        house.may_answer.set()
        assert (await reader.read()).endswith(b"ok")
        await serving
        writer.close()
    assert house.happened == ["start", "draining", "first", "second"]
    assert house.events == ["started", "stopping", "stopped"]


async def test_an_answer_that_does_not_end_holds_up_the_stop_for_its_bound_only(house: House) -> None:
    house.may_answer.clear()
    serving = house.start(shutdown_s=0.3)
    async with asyncio.timeout(60):
        await house.started.wait()
        _, writer = await house.connect()
        writer.write(REQUEST)
        await house.asked.wait()
        stop()
        await serving
        writer.close()
    assert house.happened == ["start", "draining", "stop"]


async def test_nothing_listens_any_more_after_the_stop(house: House) -> None:
    serving = house.start()
    async with asyncio.timeout(60):
        await house.started.wait()
        stop()
        await serving
    with pytest.raises(ConnectionRefusedError):
        await house.connect()


async def test_what_was_started_is_stopped_when_a_later_start_fails(house: House) -> None:
    async def failing() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await house.start(starts=(house.step("one"), house.step("two", failing)))
    assert house.happened == ["one", "two", "stop"]
    assert not house.started.is_set()
    house.bound.close()


async def test_a_step_that_fails_or_hangs_does_not_keep_the_next_from_happening(house: House) -> None:
    async def failing() -> None:
        raise ValueError("CANARY8f2e")

    async def hanging() -> None:
        await asyncio.Event().wait()

    steps = (house.step("fails", failing), house.step("hangs", hanging)._replace(s_max=0.05), house.step("last"))
    await stop_in_steps(steps, house.log)
    assert house.happened == ["fails", "hangs", "last"]
    lines = [json.loads(line) for line in house.stream.getvalue().splitlines()]
    assert [(line["step"], line["exceptions"]) for line in lines] == [
        ("fails", ["builtins.ValueError"]),
        ("hangs", ["builtins.TimeoutError", "asyncio.exceptions.CancelledError"]),
    ]
    assert b"CANARY8f2e" not in house.stream.getvalue()
    house.bound.close()


def test_a_port_in_use_is_told_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnusable, match=f"Port {port} is in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", ""])
def test_an_address_of_another_machine_is_told_in_a_sentence(host: str) -> None:
    with pytest.raises(AddressUnusable, match=r"^server\.host: "):
        bind(host, 0)
