"""What a tree of processes consumes, from /proc: CPU time in nanoseconds, faults, memory.

CPU time is each process's CPU clock (clock_gettime on clock_getcpuclockid(pid)): the same nanosecond
counter of the scheduler that /proc/PID/task/TID/schedstat shows, but summed by the kernel over all threads,
those that have ended included.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_CPUCLOCK_SCHED = 2
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
TREE_PROCESSES_MAX = 256


class Consumption(NamedTuple):
    """Totals of a process tree since its start."""

    cpu_ns: int
    user_ns: int
    """Of ten-millisecond grain, for the ratio to `system_ns` only."""
    system_ns: int
    major_faults: int
    processes: frozenset[int]


def tree(root_pid: int) -> list[int]:
    """The process and all its descendants that live now, the root first."""
    found = [root_pid]
    for pid in found:
        assert len(found) <= TREE_PROCESSES_MAX, "a process tree without bound"
        found += list(_children(pid))
    return [pid for pid in found if Path(f"/proc/{pid}").exists()]


def _children(pid: int) -> Iterator[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        for task in tasks:
            yield from map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return


def cpu_clock_ns(pid: int) -> int:
    """CPU time of one process over all its threads, living and ended."""
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)


def schedstat_ns(pid: int) -> int:
    """CPU time of one process's living threads as schedstat counts it; for cross-checks."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def consumption(root_pid: int) -> Consumption:
    """What the tree has consumed so far."""
    cpu_ns = user = system = faults = 0
    seen = []
    for pid in tree(root_pid):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu_ns += cpu_clock_ns(pid)
        except (FileNotFoundError, ProcessLookupError, OSError):
            continue
        faults += int(fields[9])
        user += int(fields[11])
        system += int(fields[12])
        seen.append(pid)
    return Consumption(cpu_ns, user * _TICK_NS, system * _TICK_NS, faults, frozenset(seen))


def pss_bytes(root_pid: int) -> int:
    """Proportional set size of the tree: memory in user space, shared pages divided among their users."""
    total = 0
    for pid in tree(root_pid):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024


def kernel_bytes() -> int:
    """Memory that the kernel holds in slabs and in TCP buffers, machine-wide."""
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    slab = int(meminfo["Slab"].split()[0]) * 1024
    sockstat = Path("/proc/net/sockstat").read_text().splitlines()
    tcp = next(line for line in sockstat if line.startswith("TCP:"))
    return slab + int(tcp.split()[-1]) * os.sysconf("SC_PAGE_SIZE")
