"""Counts what Python code of this project executes, without any help of the machine.

Two counters: bytecode instructions (sys.settrace with f_trace_opcodes) and calls, of Python and of C functions
(sys.setprofile). Only frames of Dragonfly and of uvicorn count; each thread has its own sum, so that the event
loop and the thread that writes money are told apart. Nothing of it depends on time.
"""

import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, TypeAlias

TraceFunction: TypeAlias = Callable[[FrameType, str, object], "TraceFunction | None"]

_COUNTED = re.compile(r"[/\\](?:dragonfly|uvicorn)[/\\]")


class Counts(Protocol):
    """What both counters offer."""

    enabled: bool
    by_thread: dict[int, Counter[str]]

    def install(self) -> None:
        """Begin to watch this thread and every thread that is started from now on."""

    def remove(self) -> None:
        """Stop watching this thread."""


class _ByThread:
    def __init__(self) -> None:
        self.enabled = False
        self.by_thread: dict[int, Counter[str]] = {}
        self._is_counted: dict[str, bool] = {}

    def _counts(self, filename: str) -> bool:
        known = self._is_counted.get(filename)
        if known is None:
            known = self._is_counted[filename] = _COUNTED.search(filename) is not None
        return known

    def _note(self, frame: FrameType) -> None:
        functions = self.by_thread.setdefault(threading.get_ident(), Counter())
        functions[frame.f_code.co_qualname] += 1


class Opcodes(_ByThread):
    """Executed bytecode instructions."""

    def install(self) -> None:
        threading.settrace(self._enter)
        sys.settrace(self._enter)

    def remove(self) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        if not self._counts(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: object) -> TraceFunction:
        if event == "opcode" and self.enabled:
            self._note(frame)
        return self._step


class Calls(_ByThread):
    """Calls of Python functions of the project, and calls of C functions from them."""

    def install(self) -> None:
        threading.setprofile(self._event)
        sys.setprofile(self._event)

    def remove(self) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: object) -> None:
        if self.enabled and event in ("call", "c_call") and self._counts(frame.f_code.co_filename):
            self._note(frame)


@contextmanager
def counting(counts: Counts) -> Iterator[None]:
    """Count what runs inside, added to what was counted before."""
    counts.enabled = True
    try:
        yield
    finally:
        counts.enabled = False


def taken(counts: Counts) -> tuple[Counter[str], Counter[str]]:
    """What was counted in this thread and in all others, by function; the counter begins anew."""
    mine = counts.by_thread.pop(threading.get_ident(), Counter())
    others: Counter[str] = Counter()
    for functions in list(counts.by_thread.values()):
        others += functions
    counts.by_thread.clear()
    return mine, others
