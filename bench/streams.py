"""Paced streams: a fixed number at once, begun one after another so that chunks do not bunch."""

import asyncio
import gc
import time
from functools import partial

from bench.client import Caller, connect_many
from bench.modes import Mode, mode_of
from bench.prompts import Target, request
from bench.timer import FineTimer
from bench.windows import Meter, Window

FIRST_TOKEN_TIMEOUT_S = 20.0
WARM_S = 0.3
SPREAD_NS_MAX = 1_000_000_000
OPENING_NS = 1_000_000
"""At most a thousand streams begin in a second: what is measured is running streams, not a rush of new ones."""
STALL_GAPS = 10
"""A gap longer than this many times the pacing is a stall."""


class PacedStreams:
    """`count` streams of one mode against one target."""

    def __init__(self, target: Target, mode: str, *, count: int) -> None:
        self._target = target
        self._mode: Mode = mode_of(mode)
        self._count = count
        self._request = request(target, mode)
        self.window = Window(target.name, mode, count)
        self._callers: list[Caller] = []
        self._last: dict[Caller, tuple[int, int]] = {}
        self._opened = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended_count = 0
        self._counting = True

    async def open(self, timer: FineTimer) -> None:
        """Connect, start the streams one after another, and wait until each has its first token."""
        self._callers = await connect_many(self._target, self._count, self._on_done)
        spread_ns = max(min(self._mode.gap_us * 1_000, SPREAD_NS_MAX), self._count * OPENING_NS)
        start_ns = time.monotonic_ns() + 1_000_000
        for index, caller in enumerate(self._callers):
            caller.on_token = self._on_token
            timer.at(start_ns + index * spread_ns // self._count, partial(self._begin, caller))
        async with asyncio.timeout(FIRST_TOKEN_TIMEOUT_S):
            await self._opened.wait()

    async def count_for(self, seconds: float) -> Window:
        """The chunks of a stretch in which all streams run and none begins or ends."""
        self.window = window = Window(self._target.name, self._mode.name, self._count)
        self._last.clear()
        gc.collect()
        gc.disable()
        meter = Meter(self._target)
        started_ns = time.monotonic_ns()
        await asyncio.sleep(seconds)
        meter.stop(window)
        window.elapsed_ns = time.monotonic_ns() - started_ns
        gc.enable()
        if self._ended_count:
            window.failures["a stream ended inside the window"] += self._ended_count
        for caller in self._callers:
            if caller.failure:
                window.failures[caller.failure] += 1
        return window

    async def finish(self, timeout_s: float) -> Window:
        """Wait until every stream has ended by itself."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            self.window.failures["a stream did not end in time"] += self._count - self._ended_count
        return self.window

    def close(self) -> None:
        """Close all connections, running streams included."""
        for caller in self._callers:
            caller.close()

    def _begin(self, caller: Caller, due_ns: int) -> None:
        self.window.lateness.record(time.monotonic_ns() - due_ns)
        caller.ask(self._request)

    def _on_token(self, caller: Caller, number: int, sent_ns: int, read_ns: int) -> None:
        window = self.window
        window.units += 1
        last = self._last.get(caller)
        if last is not None:
            if self._opened.is_set():
                window.gap.record(read_ns - last[1])
                window.transit.record(read_ns - sent_ns)
        elif len(self._last) + 1 == self._count:
            self._opened.set()
        self._last[caller] = (sent_ns, read_ns)

    def _on_done(self, caller: Caller) -> None:
        self._ended_count += 1
        if caller.failure:
            self.window.failures[caller.failure] += 1
        else:
            self.window.bodies.add(caller.body())
            if caller.first_ns:
                self.window.ttft.record(caller.first_ns - caller.sent_ns)
        if self._ended_count == self._count:
            self._opened.set()
            self._ended.set()


async def chunk_window(target: Target, mode: str, *, count: int, seconds: float) -> Window:
    """CPU time and delays per relayed chunk while `count` streams run; the streams are then given up."""
    timer = FineTimer(asyncio.get_running_loop())
    streams = PacedStreams(target, mode, count=count)
    try:
        await streams.open(timer)
        await asyncio.sleep(WARM_S)
        return await streams.count_for(seconds)
    finally:
        streams.close()
        timer.close()


async def whole_streams(target: Target, mode: str, *, count: int) -> Window:
    """`count` streams over their whole life, bodies kept for the proof; gaps and delays once all of them run."""
    parsed = mode_of(mode)
    timer = FineTimer(asyncio.get_running_loop())
    streams = PacedStreams(target, mode, count=count)
    gc.collect()
    gc.disable()
    started_ns = time.monotonic_ns()
    try:
        await streams.open(timer)
        window = await streams.finish(10.0 + 3 * parsed.chunks * parsed.gap_us / 1e6)
    finally:
        gc.enable()
        streams.close()
        timer.close()
    window.elapsed_ns = time.monotonic_ns() - started_ns
    return window
