"""Several worker processes of one installation on one machine, and the process that looks after them.

The supervisor serves nothing and has no connection to the database: it forks workers that share its socket, starts
anew whoever ends, and passes signals on. When it dies itself, its workers notice that a pipe was closed and stop as
they do on SIGTERM.
"""

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from dragonfly.app.accepting import Share, Tally
from dragonfly.core.errors import DragonflyError
from dragonfly.infra.logging import Event, EventLog, Level

START_EVERY_S = 1.0
"""The next one takes the place of a worker that served at once, but no more often than this."""
RESTART_S = 0.5
"""After a worker that ended before it served; doubles with each in a row."""
RESTART_S_MAX = 30.0
STOP_S_BEYOND_DRAIN = 60.0
"""How long a worker may take beside `server.shutdown_s`; all its steps of stopping together take less."""
START_REFUSED = 1
READ_BYTES = 256

WORKERS_READY = Event("workers_ready", Level.INFO, {"workers": int, "host": str, "port": int})
WORKER_ENDED = Event("worker_ended", Level.WARNING, {"number": int, "exit_status": int, "restart_s": float})
WORKER_REFUSED = Event("worker_refused", Level.ERROR, {"code": str})
WORKER_KILLED = Event("worker_killed", Level.ERROR, {"number": int})


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker has of its supervisor."""

    number: int
    """From 0; the one who comes after a worker that ended has its number."""
    share: Share
    lifeline: int
    """A descriptor at whose end of file the worker stops."""
    ready: int
    """A descriptor that takes the number, as one byte, when the worker serves."""

    def tell_ready(self) -> None:
        with suppress(OSError):  # the supervisor is gone; the lifeline says so too
            os.write(self.ready, bytes([self.number]))


@dataclass(slots=True)
class _Place:
    """One worker's place, whoever fills it at the moment."""

    process_id: int = 0
    """0: nobody."""
    started_s: float = 0.0
    start_at_s: float = 0.0
    failures: int = 0
    """Starts in a row after which the worker ended without having served."""
    has_served: bool = False


def restart_pause_s(lived_s: float, failures: int) -> float:
    """How long to wait after a worker that lived so long, the last of `failures` that did not come to serve."""
    if not failures:
        return max(0.0, START_EVERY_S - lived_s)
    return min(RESTART_S_MAX, RESTART_S * 2.0 ** min(failures - 1, 16))


class Supervisor:
    """Call `run` in the main thread of a process that has no other."""

    def __init__(
        self,
        work: Callable[[Post], None],
        bound: socket.socket,
        log: EventLog,
        *,
        workers: int,
        shutdown_s: float,
    ) -> None:
        self._work = work
        self._bound = bound
        self._log = log
        self._stop_s = shutdown_s + STOP_S_BEYOND_DRAIN
        self._places = [_Place() for _ in range(workers)]
        self._tally = Tally(workers)
        self._not_ready = set(range(workers))
        self._asked_to_stop: list[int] = []
        self._lifeline, self._held = os.pipe()
        self._ready, self._told = os.pipe()
        self._woken, self._wakes = os.pipe()
        for descriptor in (self._ready, self._woken, self._wakes):
            os.set_blocking(descriptor, False)

    def run(self) -> None:
        """Until SIGTERM or SIGINT has stopped every worker."""
        gc.collect()
        gc.freeze()  # what is loaded already stays in pages that all processes share
        with self._signals():
            while not self._asked_to_stop:
                self._fill_places()
                self._wait(self._next_start_s())
                self._reap()
            self._stop()

    def _fill_places(self) -> None:
        now_s = time.monotonic()
        for number, place in enumerate(self._places):
            if not place.process_id and place.start_at_s <= now_s:
                place.started_s = now_s
                place.has_served = False
                place.process_id = self._fork(number)

    def _next_start_s(self) -> float | None:
        empty = [place.start_at_s for place in self._places if not place.process_id]
        return max(0.0, min(empty) - time.monotonic()) if empty else None

    def _fork(self, number: int) -> int:
        process_id = os.fork()
        if process_id == 0:
            self._serve(number)
        return process_id

    def _serve(self, number: int) -> NoReturn:
        """In the worker: never returns."""
        status = START_REFUSED
        try:
            os.setpgid(0, 0)  # Ctrl-C is for the supervisor, which passes it on
            signal.set_wakeup_fd(-1)
            for handled in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(handled, signal.SIG_DFL)
            for descriptor in (self._held, self._ready, self._woken, self._wakes):
                os.close(descriptor)
            if not self._asked_to_stop:  # else a signal came before this process had handlers of its own
                self._work(Post(number, Share(self._tally, number), self._lifeline, self._told))
            status = 0
        except DragonflyError as refusal:
            self._log.write(WORKER_REFUSED, code=refusal.code)
        except BaseException as failure:
            sys.excepthook(type(failure), failure, failure.__traceback__)
        finally:
            os._exit(status)

    def _wait(self, seconds: float | None) -> None:
        """Until a signal, news of a worker, or `seconds`."""
        readable, _, _ = select.select((self._woken, self._ready), (), (), seconds)
        if self._woken in readable:
            os.read(self._woken, READ_BYTES)
        if self._ready in readable:
            self._note_ready(os.read(self._ready, READ_BYTES))

    def _note_ready(self, numbers: bytes) -> None:
        for number in numbers:
            self._places[number].has_served = True
        if self._not_ready:
            self._not_ready -= set(numbers)
            if not self._not_ready:
                host, port = self._bound.getsockname()[:2]
                self._log.write(WORKERS_READY, workers=len(self._places), host=host.lstrip(":") or "any", port=port)

    def _reap(self) -> None:
        """Notes who has ended, and when the next one takes the place."""
        for number, place, status in self._ended():
            now_s = time.monotonic()
            place.failures = 0 if place.has_served else place.failures + 1
            pause_s = restart_pause_s(now_s - place.started_s, place.failures)
            place.start_at_s = now_s + pause_s
            self._log.write(WORKER_ENDED, number=number, exit_status=status, restart_s=pause_s)

    def _ended(self) -> Iterator[tuple[int, _Place, int]]:
        """Number, place and exit status (negative: the signal) of each worker that has ended."""
        for number, place in enumerate(self._places):
            if not place.process_id:
                continue
            process_id, status = os.waitpid(place.process_id, os.WNOHANG)
            if process_id:
                place.process_id = 0
                self._tally.put(number, 0)
                yield number, place, os.waitstatus_to_exitcode(status)

    def _stop(self) -> None:
        """Each signal is passed on; who takes too long is killed."""
        self._bound.close()
        last_s = time.monotonic() + self._stop_s
        passed = 0
        while any(place.process_id for place in self._places):
            for number in self._asked_to_stop[passed:]:
                self._signal_all(signal.SIGTERM if passed == 0 else number)
                passed += 1
            left_s = last_s - time.monotonic()
            if left_s <= 0:
                self._kill_all()
                return
            self._wait(left_s)
            for _ in self._ended():
                pass

    def _signal_all(self, number: int) -> None:
        for place in self._places:
            if place.process_id:
                os.kill(place.process_id, number)

    def _kill_all(self) -> None:
        for number, place in enumerate(self._places):
            if place.process_id:
                os.kill(place.process_id, signal.SIGKILL)
                os.waitpid(place.process_id, 0)
                self._log.write(WORKER_KILLED, number=number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, _frame: FrameType | None) -> None:
            self._asked_to_stop.append(number)

        def wake(_number: int, _frame: FrameType | None) -> None:
            """The descriptor below is what wakes."""

        before = signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGCHLD: wake}
        old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
