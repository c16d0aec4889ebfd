"""Latency under load: open loop, Poisson and evenly spaced, at shares of what one core affords."""

from bench.modes import JSON_SMALL
from bench.openloop import constant_times, open_loop, poisson_times
from bench.plan import Plan
from bench.prompts import Target
from bench.rows import Row, refused, row
from bench.windows import Refused, Window

LATENESS_SHARE_MAX = 0.10
"""A window is refused when the generator's p99 lateness is above this share of the p99 latency that it shows."""
SEED = 20_260_801


async def load_rows(targets: list[Target], afforded_rps: float, plan: Plan) -> list[Row]:
    """Rows `load_SHARE_p99` (Poisson) and `even_SHARE_p99` in µs; all targets get the same rates."""
    rows: list[Row] = []
    for share in plan.load_shares:
        rate = afforded_rps * share
        for target in targets:
            for kind, times in (
                ("load", poisson_times(rate, plan.load_s, SEED)),
                ("even", constant_times(rate, plan.load_s)),
            ):
                measure = f"{kind}_{round(share * 100)}_p99"
                try:
                    window = (await open_loop(target, JSON_SMALL, times, seconds=plan.load_s)).accept()
                    rows.append(_judged(target.name, measure, window, rate))
                except (Refused, OSError, TimeoutError) as error:
                    rows.append(refused(target.name, measure, "µs", error))
    return rows


def _judged(name: str, measure: str, window: Window, rate: float) -> Row:
    late_us = window.lateness.percentile(99) / 1e3
    p99_us = window.latency.percentile(99) / 1e3
    if late_us > LATENESS_SHARE_MAX * p99_us:
        raise Refused(
            f"at {rate:.0f} per second the generator itself was late by {late_us:.0f} µs (p99),"
            f" too much beside a latency of {p99_us:.0f} µs"
        )
    notes: dict[str, float | str] = {
        "rate_per_s": rate,
        "p50_us": window.latency.percentile(50) / 1e3,
        "lateness_p50_us": window.lateness.percentile(50) / 1e3,
        "lateness_p99_us": late_us,
    }
    return row(name, measure, "µs", [p99_us], notes)
