"""What the figures were taken on, and how quiet it was."""

import os
import platform
import resource
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
RUNTIME_PACKAGES = ("uvloop", "httptools", "msgspec", "uvicorn", "sqlalchemy")


def describe() -> dict[str, str | int]:
    """Processor, memory, kernel and runtime; nothing that names a host or a person."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    facts: dict[str, str | int] = {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "virtual": "yes" if any("hypervisor" in line for line in cpuinfo) else "no",
        "memory_mib": memory_kib // 1024,
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "open_files_max": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
    facts.update((name, metadata.version(name)) for name in RUNTIME_PACKAGES)
    return facts


class Clockwork(NamedTuple):
    """CPU seconds of the whole machine and of this process with its ended children."""

    machine_s: float
    stolen_s: float
    own_s: float


def clockwork() -> Clockwork:
    """Read both, to see afterwards how much others used meanwhile."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, interrupts, soft, stolen = ticks
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return Clockwork((user + nice + system + interrupts + soft) * _TICK_S, stolen * _TICK_S, own)


def foreign_share(before: Clockwork, after: Clockwork, elapsed_s: float) -> dict[str, float]:
    """Cores that other processes and the hypervisor took away on average."""
    foreign_s = max(0.0, after.machine_s - before.machine_s - (after.own_s - before.own_s))
    return {
        "foreign_cores": round(foreign_s / elapsed_s, 3),
        "stolen_cores": round((after.stolen_s - before.stolen_s) / elapsed_s, 3),
    }
