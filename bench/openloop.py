"""Open loop: requests leave at times fixed beforehand, however the target does; latency counts from those.

A request that finds no free connection waits for one, and the wait counts as latency (it is the target's
backlog). The generator's own delay is kept apart as lateness: a window whose lateness is not small beside
the effect that it shows is refused by its measure.
"""

import asyncio
import gc
import random
import time
from collections import deque
from collections.abc import Iterator

from bench.client import Caller, connect_many
from bench.prompts import PROMPT_BYTES, Target, request
from bench.timer import FineTimer
from bench.windows import Meter, Window

WAITING_MAX = 20_000
DRAIN_TIMEOUT_S = 10.0
LEAD_NS = 2_000_000


def constant_times(rate_per_s: float, seconds: float) -> Iterator[int]:
    """Offsets in nanoseconds of evenly spaced requests."""
    gap_ns = 1e9 / rate_per_s
    return (int(index * gap_ns) for index in range(int(rate_per_s * seconds)))


def poisson_times(rate_per_s: float, seconds: float, seed: int) -> Iterator[int]:
    """Offsets in nanoseconds of a Poisson process, the same for the same seed."""
    random_source = random.Random(seed)
    offset_s = random_source.expovariate(rate_per_s)
    while offset_s < seconds:
        yield int(offset_s * 1e9)
        offset_s += random_source.expovariate(rate_per_s)


class OpenLoop:
    """One window of requests at given times over a fixed number of connections."""

    def __init__(
        self, target: Target, mode: str, times: Iterator[int], *, connections: int, prompt_bytes: int
    ) -> None:
        self._target = target
        self._times = times
        self._connections = connections
        self._request = request(target, mode, prompt_bytes=prompt_bytes)
        self._window = Window(target.name, mode, connections)
        self._free: list[Caller] = []
        self._waiting: deque[int] = deque()
        self._under_way = 0
        self._start_ns = 0
        self._all_sent = False
        self._idle = asyncio.Event()

    async def run(self, seconds: float) -> Window:
        """Connect, send everything, wait for the rest."""
        callers = await connect_many(self._target, self._connections, self._on_done)
        self._free = list(callers)
        self._timer = FineTimer(asyncio.get_running_loop())
        gc.collect()
        gc.disable()
        meter = Meter(self._target)
        self._start_ns = time.monotonic_ns() + LEAD_NS
        self._schedule()
        try:
            async with asyncio.timeout(seconds + DRAIN_TIMEOUT_S):
                await self._idle.wait()
        except TimeoutError:
            self._window.failures["no answer in time"] += self._under_way + len(self._waiting)
        finally:
            gc.enable()
            self._timer.close()
        self._window.elapsed_ns = time.monotonic_ns() - self._start_ns
        await meter.stop_settled(self._window)
        for caller in callers:
            caller.close()
        return self._window

    def _schedule(self) -> None:
        offset_ns = next(self._times, None)
        if offset_ns is None:
            self._all_sent = True
            self._end_when_idle()
            return
        self._timer.at(self._start_ns + offset_ns, self._on_time)

    def _on_time(self, intended_ns: int) -> None:
        self._window.lateness.record(time.monotonic_ns() - intended_ns)
        if self._free:
            self._under_way += 1
            self._free.pop().ask(self._request, intended_ns)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(intended_ns)
        else:
            self._window.failures["the backlog grew over its bound"] += 1
        self._schedule()

    def _on_done(self, caller: Caller) -> None:
        self._under_way -= 1
        window = self._window
        if caller.failure or caller.closed:
            window.failures[caller.failure or "connection closed"] += 1
        else:
            window.units += 1
            window.latency.record(caller.ended_ns - caller.intended_ns)
            if caller.first_ns:
                window.ttft.record(caller.first_ns - caller.intended_ns)
            window.bodies.add(caller.body())
            if self._waiting:
                self._under_way += 1
                caller.ask(self._request, self._waiting.popleft())
            else:
                self._free.append(caller)
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self._all_sent and not self._under_way and not self._waiting:
            self._idle.set()


async def open_loop(
    target: Target,
    mode: str,
    times: Iterator[int],
    *,
    seconds: float,
    connections: int = 64,
    prompt_bytes: int = PROMPT_BYTES,
) -> Window:
    """Send at `times` (offsets in nanoseconds, ascending, all below `seconds`); not yet accepted."""
    loop = OpenLoop(target, mode, times, connections=connections, prompt_bytes=prompt_bytes)
    return await loop.run(seconds)
