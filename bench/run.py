"""One run: every comparator in turn on the gateway's core, nginx and the direct path beside each."""

import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from bench.comparators.table import Comparator
from bench.isolation import Cores, punctual
from bench.launch import NotRunning, Running, Site, free_port, mock_upstream, running
from bench.measures.cpu import chunk_rows, direct_ceiling, request_rows
from bench.measures.fairness import fairness_rows
from bench.measures.gaps import gap_rows
from bench.measures.latency import added_rows, prompt_rows
from bench.measures.load import load_rows
from bench.measures.memory import memory_rows, stalled_rows
from bench.measures.policies import policy_rows
from bench.measures.settle import settle_rows
from bench.measures.start import resident_row, start_rows
from bench.plan import Plan
from bench.prompts import Target
from bench.rows import Row, refused

FLOOR = "nginx"
SUBJECT = "dragonfly"
DEEP = (FLOOR, "haproxy", SUBJECT)
"""Measured with thousands of streams too; the others would take minutes to open them."""

Measured = Coroutine[None, None, list[Row]]
Say = Callable[[str], None]


@dataclass(slots=True)
class Bench:
    """What the steps of a run share."""

    plan: Plan
    cores: Cores
    folder: Path
    programs: Path
    direct: Target
    mock_pid: int
    direct_rps: float
    say: Say
    rows: list[Row] = field(default_factory=list)
    configurations: dict[str, dict[str, str]] = field(default_factory=dict)

    def take(self, measured: Measured, *, on_time: bool = False) -> list[Row]:
        """Run one measure on a fresh loop; `on_time`: generator and mock are preferred on their core."""
        with punctual(self.mock_pid) if on_time else contextlib.nullcontext():
            rows = uvloop.run(measured)
        self.rows += rows
        return rows


@contextlib.contextmanager
def bench(plan: Plan, cores: Cores, folder: Path, programs: Path, say: Say) -> Iterator[Bench]:
    """Start the mock, measure the direct path, and hand out what the steps share."""
    with mock_upstream(free_port(), folder / "mock", cores.mock) as upstream:
        direct_rps = uvloop.run(direct_ceiling(upstream.target, plan))
        shared = Bench(plan, cores, folder, programs, upstream.target, upstream.process.pid, direct_rps, say)
        shared.take(chunk_rows(upstream.target, upstream.target, plan), on_time=True)
        yield shared


def _site(shared: Bench, name: str) -> Site:
    folder = shared.folder / f"{name}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    return Site(folder, shared.programs, shared.direct.port, free_port(), shared.cores.gateway)


@contextlib.contextmanager
def started(shared: Bench, comparator: Comparator) -> Iterator[Running]:
    """A comparator that answers correctly; NotRunning otherwise."""
    site = _site(shared, comparator.name)
    try:
        launch = comparator.launch(site)
    except OSError as error:
        raise NotRunning(f"cannot be started: {type(error).__name__}") from None
    texts = {
        name: text.replace(str(site.folder), "FOLDER").replace(str(shared.programs), "PROGRAMS")
        for name, text in launch.configuration.items()
    }
    shared.configurations[comparator.name] = texts
    with running(comparator.name, launch, site) as process:
        yield process


def measure_all(shared: Bench, comparators: tuple[Comparator, ...]) -> None:
    """All measures of all comparators; nginx runs first and stays for the interleaved rounds."""
    plan = shared.plan
    floor = next(one for one in comparators if one.name == FLOOR)
    with started(shared, floor) as nginx:
        shared.say(f"{floor.title} …")
        shared.rows += start_rows(nginx)
        _alone(shared, nginx, nginx)
        for comparator in comparators:
            if comparator is floor:
                continue
            shared.say(f"{comparator.title} …")
            try:
                with started(shared, comparator) as process:
                    shared.rows += start_rows(process)
                    _alone(shared, process, nginx)
                    _beside_nginx(shared, process, nginx)
                    if process.ended():
                        raise NotRunning(process.ended())
                    shared.rows.append(resident_row(process))
            except NotRunning as error:
                shared.rows.append(refused(comparator.name, "running", "", error))
                shared.say(f"  {error}")
        shared.rows.append(resident_row(nginx))
    if any(one.name == SUBJECT for one in comparators):
        shared.say("Ledger and policies …")
        shared.rows += settle_rows(
            shared.folder / "settle", shared.cores.gateway, seconds=plan.settle_s, windows=plan.windows
        )
        if plan.deep:
            shared.rows += policy_rows(_site(shared, "policies"), plan, shared.cores.mock)


def _alone(shared: Bench, process: Running, nginx: Running) -> None:
    """Figures of one comparator, nginx in turns with it where CPU time is compared."""
    target, plan, floor = process.target, shared.plan, nginx.target
    if target.name == SUBJECT:
        plan = replace(plan, windows=3 * plan.windows, chunk_windows=2 * plan.chunk_windows)
    shared.take(request_rows(target, floor, plan, shared.direct_rps))
    shared.take(chunk_rows(target, floor, plan), on_time=True)
    shared.take(prompt_rows(shared.direct, target, plan), on_time=True)
    if plan.deep and target.name in DEEP:
        shared.take(stalled_rows(target, plan))
        shared.take(fairness_rows(target, plan), on_time=True)
    if target.name == SUBJECT or (plan.deep and target.name in DEEP):
        shared.take(memory_rows(target, plan))


def _beside_nginx(shared: Bench, process: Running, nginx: Running) -> None:
    """Interleaved rounds: direct, this gateway, nginx."""
    target, plan = process.target, shared.plan
    if target.name != SUBJECT:
        shared.take(added_rows(shared.direct, [target], plan), on_time=True)
        return
    both = [target, nginx.target]
    shared.take(added_rows(shared.direct, both, plan), on_time=True)
    shared.take(gap_rows(shared.direct, both, plan), on_time=True)
    afforded = _afforded_rps(shared.rows)
    if afforded:
        shared.take(load_rows(both, afforded, plan), on_time=True)


def _afforded_rps(rows: list[Row]) -> float:
    """What the subject's core affords by its CPU time at 32 connections; 0 when that was refused."""
    for one in rows:
        if one.comparator == SUBJECT and one.measure == "cpu_request_32" and one.value:
            return 1e6 / one.value
    return 0.0
