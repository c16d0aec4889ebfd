"""Memory per open stream: the slope of proportional set size over the number of streams that are held open."""

import asyncio
import resource

from bench.client import Caller, connect_many
from bench.modes import STREAM_BULK, STREAM_HELD
from bench.plan import Plan
from bench.processes import kernel_bytes, pss_bytes
from bench.prompts import Target, request
from bench.rows import Row, refused, row
from bench.windows import Refused

SPARE_DESCRIPTORS = 600
OPEN_TIMEOUT_S = 120.0
BURST = 100
QUIET_S = 1.0
RELEASE_S = 3.0


class _Held:
    """Streams that have had their first chunk and wait for the next."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._request = request(target, STREAM_HELD)
        self.callers: list[Caller] = []
        self._waiting = 0
        self._all_first = asyncio.Event()
        self.failure = ""

    async def grow_to(self, count: int) -> None:
        """Open more streams until `count` are open, a burst at a time, each awaited to its first chunk."""
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            while len(self.callers) < count:
                await self._open(min(BURST, count - len(self.callers)))

    async def _open(self, count: int) -> None:
        fresh = await connect_many(self._target, count, self._on_done)
        self.callers += fresh
        self._waiting = count
        self._all_first.clear()
        for caller in fresh:
            caller.on_token = self._on_token
            caller.ask(self._request)
        await self._all_first.wait()
        if self.failure:
            raise Refused(self.failure)

    def _on_token(self, caller: Caller, number: int, sent_ns: int, read_ns: int) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._all_first.set()

    def _on_done(self, caller: Caller) -> None:
        self.failure = caller.failure or "a held stream ended"
        self._all_first.set()

    def close(self) -> None:
        for caller in self.callers:
            caller.close()


def levels_within_limits(levels: tuple[int, ...]) -> tuple[int, ...]:
    """The levels, the last ones lowered to what the limit of open files affords (two per stream in the gateway)."""
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS) // 2
    return tuple(sorted({min(level, most) for level in levels}))


def slope(points: list[tuple[int, float]]) -> float:
    """Least-squares slope of value over count."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


async def memory_rows(target: Target, plan: Plan) -> list[Row]:
    """Rows `memory_stream`, `kernel_stream` (KiB per stream), `memory_released` (share given back to the system after
    all have closed) and `memory_leaked` (KiB per stream that as many streams take more the second time)."""
    held, again = _Held(target), _Held(target)
    user: list[tuple[int, float]] = []
    kernel: list[tuple[int, float]] = []
    levels = levels_within_limits(plan.memory_levels)
    try:
        for level in levels:
            await held.grow_to(level)
            await asyncio.sleep(QUIET_S)
            user.append((level, pss_bytes(target.pid) / 1024))
            kernel.append((level, kernel_bytes() / 1024))
        if held.failure or any(caller.closed for caller in held.callers):
            raise Refused(held.failure or "a held stream was dropped")
    except (Refused, OSError, TimeoutError) as error:
        return [refused(target.name, "memory_stream", "KiB", error or "streams did not open in time")]
    finally:
        held.close()
    await asyncio.sleep(RELEASE_S)
    grown = user[-1][1] - user[0][1]
    left = pss_bytes(target.pid) / 1024 - user[0][1]
    level, first_kib = user[len(user) // 2]
    try:
        await again.grow_to(level)
        await asyncio.sleep(QUIET_S)
        second_kib = pss_bytes(target.pid) / 1024
    except (Refused, OSError, TimeoutError) as error:
        return [refused(target.name, "memory_stream", "KiB", str(error) or "streams did not open a second time")]
    finally:
        again.close()
    notes: dict[str, float | str] = {f"pss_kib_{level}": value for level, value in user}
    return [
        row(target.name, "memory_stream", "KiB", [slope(user)], notes | {"streams": float(levels[-1])}),
        row(target.name, "kernel_stream", "KiB", [slope(kernel)], {"meaning": "both ends of both connections"}),
        row(target.name, "memory_released", "share", [1 - left / grown if grown > 0 else 1.0]),
        row(target.name, "memory_leaked", "KiB", [max(0.0, second_kib - max(first_kib, left + user[0][1])) / level]),
    ]


async def stalled_rows(target: Target, plan: Plan) -> list[Row]:
    """Row `memory_stalled` (KiB): what each reader that stops reading in a 1.3 MB answer costs the gateway."""
    before = pss_bytes(target.pid)
    callers = await connect_many(target, plan.stalled_readers, lambda _: None)
    ask = request(target, STREAM_BULK)
    try:
        for caller in callers:
            caller.pause()
            caller.ask(ask)
        await asyncio.sleep(QUIET_S + RELEASE_S)
        grown = pss_bytes(target.pid) - before
    finally:
        for caller in callers:
            caller.close()
    await asyncio.sleep(QUIET_S)
    return [row(target.name, "memory_stalled", "KiB", [grown / 1024 / plan.stalled_readers])]
