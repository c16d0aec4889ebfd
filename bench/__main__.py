"""`python -m bench [--quick] [--only NAME,…] [--out FILE]`: measure, print the tables, write the result."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import result as results
from bench.comparators.table import COMPARATORS, versions
from bench.isolation import choose_cores, enter_namespace
from bench.launch import raise_descriptor_limit
from bench.machine import clockwork, describe, foreign_share
from bench.plan import FULL, QUICK, Plan
from bench.report import text
from bench.run import FLOOR, bench, measure_all
from dragonfly import __version__

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / ".bench-venv"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Dragonfly beside other gateways.")
    parser.add_argument("--quick", action="store_true", help="about a minute; prints, and writes only with --out")
    parser.add_argument("--only", default="", help="comparators, separated by commas; nginx always runs")
    parser.add_argument("--out", type=Path, help="where the result is written; default bench/results/DATE.json")
    arguments = parser.parse_args()
    network = enter_namespace(sys.argv[1:])
    signal.signal(signal.SIGTERM, _end)  # so that what was started is ended in order
    plan = QUICK if arguments.quick else FULL
    if arguments.only:
        plan = replace(plan, only=(FLOOR, *arguments.only.split(",")))
    found = _run(plan, network)
    print(text(found), flush=True)
    path = arguments.out
    if path is None and not arguments.quick and not arguments.only:
        path = results.RESULTS / f"{found.date}.json"
    if path is not None:
        results.write(found, path)
        print(f"\nWritten to {path.name}")


def _run(plan: Plan, network: str) -> results.Result:
    cores = choose_cores()
    raise_descriptor_limit()
    os.sched_setaffinity(0, {cores.generator})
    comparators = tuple(one for one in COMPARATORS if plan.only is None or one.name in plan.only)
    folder = Path(tempfile.mkdtemp(prefix="dragonfly-bench-"))
    before, started_s = clockwork(), time.monotonic()
    try:
        with bench(plan, cores, folder, PROGRAMS, _Progress(started_s)) as shared:
            measure_all(shared, comparators)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    elapsed_s = time.monotonic() - started_s
    circumstances = {
        "network": f"{network} namespace, loopback only",
        "cores": f"gateway {cores.gateway}, generator {cores.generator}, mock {cores.mock}",
        "duration_s": f"{elapsed_s:.0f}",
    }
    return results.Result(
        format=results.FORMAT,
        date=datetime.now(UTC).date().isoformat(),
        plan=plan.name,
        machine=describe(),
        quiet=foreign_share(before, clockwork(), elapsed_s),
        circumstances=circumstances,
        versions=versions(PROGRAMS, __version__),
        does={one.name: one.does for one in comparators},
        configurations=shared.configurations,
        rows=shared.rows,
    )


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


class _Progress:
    """Tells on standard error what is being done, and when."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s

    def __call__(self, sentence: str) -> None:
        print(f"{time.monotonic() - self._started_s:4.0f} s  {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
