"""The gap between two chunks of one stream, compared with the same streams without a gateway."""

from bench.modes import mode_of
from bench.plan import Gaps, Plan
from bench.prompts import Target
from bench.rows import Row, refused, row
from bench.streams import STALL_GAPS, whole_streams
from bench.windows import Refused, Window

PERCENTS = (50.0, 99.0, 99.9)


async def gap_rows(direct: Target, others: list[Target], plan: Plan) -> list[Row]:
    """Rows `gap_p99_N` and `delay_p99_N` (µs above direct) for each number of streams N, bodies proved."""
    rows: list[Row] = []
    for gaps in plan.gaps:
        rows += await _rows_at(direct, others, gaps)
    return rows


async def _rows_at(direct: Target, others: list[Target], gaps: Gaps) -> list[Row]:
    base: list[Window] = []
    seen: dict[str, list[Window]] = {other.name: [] for other in others}
    broken: dict[str, str] = {}
    for _ in range(gaps.rounds):
        base.append((await whole_streams(direct, gaps.mode, count=gaps.streams)).accept())
        for other in others:
            if other.name in broken:
                continue
            try:
                seen[other.name].append((await whole_streams(other, gaps.mode, count=gaps.streams)).accept())
            except (Refused, OSError, TimeoutError) as error:
                broken[other.name] = str(error) or "no first chunk in time"
    rows = [refused(name, f"gap_p99_{gaps.streams}", "µs", reason) for name, reason in broken.items()]
    for name, windows in seen.items():
        if name not in broken:
            rows += _compare(name, gaps, base, windows)
    return rows


def _compare(name: str, gaps: Gaps, base: list[Window], windows: list[Window]) -> list[Row]:
    stall_ns = STALL_GAPS * mode_of(gaps.mode).gap_us * 1_000
    notes: dict[str, float | str] = {
        "stalls": sum(round(window.gap.share_above(stall_ns) * window.gap.count) for window in windows),
        "gaps": float(sum(window.gap.count for window in windows)),
    }
    rows = []
    for percent in PERCENTS:
        label = f"{percent:g}".replace(".", "_")
        added = [
            (theirs.gap.percentile(percent) - ours.gap.percentile(percent)) / 1e3
            for theirs, ours in zip(windows, base, strict=True)
        ]
        rows.append(row(name, f"gap_p{label}_{gaps.streams}", "µs", added, notes if percent == 99 else None))
    delay = [
        (theirs.transit.percentile(99) - ours.transit.percentile(99)) / 1e3
        for theirs, ours in zip(windows, base, strict=True)
    ]
    rows.append(row(name, f"delay_p99_{gaps.streams}", "µs", delay))
    return rows
