"""A timer of microsecond grain for an event loop.

libuv's timers, and so uvloop's call_at, tick in whole milliseconds: far too coarse for pacing chunks and
for open-loop load whose lateness must stay below a tenth of a 100 µs effect. This one is a Linux timerfd
(an hrtimer without slack) and a heap of absolute deadlines. Python has os.timerfd_create since 3.13 only.
"""

import asyncio
import ctypes
import heapq
import os
import time
from collections.abc import Callable
from itertools import count

_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_NS_PER_S = 1_000_000_000
_CALLING = 1
"""Stands for "armed earlier than anything" while callbacks run, so that they do not arm one by one."""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class FineTimer:
    """Calls back at absolute times of time.monotonic_ns(); one per event loop; close() when done."""

    __slots__ = ("_armed_ns", "_descriptor", "_heap", "_loop", "_order", "_pointer", "_settime", "_spec")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._descriptor: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _TimerSpec()
        self._pointer = ctypes.byref(self._spec)
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = count()
        self._armed_ns = 0
        self._loop = loop
        loop.add_reader(self._descriptor, self._on_time)

    def at(self, deadline_ns: int, callback: Callable[[int], None]) -> None:
        """Call `callback(deadline_ns)` at the deadline, or as soon as possible after it."""
        heapq.heappush(self._heap, (deadline_ns, next(self._order), callback))
        if not self._armed_ns or deadline_ns < self._armed_ns:
            self._arm(deadline_ns)

    def close(self) -> None:
        """Forget all deadlines and release the descriptor."""
        self._heap.clear()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _arm(self, deadline_ns: int) -> None:
        self._armed_ns = deadline_ns
        value = self._spec.value
        # A value of zero would disarm; a deadline in the past fires at once.
        value.seconds, value.nanoseconds = divmod(max(deadline_ns, 1), _NS_PER_S)
        if self._settime(self._descriptor, _TFD_TIMER_ABSTIME, self._pointer, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _on_time(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # re-armed between the wake-up and this call
        heap = self._heap
        self._armed_ns = _CALLING
        now_ns = time.monotonic_ns()
        while heap and heap[0][0] <= now_ns:
            deadline_ns, _, callback = heapq.heappop(heap)
            callback(deadline_ns)
        self._armed_ns = 0
        if heap:
            self._arm(heap[0][0])
