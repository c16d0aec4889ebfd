"""The tables that a run prints; the documents show the same."""

from collections.abc import Iterable

from bench.budgets import checks
from bench.comparators.table import COMPARATORS
from bench.result import Result
from bench.rows import Row

MAIN = (
    ("cpu_request_1", "CPU/request, 1 conn."),
    ("cpu_request_32", "CPU/request, 32 conn."),
    ("cpu_request_calm", "CPU/request, 50/s"),
    ("cpu_chunk_1600", "CPU/chunk, 1,600/s"),
    ("cpu_chunk_5000", "CPU/chunk, 5,000/s"),
    ("latency_p50", "added latency p50"),
    ("latency_p99", "p99"),
    ("ttft_p50", "added TTFT p50"),
    ("ttft_p99", "p99"),
    ("memory_idle", "idle MiB"),
    ("first_answer", "first answer s"),
)
"""µs where nothing else is said."""
WITH_RATIO = ("cpu_request_1", "cpu_request_32", "cpu_request_calm", "cpu_chunk_1600", "cpu_chunk_5000")


def number(value: float) -> str:
    """Three significant places, thousands separated, no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(result: Result, comparator: str, measure: str) -> str:
    """A figure with its ratio to nginx where that is shown; "-" when there is none."""
    value = result.value(comparator, measure)
    if value is None:
        return "-"
    ratio = result.ratio(comparator, measure) if measure in WITH_RATIO and comparator != "nginx" else None
    return f"{number(value)} ({ratio:.1f}x)" if ratio is not None else number(value)


def markdown(head: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    """A table as Markdown; all columns but the first are aligned right."""
    titles = list(head)
    rule = ["---"] + ["---:"] * (len(titles) - 1)
    return [f"|{'|'.join(line)}|" for line in (titles, rule, *map(list, lines))]


def main_table(result: Result) -> list[str]:
    """One line per comparator."""
    lines = [
        [one.title, *(cell(result, one.name, measure) for measure, _ in MAIN)]
        for one in COMPARATORS
        if any(row.comparator == one.name for row in result.rows)
    ]
    return markdown(["Gateway", *(title for _, title in MAIN)], lines)


def other_table(result: Result) -> list[str]:
    """Every other figure, one line per quantity, for the comparators that have any."""
    shown = {measure for measure, _ in MAIN}
    rest = [row for row in result.rows if row.measure not in shown and row.value is not None]
    names = [one.name for one in COMPARATORS if any(row.comparator == one.name for row in rest)]
    if any(row.comparator == "direct" for row in rest):
        names.insert(0, "direct")
    measures = list(dict.fromkeys((row.measure, row.unit) for row in rest))
    lines = [[f"{measure} ({unit})", *(cell(result, name, measure) for name in names)] for measure, unit in measures]
    return markdown(["Quantity", *names], lines)


def refused_rows(result: Result) -> list[Row]:
    """What has no figure, and why."""
    return [row for row in result.rows if row.value is None]


def budget_table(result: Result) -> list[str]:
    """Every budget with its verdict."""
    lines = [
        [
            check.what,
            "-" if check.figure is None else number(check.figure),
            f"{'≥' if check.at_least else '≤'} {number(check.bound)}",
            check.verdict,
        ]
        for check in checks(result)
    ]
    return markdown(["Budget", "figure", "bound", "verdict"], lines)


def text(result: Result) -> str:
    """Everything that a run prints."""
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    quiet = ", ".join(f"{name} {value}" for name, value in result.quiet.items())
    lines = [
        f"Dragonfly benchmark, {result.plan} run of {result.date}",
        f"Machine: {machine}",
        f"Meanwhile used by others: {quiet}",
        "",
        *main_table(result),
        "",
        *other_table(result),
        "",
        *budget_table(result),
    ]
    missing = refused_rows(result)
    if missing:
        lines += ["", "No figure:"]
        lines += [f"  {row.comparator} {row.measure}: {row.refused}" for row in missing]
    return "\n".join(lines)
