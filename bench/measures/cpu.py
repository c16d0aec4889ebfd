"""CPU time per request and per relayed chunk, and the requests per second that one core affords."""

import asyncio

from bench.closed import ClosedLoop
from bench.modes import JSON_SMALL, STREAM_CHUNKS
from bench.plan import Plan
from bench.prompts import Target
from bench.rows import Row, refused, row
from bench.streams import PacedStreams
from bench.timer import FineTimer
from bench.windows import Refused, Window

CONNECTIONS = (1, 32)
STREAMS = (32, 100)
"""At one chunk every 20 ms: 1,600 and 5,000 chunks per second."""
SATURATED = 0.95
CEILING_MARGIN = 2.0


async def request_rows(target: Target, plan: Plan, direct_rps: float) -> list[Row]:
    """CPU µs per small request at 1 and 32 connections, and the ceiling; `direct_rps` is the generator's own."""
    rows: list[Row] = []
    for connections in CONNECTIONS:
        measure = f"cpu_request_{connections}"
        try:
            windows = await _request_windows(target, plan, connections)
        except (Refused, OSError, TimeoutError) as error:
            rows.append(refused(target.name, measure, "µs", error))
            continue
        notes = _notes(windows) | {"rps": windows[-1].units_per_s()}
        rows.append(row(target.name, measure, "µs", [window.cpu_us_per_unit() for window in windows], notes))
        if connections == CONNECTIONS[-1]:
            rows.append(_ceiling(target, windows, direct_rps))
    return rows


async def direct_ceiling(direct: Target, plan: Plan) -> float:
    """Requests per second that generator and mock reach without anything between them."""
    windows = await _request_windows(direct, plan, CONNECTIONS[-1])
    return max(window.units_per_s() for window in windows)


async def _request_windows(target: Target, plan: Plan, connections: int) -> list[Window]:
    loop = ClosedLoop(target, JSON_SMALL, connections=connections)
    await loop.open()
    try:
        (await loop.run(seconds=plan.warm_s)).accept()
        return [(await loop.run(seconds=plan.window_s, settled=True)).accept() for _ in range(plan.windows)]
    finally:
        loop.close()


def _ceiling(target: Target, windows: list[Window], direct_rps: float) -> Row:
    rates = [window.units_per_s() for window in windows]
    afforded = 1e6 / min(window.cpu_us_per_unit() for window in windows)
    if max(rates) * CEILING_MARGIN > direct_rps:
        reason = (
            f"{max(rates):.0f} per second is within {CEILING_MARGIN:.0f} x of the generator's own"
            f" {direct_rps:.0f}; by its CPU time one core affords {afforded:.0f}"
        )
        return refused(target.name, "ceiling", "requests/s", reason)
    return row(target.name, "ceiling", "requests/s", rates, {"afforded_by_cpu_time": afforded})


async def chunk_rows(target: Target, plan: Plan) -> list[Row]:
    """CPU µs per relayed chunk at 1,600 and 5,000 chunks per second, and how long chunks were on their way."""
    rows: list[Row] = []
    for count in STREAMS:
        measure = f"cpu_chunk_{count * 50}"
        try:
            windows = await _chunk_windows(target, plan, count)
        except (Refused, OSError, TimeoutError) as error:
            rows.append(refused(target.name, measure, "µs", error or "no first chunk in time"))
            continue
        if target.pid:
            samples = [window.cpu_us_per_unit() for window in windows]
            rows.append(row(target.name, measure, "µs", samples, _notes(windows)))
        for percent in (50, 99):
            delays = [window.transit.percentile(percent) / 1e3 for window in windows]
            rows.append(row(target.name, f"chunk_delay_p{percent}_{count * 50}", "µs", delays))
    return rows


async def _chunk_windows(target: Target, plan: Plan, count: int) -> list[Window]:
    timer = FineTimer(asyncio.get_running_loop())
    streams = PacedStreams(target, STREAM_CHUNKS, count=count)
    try:
        await streams.open(timer)
        await asyncio.sleep(plan.warm_s)
        windows = [await streams.count_for(plan.window_s) for _ in range(plan.windows)]
    finally:
        streams.close()
        timer.close()
    for window in windows:
        window.accept()
    return windows


def _notes(windows: list[Window]) -> dict[str, float | str]:
    busy = max(window.busy_share() for window in windows)
    notes: dict[str, float | str] = {"user_share": windows[-1].user_share, "busy_share": busy}
    if busy > SATURATED:
        notes["saturated"] = "yes"
    return notes
