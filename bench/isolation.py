"""A quiet place to measure in: a network namespace of its own, pinned cores, a punctual generator.

Some gateways listen on all interfaces and on fixed ports; in a namespace whose only interface is its own
loopback nobody else can reach them and nothing can collide.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

_INSIDE = "DRAGONFLY_BENCH_NAMESPACE"
_SCRIPT = 'ip link set lo up && exec "$@"'


class Cores(NamedTuple):
    """Which core does what. On a machine of two, generator and mock share one."""

    gateway: int
    generator: int
    mock: int


def enter_namespace(arguments: list[str]) -> str:
    """Start this program again inside a network namespace; returns only where that is done or impossible.

    The value is "own" inside the namespace and "shared" when none may be made.
    """
    if os.environ.get(_INSIDE):
        return "own"
    for flags in (("-n",), ("-r", "-n")):
        if not _may_unshare(flags):
            continue
        command = ("unshare", *flags, "sh", "-c", _SCRIPT, "sh", sys.executable, "-m", "bench", *arguments)
        os.execvpe("unshare", command, {**os.environ, _INSIDE: "1"})
    return "shared"


def _may_unshare(flags: tuple[str, ...]) -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    probe = ("unshare", *flags, "sh", "-c", _SCRIPT, "sh", "true")
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def choose_cores() -> Cores:
    """The first three cores that this process may use; RuntimeError below two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("the benchmark needs two cores: one for the gateway, one for the generator")
    return Cores(cores[0], cores[1], cores[min(2, len(cores) - 1)])


@contextlib.contextmanager
def punctual(mock_pid: int) -> Iterator[str]:
    """While latency is measured, generator and mock run before anything else on their core, the generator first.

    Answers are then stamped when they arrive, not when the mock has finished its turn, and chunks leave when they
    are due. Not used for ceilings and CPU time, where it would only add switches. The value names the scheduling
    in force; children that are started meanwhile have the usual one.
    """
    everyday = os.sched_param(0)
    try:
        os.sched_setscheduler(mock_pid, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(2))
    except OSError:
        yield "shared"
        return
    try:
        yield "first in, first out"
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, everyday)
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(mock_pid, os.SCHED_OTHER, everyday)
