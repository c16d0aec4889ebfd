"""Time as an argument: production passes SystemClock, tests pass one that they move."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: wall time for what is stored or priced, monotonic time for waits and durations."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only ever grow; the origin means nothing."""
        ...


class SystemClock:
    """The machine's clocks."""

    now_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)
