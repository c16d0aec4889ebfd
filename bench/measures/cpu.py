"""CPU time per request and per relayed chunk, and the requests per second that one core affords."""

from bench.closed import ClosedLoop
from bench.modes import JSON_SMALL, STREAM_CHUNKS
from bench.openloop import constant_times, open_loop
from bench.plan import Plan
from bench.prompts import Target
from bench.rows import Row, paired, refused, row
from bench.streams import chunk_window
from bench.windows import Refused, Window

CONNECTIONS = (1, 32)
CALM_PER_S = 50.0
"""Requests per second that every gateway of the comparison can serve."""
CALM_CONNECTIONS = 4
STREAMS = (32, 100)
"""At one chunk every 20 ms: 1,600 and 5,000 chunks per second."""
FEW_STREAMS = 8
"""For gateways that cannot keep up with any of those."""
SATURATED = 0.95
CEILING_MARGIN = 2.0


async def request_rows(target: Target, floor: Target, plan: Plan, direct_rps: float) -> list[Row]:
    """CPU µs per small request at 1 and 32 connections, and the ceiling; in turns with windows of nginx (`floor`).

    `direct_rps` is the generator's own ceiling.
    """
    rows: list[Row] = []
    for connections in CONNECTIONS:
        measure = f"cpu_request_{connections}"
        try:
            windows, beside = await _request_windows(target, floor, plan, connections)
        except (Refused, OSError, TimeoutError) as error:
            rows.append(refused(target.name, measure, "µs", error))
            continue
        notes = _notes(windows) | {"rps": windows[-1].units_per_s()}
        rows.append(_row(target, measure, windows, beside, notes))
        if connections == CONNECTIONS[-1]:
            rows.append(_ceiling(target, windows, direct_rps))
    rows.append(await _calm_row(target, floor, plan))
    return rows


async def _calm_row(target: Target, floor: Target, plan: Plan) -> Row:
    """Row `cpu_request_calm`: at a rate that is the same for all, so that all find caches equally cold."""
    targets = [target] if target is floor else [target, floor]
    windows: list[list[Window]] = [[] for _ in targets]
    seconds = 2 * plan.window_s
    try:
        for _ in range(plan.windows):
            for one, taken in zip(targets, windows, strict=True):
                times = constant_times(CALM_PER_S, seconds)
                window = await open_loop(one, JSON_SMALL, times, seconds=seconds, connections=CALM_CONNECTIONS)
                taken.append(window.accept())
    except (Refused, OSError, TimeoutError) as error:
        return refused(target.name, "cpu_request_calm", "µs", error)
    return _row(target, "cpu_request_calm", windows[0], windows[-1], _notes(windows[0]))


async def direct_ceiling(direct: Target, plan: Plan) -> float:
    """Requests per second that generator and mock reach without anything between them."""
    windows, _ = await _request_windows(direct, direct, plan, CONNECTIONS[-1])
    return max(window.units_per_s() for window in windows)


async def _request_windows(
    target: Target, floor: Target, plan: Plan, connections: int
) -> tuple[list[Window], list[Window]]:
    """Windows of the target and, when it is another, of nginx right after each."""
    targets = [target] if target is floor else [target, floor]
    loops = [ClosedLoop(one, JSON_SMALL, connections=connections) for one in targets]
    windows: list[list[Window]] = [[] for _ in loops]
    try:
        for loop in loops:
            await loop.open()
            (await loop.run(seconds=plan.warm_s)).accept()
        for _ in range(plan.windows):
            for loop, taken in zip(loops, windows, strict=True):
                taken.append((await loop.run(seconds=plan.window_s, settled=True)).accept())
    finally:
        for loop in loops:
            loop.close()
    return windows[0], windows[-1]


def _row(
    target: Target, measure: str, windows: list[Window], beside: list[Window], notes: dict[str, float | str]
) -> Row:
    made = row(target.name, measure, "µs", [window.cpu_us_per_unit() for window in windows], notes)
    if beside is windows:  # nginx itself
        return made
    return paired(made, [window.cpu_us_per_unit() for window in beside])


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


async def chunk_rows(target: Target, floor: Target, plan: Plan) -> list[Row]:
    """CPU µs per relayed chunk at 1,600 and 5,000 chunks per second, and how long chunks were on their way."""
    rows: list[Row] = []
    counts = list(STREAMS)
    for count in counts:
        measure = f"cpu_chunk_{count * 50}"
        try:
            windows, beside = await _chunk_windows(target, floor, plan, count)
        except (Refused, OSError, TimeoutError) as error:
            rows.append(refused(target.name, measure, "µs", str(error) or "no first chunk in time"))
            if count == STREAMS[0]:
                counts[1:] = [FEW_STREAMS]
            continue
        if target.pid:
            rows.append(_row(target, measure, windows, beside, _notes(windows)))
        for percent in (50, 99):
            delays = [window.transit.percentile(percent) / 1e3 for window in windows]
            rows.append(row(target.name, f"chunk_delay_p{percent}_{count * 50}", "µs", delays))
    return rows


async def _chunk_windows(target: Target, floor: Target, plan: Plan, count: int) -> tuple[list[Window], list[Window]]:
    targets = [target] if target is floor else [target, floor]
    windows: list[list[Window]] = [[] for _ in targets]
    for _ in range(plan.chunk_windows):
        for one, taken in zip(targets, windows, strict=True):
            taken.append((await chunk_window(one, STREAM_CHUNKS, count=count, seconds=plan.window_s)).accept())
    return windows[0], windows[-1]


def _notes(windows: list[Window]) -> dict[str, float | str]:
    busy = max(window.busy_share() for window in windows)
    notes: dict[str, float | str] = {"user_share": windows[-1].user_share, "busy_share": busy}
    if busy > SATURATED:
        notes["saturated"] = "yes"
    return notes
