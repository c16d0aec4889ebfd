"""Closed loop: each connection sends its next request when the last answer is complete.

Right for CPU per request, for ceilings and for latency at one client; wrong for latency under load, because
it slows down with the target (use openloop.py there).
"""

import asyncio
import gc
import time

from bench.client import Caller, connect, connect_many
from bench.prompts import PROMPT_BYTES, Target, request
from bench.windows import Meter, Window

DRAIN_TIMEOUT_S = 30.0
FAILURES_MAX = 20


class ClosedLoop:
    """Connections that are kept over many windows, so that rounds against several targets can interleave."""

    def __init__(self, target: Target, mode: str, *, connections: int, prompt_bytes: int = PROMPT_BYTES) -> None:
        self._target = target
        self._mode = mode
        self._connections = connections
        self._request = request(target, mode, prompt_bytes=prompt_bytes)
        self._callers: list[Caller] = []
        self._dials: set[asyncio.Task[None]] = set()
        self._new_window()

    def _new_window(self) -> None:
        self._window = Window(self._target.name, self._mode, self._connections)
        self._idle = asyncio.Event()
        self._under_way = 0
        self._left = 0
        self._until_ns = 0

    async def open(self) -> None:
        """Connect."""
        self._callers = await connect_many(self._target, self._connections, self._on_done)

    def close(self) -> None:
        """Close all connections."""
        for caller in self._callers:
            caller.close()

    async def run(self, *, seconds: float, requests_max: int = 10_000_000, settled: bool = False) -> Window:
        """One window: until the time is over or the requests are used up, and all answers are in."""
        self._new_window()
        window = self._window
        gc.collect()
        gc.disable()
        meter = Meter(self._target)
        started_ns = time.monotonic_ns()
        self._until_ns = started_ns + int(seconds * 1e9)
        self._left = requests_max
        try:
            for caller in list(self._callers):
                self._next(caller)
            async with asyncio.timeout(seconds + DRAIN_TIMEOUT_S):
                await self._idle.wait()
        except TimeoutError:
            window.failures["no answer in time"] += 1
        finally:
            gc.enable()
        window.elapsed_ns = time.monotonic_ns() - started_ns
        if settled:
            await meter.stop_settled(window)
        else:
            meter.stop(window)
        return window

    def _next(self, caller: Caller) -> None:
        if self._left <= 0:
            if not self._under_way:
                self._idle.set()
            return
        self._left -= 1
        self._under_way += 1
        caller.ask(self._request)

    def _on_done(self, caller: Caller) -> None:
        window = self._window
        self._under_way -= 1
        if caller.failure:
            window.failures[caller.failure] += 1
            if window.failures.total() >= FAILURES_MAX:
                self._left = 0
        else:
            window.units += 1
            window.latency.record(caller.ended_ns - caller.sent_ns)
            if caller.first_ns:
                window.ttft.record(caller.first_ns - caller.sent_ns)
            window.bodies.add(caller.body())
        if caller.read_ns >= self._until_ns:
            self._left = 0
        if caller.closed:
            self._replace(caller)
        else:
            self._next(caller)

    def _replace(self, caller: Caller) -> None:
        # A target may close a connection after an answer; that is no failure, and its cost stays in the window.
        self._callers.remove(caller)
        if self._left <= 0:
            self._next(caller)
        dial = asyncio.get_running_loop().create_task(self._redial())
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _redial(self) -> None:
        try:
            caller = await connect(self._target, self._on_done)
        except OSError:
            self._window.failures["connection refused"] += 1
            self._left = 0
            if not self._under_way:
                self._idle.set()
            return
        self._callers.append(caller)
        self._next(caller)


async def closed_loop(
    target: Target,
    mode: str,
    *,
    connections: int,
    seconds: float,
    warm_s: float = 0.3,
    prompt_bytes: int = PROMPT_BYTES,
    requests_max: int = 10_000_000,
) -> Window:
    """Warm up, then measure one window with settled CPU time; not yet accepted."""
    loop = ClosedLoop(target, mode, connections=connections, prompt_bytes=prompt_bytes)
    await loop.open()
    try:
        warm = await loop.run(seconds=warm_s)
        if warm.failures:
            return warm
        return await loop.run(seconds=seconds, requests_max=requests_max, settled=True)
    finally:
        loop.close()
