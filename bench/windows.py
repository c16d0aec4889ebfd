"""What one stretch of load yielded, and the rule by which it is refused."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from bench.histogram import Histogram
from bench.modes import mode_of
from bench.processes import Consumption, consumption
from bench.prompts import Target
from bench.verify import Bodies, Verdict

REASONS_SHOWN = 4
SETTLE_S = 0.1
"""Waited after the last answer before CPU time is read, so that work done just after it still counts."""


class Refused(RuntimeError):
    """The window may not be reported; the text says why."""


@dataclass(slots=True)
class Window:
    """Counts and times of one stretch of load. Times are nanoseconds."""

    target: str
    mode: str
    connections: int
    units: int = 0
    """Completed requests, or relayed chunks when chunks are what is measured."""
    elapsed_ns: int = 0
    cpu_ns: int = 0
    user_share: float = 0.0
    major_faults: int = 0
    latency: Histogram = field(default_factory=Histogram)
    ttft: Histogram = field(default_factory=Histogram)
    gap: Histogram = field(default_factory=Histogram)
    transit: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    failures: Counter[str] = field(default_factory=Counter)
    bodies: Bodies = field(default_factory=Bodies)
    verdicts: dict[Verdict, int] = field(default_factory=dict)

    def cpu_us_per_unit(self) -> float:
        return self.cpu_ns / 1_000 / self.units

    def units_per_s(self) -> float:
        return self.units * 1e9 / self.elapsed_ns

    def busy_share(self) -> float:
        """Cores that the target used during the window."""
        return self.cpu_ns / self.elapsed_ns

    def accept(self) -> "Window":
        """Judge all bodies; Refused when anything failed, was wrong, or nothing was completed."""
        self.verdicts = self.bodies.judge(mode_of(self.mode))
        self.bodies = Bodies()
        if self.verdicts[Verdict.WRONG]:
            self.failures["a wrong answer"] += self.verdicts[Verdict.WRONG]
        if self.failures:
            shown = ", ".join(f"{count} x {reason}" for reason, count in self.failures.most_common(REASONS_SHOWN))
            raise Refused(f"{self.mode}: {shown}, beside {self.units} good units")
        if not self.units:
            raise Refused(f"{self.mode}: nothing was completed")
        if self.major_faults:
            raise Refused(f"{self.mode}: {self.major_faults} major page faults")
        return self


class Meter:
    """Reads a target's consumption around a window."""

    __slots__ = ("_before", "_pid")

    def __init__(self, target: Target) -> None:
        self._pid = target.pid
        self._before = self._read()

    def _read(self) -> Consumption | None:
        return consumption(self._pid) if self._pid else None

    def stop(self, window: Window) -> None:
        """Write the difference since the start into the window."""
        before, after = self._before, self._read()
        if before is None or after is None:
            return
        if not before.processes <= after.processes:
            window.failures["a process of the target ended"] += 1
        user_ns, system_ns = after.user_ns - before.user_ns, after.system_ns - before.system_ns
        window.cpu_ns = after.cpu_ns - before.cpu_ns
        window.user_share = user_ns / (user_ns + system_ns) if user_ns + system_ns else 0.0
        window.major_faults = after.major_faults - before.major_faults

    async def stop_settled(self, window: Window) -> None:
        """The same, after a moment for work that follows the last answer."""
        await asyncio.sleep(SETTLE_S)
        self.stop(window)
