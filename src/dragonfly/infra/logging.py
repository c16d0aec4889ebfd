"""Log lines: JSON on standard error, made from declared events with typed fields, never from free text.

A field is a number, a truth value, a member of an enum, or a name: text of a narrow alphabet without blanks,
for ids and names from the configuration. What libraries log is reduced to who logged where and the types of
the exceptions, because their messages may quote what a client sent.
"""

import asyncio
import enum
import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import BinaryIO, NamedTuple

import msgspec
import structlog

from dragonfly.core.clock import Clock

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,159}", re.ASCII)
FRAMES_MAX = 20
CAUSES_MAX = 5
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.:/@+-]", re.ASCII)

Field = int | float | str | enum.Enum | tuple[str, ...]


class Level(enum.IntEnum):
    """How loud; the values are those of the standard library."""

    INFO = logging.INFO
    WARNING = logging.WARNING
    ERROR = logging.ERROR


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log line. Declared at module level beside the code that writes it; names are unique.

    `fields` gives each field's type: int, float, bool, an enum, str (a name) or tuple (of names).
    """

    name: str
    level: Level
    fields: Mapping[str, type] = field(default_factory=dict)


LIBRARY_WARNING = Event("library_warning", Level.WARNING, {"logger": str, "place": str, "exceptions": tuple})
LIBRARY_ERROR = Event(
    "library_error", Level.ERROR, {"logger": str, "place": str, "exceptions": tuple, "frames": tuple}
)
UNCAUGHT = Event("uncaught_exception", Level.ERROR, {"source": str, "exceptions": tuple, "frames": tuple})


class FieldRefused(TypeError):
    """A log line was given a field that its event does not declare, or a value of another type."""


class EventLog:
    """Writes events as lines. `strict` raises for a wrong field (tests); else the field is left out and told.

    With a `worker`, every line has its number.
    """

    def __init__(
        self,
        stream: BinaryIO,
        clock: Clock,
        *,
        level: Level = Level.INFO,
        strict: bool = False,
        worker: int | None = None,
    ) -> None:
        self._clock = clock
        self._level = level
        self._strict = strict
        self._always: dict[str, int] = {} if worker is None else {"worker": worker}
        self._lines: structlog.BoundLogger = structlog.wrap_logger(
            structlog.BytesLogger(stream),
            processors=[structlog.processors.JSONRenderer(serializer=_encode)],
            wrapper_class=structlog.BoundLogger,
        )

    def write(self, event: Event, **fields: Field) -> None:
        """One line; nothing when the event is below the level."""
        if event.level < self._level:
            return
        shown = {name: _plain(value) for name, value in fields.items() if _fits(event.fields.get(name), value)}
        if shown.keys() != event.fields.keys() or len(shown) != len(fields):
            if self._strict:
                raise FieldRefused(f"the event {event.name} was given wrong or incomplete fields")
            shown["fields_refused"] = True
        stamp = datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC).isoformat(timespec="milliseconds")
        with suppress(OSError):  # a log that nobody takes any more, or a full disk, must not stop the service
            self._lines.msg(event.name, level=event.level.name.lower(), time=stamp, **self._always, **shown)


class Described(NamedTuple):
    """An exception without its words."""

    exceptions: tuple[str, ...]
    """Its type, then those of its causes."""
    frames: tuple[str, ...]
    """`file.py:line:function`, the innermost last."""


def describe(failure: BaseException) -> Described:
    """Types and places of an exception: no message, no argument, no local, no line of source."""
    types: list[str] = []
    current: BaseException | None = failure
    while current is not None and len(types) < CAUSES_MAX:
        types.append(as_name(f"{type(current).__module__}.{type(current).__qualname__}"))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return Described(tuple(types), _frames(failure.__traceback__))


def as_name(text: str) -> str:
    """`text` cut and cleaned to what a name may be; for names that come from code, not from people."""
    return "_" + _NOT_IN_NAMES.sub("_", text)[:158] if not NAME.fullmatch(text) else text


def tame_libraries(log: EventLog) -> None:
    """Sends what the standard library's logging carries (uvicorn, asyncio, SQLAlchemy …) into `log`, reduced."""
    root = logging.getLogger()
    root.handlers[:] = [_Reducer(log)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access", "asyncio", "sqlalchemy", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = name != "uvicorn.access"
        library.setLevel(logging.WARNING)


def catch_uncaught(log: EventLog) -> None:
    """Last resorts of the process: the default ones print an exception's message and lines of source."""

    def main(_type: type[BaseException], failure: BaseException, _trace: TracebackType | None) -> None:
        _write_uncaught(log, "main", failure)

    def thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            _write_uncaught(log, "thread", arguments.exc_value)

    def unraisable(arguments: "sys.UnraisableHookArgs") -> None:
        if arguments.exc_value is not None:
            _write_uncaught(log, "finalizer", arguments.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = main, thread, unraisable


def catch_in_loop(log: EventLog, loop: asyncio.AbstractEventLoop) -> None:
    """Replaces asyncio's handler, which logs the message of an exception that nobody retrieved."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        failure = context.get("exception")
        if isinstance(failure, BaseException):
            _write_uncaught(log, "loop", failure)
        else:
            log.write(UNCAUGHT, source="loop", exceptions=(), frames=())

    loop.set_exception_handler(handle)


class _Reducer(logging.Handler):
    """Turns a library's record into an event of ours; its message and arguments are not even formatted."""

    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        logger = as_name(record.name)
        place = as_name(f"{record.module}:{record.lineno}")
        failure = record.exc_info[1] if record.exc_info else None
        exceptions, frames = describe(failure) if failure is not None else Described((), ())
        if record.levelno >= logging.ERROR:
            self._log.write(LIBRARY_ERROR, logger=logger, place=place, exceptions=exceptions, frames=frames)
        else:
            self._log.write(LIBRARY_WARNING, logger=logger, place=place, exceptions=exceptions)


def _write_uncaught(log: EventLog, source: str, failure: BaseException) -> None:
    exceptions, frames = describe(failure)
    log.write(UNCAUGHT, source=source, exceptions=exceptions, frames=frames)


def _frames(trace: TracebackType | None) -> tuple[str, ...]:
    places = [
        as_name(f"{frame.f_code.co_filename.rpartition('/')[2]}:{line}:{frame.f_code.co_name}")
        for frame, line in traceback.walk_tb(trace)
    ]
    return tuple(places[-FRAMES_MAX:])


def _fits(kind: type | None, value: Field) -> bool:
    if kind is None:
        return False
    if kind is str:
        return isinstance(value, str) and NAME.fullmatch(value) is not None
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(str, part) for part in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _plain(value: Field) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def _encode(line: object, **_unused: object) -> bytes:
    return msgspec.json.encode(line)
