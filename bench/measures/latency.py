"""Added latency and added time to first token at one client: interleaved rounds direct, through the gateway, nginx.

p50: the difference of each round's medians, then the median over rounds with its quartiles. p99: the difference
of the percentiles over all rounds together, because one round has too few values above it.
"""

import time
from dataclasses import dataclass, field
from statistics import median

from bench.closed import ClosedLoop
from bench.histogram import Histogram
from bench.modes import JSON_SMALL, STREAM_TTFT
from bench.plan import Plan
from bench.prompts import PROMPT_BYTES, Target
from bench.rows import Row, quartiles, refused, row
from bench.windows import Refused, Window

ROUND_S = 1.0
ROUNDS_MIN = 3
ROUNDS_S = 6.0
"""After this long no further round begins, once there are three: slow gateways get fewer, not more time."""
PROMPT_ROUNDS_S = 2.0
PROMPT_S_MAX = 3.0
"""A prompt size is left out when one request of it would take longer."""
WARM_REQUESTS = 20


@dataclass(slots=True)
class _Series:
    """What the rounds against one target gave, nanoseconds."""

    target: Target
    loop: ClosedLoop
    medians: list[int] = field(default_factory=list)
    all: Histogram = field(default_factory=Histogram)


async def added_rows(direct: Target, others: list[Target], plan: Plan) -> list[Row]:
    """Rows `latency_p50`, `latency_p99`, `ttft_p50`, `ttft_p99` of every target, in µs above direct calls."""
    rows: list[Row] = []
    for measure, mode, per_round in (
        ("latency", JSON_SMALL, plan.requests_per_round),
        ("ttft", STREAM_TTFT, plan.streams_per_round),
    ):
        try:
            series = await _rounds([direct, *others], mode, plan.rounds, per_round)
        except (Refused, OSError, TimeoutError) as error:
            rows += [refused(other.name, f"{measure}_p{p}", "µs", error) for other in others for p in (50, 99)]
            continue
        for one in series[1:]:
            rows += _differences(measure, series[0], one)
    return rows


async def _rounds(
    targets: list[Target],
    mode: str,
    rounds: int,
    per_round: int,
    *,
    prompt_bytes: int = PROMPT_BYTES,
    rounds_s: float = ROUNDS_S,
) -> list[_Series]:
    series = [
        _Series(target, ClosedLoop(target, mode, connections=1, prompt_bytes=prompt_bytes)) for target in targets
    ]
    try:
        for one in series:
            await one.loop.open()
            (await one.loop.run(seconds=ROUND_S, requests_max=min(per_round, WARM_REQUESTS))).accept()
        end_s = time.monotonic() + rounds_s
        for number in range(rounds):
            if number >= ROUNDS_MIN and time.monotonic() > end_s:
                break
            for one in series:
                window = (await one.loop.run(seconds=ROUND_S, requests_max=per_round)).accept()
                times = _times(window)
                one.medians.append(times.percentile(50))
                one.all.add(times)
    finally:
        for one in series:
            one.loop.close()
    return series


def _times(window: Window) -> Histogram:
    return window.ttft if window.ttft.count else window.latency


def _differences(measure: str, direct: _Series, other: _Series) -> list[Row]:
    steps = [(theirs - ours) / 1e3 for theirs, ours in zip(other.medians, direct.medians, strict=True)]
    low, high = quartiles([value / 1e3 for value in direct.medians])
    notes: dict[str, float | str] = {"direct_p50_us": median(direct.medians) / 1e3, "rounds": float(len(steps))}
    if abs(median(steps)) < high - low:
        notes["resolution"] = f"below the spread of direct calls ({high - low:.1f} µs)"
    tail = (other.all.percentile(99) - direct.all.percentile(99)) / 1e3
    tail_notes: dict[str, float | str] = {
        "direct_p99_us": direct.all.percentile(99) / 1e3,
        "values": float(other.all.count),
    }
    return [
        row(other.target.name, f"{measure}_p50", "µs", steps, notes),
        row(other.target.name, f"{measure}_p99", "µs", [tail], tail_notes),
    ]


async def prompt_rows(direct: Target, target: Target, plan: Plan) -> list[Row]:
    """CPU time and added latency of large prompts."""
    rows: list[Row] = []
    byte_s = 0.0
    for prompt_bytes in plan.prompt_bytes:
        size = f"{prompt_bytes // 1_000}kb"
        if prompt_bytes * byte_s > PROMPT_S_MAX:
            reason = f"one request would take about {prompt_bytes * byte_s:.0f} s, by the size before it"
            rows.append(refused(target.name, f"cpu_prompt_{size}", "µs", reason))
            continue
        per_round = max(3, min(30, 20_000_000 // prompt_bytes))
        try:
            series = await _rounds(
                [direct, target],
                JSON_SMALL,
                ROUNDS_MIN,
                per_round,
                prompt_bytes=prompt_bytes,
                rounds_s=PROMPT_ROUNDS_S,
            )
            loop = ClosedLoop(target, JSON_SMALL, connections=1, prompt_bytes=prompt_bytes)
            await loop.open()
            try:
                window = (await loop.run(seconds=plan.window_s, settled=True)).accept()
            finally:
                loop.close()
        except (Refused, OSError, TimeoutError) as error:
            rows.append(refused(target.name, f"cpu_prompt_{size}", "µs", error))
            continue
        rows.append(row(target.name, f"cpu_prompt_{size}", "µs", [window.cpu_us_per_unit()]))
        byte_s = median(series[1].medians) / 1e9 / prompt_bytes
        added = [step / 1e3 for step in _steps(series)]
        rows.append(row(target.name, f"latency_prompt_{size}", "µs", added))
    return rows


def _steps(series: list[_Series]) -> list[int]:
    return [theirs - ours for theirs, ours in zip(series[1].medians, series[0].medians, strict=True)]
