"""Fairness: what small requests suffer beside one client with large prompts, and beside many streams."""

import asyncio

from bench.background import Order, background
from bench.modes import JSON_SMALL
from bench.openloop import constant_times, open_loop
from bench.plan import Plan
from bench.prompts import Target
from bench.rows import Row, refused, row
from bench.windows import Refused, Window

RATE_PER_S = 200.0
LARGE_BYTES = 1_000_000
LARGE_CONNECTIONS = 2
HUGE_BYTES = 10_000_000
STALL_WINDOWS = 3
STREAMS = 1_000
LEAD_S = 2.0
"""The background process starts, connects and opens its streams within this time."""


async def fairness_rows(target: Target, plan: Plan) -> list[Row]:
    """Rows `fairness_prompts` and `fairness_streams`: p99 of small requests in µs, with that of calm beside it; and
    `stall_prompt`."""
    rows: list[Row] = [await stall_row(target, plan)]
    seconds = plan.fairness_s
    orders = {
        "fairness_prompts": Order(target, seconds + LEAD_S, connections=LARGE_CONNECTIONS, prompt_bytes=LARGE_BYTES),
        "fairness_streams": Order(target, seconds + LEAD_S, streams=STREAMS),
    }
    try:
        calm = (await _small(target, seconds)).accept()
    except (Refused, OSError, TimeoutError) as error:
        return [refused(target.name, measure, "µs", error) for measure in orders]
    for measure, order in orders.items():
        try:
            with background(order) as process:
                await asyncio.sleep(LEAD_S)
                window = (await _small(target, seconds)).accept()
            if process.returncode:
                raise Refused("the load beside it did not end well")
        except (Refused, OSError, TimeoutError) as error:
            rows.append(refused(target.name, measure, "µs", error))
            continue
        notes: dict[str, float | str] = {
            "p50_us": window.latency.percentile(50) / 1e3,
            "highest_us": window.latency.highest / 1e3,
            "calm_p99_us": calm.latency.percentile(99) / 1e3,
            "lateness_p99_us": window.lateness.percentile(99) / 1e3,
        }
        rows.append(row(target.name, measure, "µs", [window.latency.percentile(99) / 1e3], notes))
    return rows


async def stall_row(target: Target, plan: Plan) -> Row:
    """Row `stall_prompt`: the longest wait of a small request beside prompts of 10 MB in a row, in µs."""
    order = Order(target, plan.fairness_s + LEAD_S, connections=1, prompt_bytes=HUGE_BYTES)
    longest: list[float] = []
    try:
        for _ in range(STALL_WINDOWS):
            with background(order) as process:
                await asyncio.sleep(LEAD_S)
                window = (await _small(target, plan.fairness_s)).accept()
            if process.returncode:
                raise Refused("the load beside it did not end well")
            longest.append(window.latency.highest / 1e3)
    except (Refused, OSError, TimeoutError) as error:
        return refused(target.name, "stall_prompt", "µs", error)
    return row(target.name, "stall_prompt", "µs", longest)


async def _small(target: Target, seconds: float) -> Window:
    times = constant_times(RATE_PER_S, seconds)
    return await open_loop(target, JSON_SMALL, times, seconds=seconds, connections=16)
