"""Log lines carry names and numbers from declared events, and nothing that a client sent."""

import asyncio
import enum
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from dragonfly.infra.logging import (
    UNCAUGHT,
    Event,
    EventLog,
    FieldRefused,
    Level,
    as_name,
    catch_in_loop,
    catch_uncaught,
    describe,
    tame_libraries,
)
from tests.events import declared_events

CANARY = "CANARY my secret prompt"


class FixedClock:
    def now_ns(self) -> int:
        return 1_700_000_000_123_000_000

    def monotonic_s(self) -> float:
        return 0.0


class Colour(enum.Enum):
    RED = "red"


PAINTED = Event("painted", Level.INFO, {"colour": Colour, "count": int, "seconds": float, "dry": bool, "who": str})


class Sink:
    """An EventLog and the lines that it has written."""

    def __init__(self, **options: bool | Level) -> None:
        self.stream = io.BytesIO()
        self.log = EventLog(self.stream, FixedClock(), **options)  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        return self.stream.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    kept = root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:], level, sys.excepthook, threading.excepthook, sys.unraisablehook = kept
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_holds_time_level_event_and_the_declared_fields(sink: Sink) -> None:
    sink.log.write(PAINTED, colour=Colour.RED, count=2, seconds=1, dry=True, who="deepseek/flash@deepseek")
    assert sink.lines == [
        {
            "event": "painted",
            "level": "info",
            "time": "2023-11-14T22:13:20.123+00:00",
            "colour": "red",
            "count": 2,
            "seconds": 1,
            "dry": True,
            "who": "deepseek/flash@deepseek",
        }
    ]


GOOD = {"colour": Colour.RED, "count": 2, "seconds": 0.5, "dry": False, "who": "x"}
WRONG = [
    {"who": CANARY},
    {"who": "line\nbreak"},
    {"who": ""},
    {"who": "x" * 161},
    {"who": "naïve"},
    {"who": "name\n"},
    {"count": True},
    {"count": "CANARY"},
    {"count": 1.5},
    {"colour": "CANARY"},
    {"dry": 1},
    {"seconds": True},
    {"extra": "CANARY"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_field_raises_in_tests_and_is_left_out_in_production(wrong: dict[str, object]) -> None:
    fields = {**GOOD, **wrong}
    with pytest.raises(FieldRefused, match="wrong or incomplete fields"):
        Sink(strict=True).log.write(PAINTED, **fields)  # type: ignore[arg-type]
    lenient = Sink()
    lenient.log.write(PAINTED, **fields)  # type: ignore[arg-type]
    assert "CANARY" not in lenient.text
    assert lenient.lines[0]["fields_refused"] is True
    assert set(lenient.lines[0]) - {"fields_refused", "event", "level", "time"} == set(GOOD) - set(wrong)


def test_a_missing_field_is_told(sink: Sink) -> None:
    sink.log.write(Event("bare", Level.ERROR, {"count": int}))
    assert sink.lines[0]["fields_refused"] is True


def test_events_below_the_level_are_not_written() -> None:
    quiet = Sink(level=Level.WARNING)
    quiet.log.write(PAINTED, **GOOD)  # type: ignore[arg-type]
    assert quiet.text == ""


def failing(message: str) -> None:
    local_secret = message
    raise ValueError(local_secret)


def test_an_exception_is_described_by_types_and_places_alone() -> None:
    try:
        try:
            failing(CANARY)
        except ValueError as first:
            raise KeyError(CANARY) from first
    except KeyError as failure:
        described = describe(failure)
    assert described.exceptions == ("builtins.KeyError", "builtins.ValueError")
    assert described.frames[-1].startswith("test_logging.py:")
    assert "CANARY" not in repr(described)


def test_names_from_code_are_cleaned() -> None:
    assert as_name("test.<locals>.Inner") == "_test._locals_.Inner"
    assert len(as_name("é" * 500)) <= 160


@pytest.mark.usefixtures("restored_logging")
def test_what_libraries_log_loses_its_words(sink: Sink) -> None:
    tame_libraries(sink.log)
    logging.getLogger("uvicorn.error").error("Exception in %s", CANARY)
    logging.getLogger("uvicorn.access").error(CANARY)
    logging.getLogger("sqlalchemy.pool").warning(CANARY)
    logging.getLogger("anything").info(CANARY)
    warnings.warn(CANARY, stacklevel=1)
    try:
        failing(CANARY)
    except ValueError:
        logging.getLogger("uvicorn.error").exception(CANARY)
    assert "CANARY" not in sink.text
    assert [(line["event"], line["logger"]) for line in sink.lines] == [
        ("library_error", "uvicorn.error"),
        ("library_warning", "sqlalchemy.pool"),
        ("library_warning", "py.warnings"),
        ("library_error", "uvicorn.error"),
    ]
    assert sink.lines[3]["exceptions"] == ["builtins.ValueError"]


@pytest.mark.usefixtures("restored_logging")
def test_uncaught_exceptions_lose_their_words(sink: Sink, capfd: pytest.CaptureFixture[str]) -> None:
    catch_uncaught(sink.log)
    thread = threading.Thread(target=failing, args=(CANARY,))
    thread.start()
    thread.join()
    try:
        failing(CANARY)
    except ValueError as failure:
        sys.excepthook(type(failure), failure, failure.__traceback__)
    assert [(line["source"], line["exceptions"]) for line in sink.lines] == [
        ("thread", ["builtins.ValueError"]),
        ("main", ["builtins.ValueError"]),
    ]
    assert "CANARY" not in sink.text + capfd.readouterr().err


def test_exceptions_that_nobody_retrieves_lose_their_words(sink: Sink) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        catch_in_loop(sink.log, loop)
        loop.call_soon(failing, CANARY)
        await asyncio.sleep(0)
        loop.call_exception_handler({"message": CANARY})

    asyncio.run(main())
    assert [line["event"] for line in sink.lines] == [UNCAUGHT.name] * 2
    assert sink.lines[0]["exceptions"] == ["builtins.ValueError"]
    assert "CANARY" not in sink.text


def test_events_have_unique_snake_case_names_and_known_field_types() -> None:
    events = declared_events()
    names = [event.name for event in events]
    assert len(set(names)) == len(names)
    for event in events:
        assert event.name.isidentifier()
        assert event.name == event.name.lower()
        assert not {"event", "level", "time", "fields_refused"} & set(event.fields)
        for kind in event.fields.values():
            assert kind in (int, float, bool, str, tuple) or issubclass(kind, enum.Enum)


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        log = EventLog(full, FixedClock(), strict=True)
        log.write(UNCAUGHT, source="main", exceptions=(), frames=())
        with pytest.raises(FieldRefused):
            log.write(UNCAUGHT, source="not a name", exceptions=(), frames=())


def test_lines_of_a_worker_have_its_number() -> None:
    stream = io.BytesIO()
    EventLog(stream, FixedClock(), strict=True, worker=3).write(UNCAUGHT, source="main", exceptions=(), frames=())
    assert json.loads(stream.getvalue())["worker"] == 3
