"""What the mock upstream can be asked to do, named in the request's `model` or, where a gateway only knows
models of its own, in its field `user`.

bench-json-BYTES        one JSON answer of about BYTES bytes, at once
bench-late-MS           the small JSON answer after MS milliseconds
bench-sse-NxUS          a stream of N content chunks, one every US microseconds (0: all at once), usage
                        in the finish chunk as DeepSeek sends it, then [DONE]
bench-openai-NxUS       the same, usage in a chunk of its own with empty choices, as OpenAI sends it
bench-fault-KIND        one of the faults below
"""

import enum
import re
from dataclasses import dataclass

CHUNKS_MAX = 100_000
ANSWER_BYTES_MAX = 16 * 1024 * 1024
LATENCY_MS_MAX = 60_000
GAP_US_MAX = 3_600_000_000

_NAME = re.compile(r"bench-(json|late|sse|openai|fault)-([a-z0-9]+)")
_STREAM = re.compile(r"(\d{1,6})x(\d{1,10})")


class Kind(enum.Enum):
    """The families of modes."""

    JSON = "json"
    LATE = "late"
    SSE = "sse"
    OPENAI = "openai"
    FAULT = "fault"


class Fault(enum.Enum):
    """Ways in which the mock misbehaves."""

    RATE_LIMITED = "429"
    BROKEN = "500"
    HTML = "html"
    RESET = "reset"
    CUT = "cut"
    """A stream that ends after eight chunks without its end."""
    SILENT = "silent"
    """The request is taken and never answered."""
    GARBAGE = "garbage"
    """Bytes that are not HTTP."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One behaviour of the mock."""

    name: str
    kind: Kind
    answer_bytes: int = 0
    latency_ms: int = 0
    chunks: int = 0
    gap_us: int = 0
    fault: Fault | None = None

    @property
    def is_stream(self) -> bool:
        return self.kind in (Kind.SSE, Kind.OPENAI)


class UnknownMode(ValueError):
    """The name is not of the grammar above, or a number in it is out of bounds."""


def mode_of(name: str) -> Mode:
    """Parse a mode's name; UnknownMode when it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UnknownMode("not the name of a mode of the mock upstream")
    kind, rest = Kind(match[1]), match[2]
    if kind in (Kind.SSE, Kind.OPENAI):
        return _stream_mode(name, kind, rest)
    if kind is Kind.FAULT:
        if rest not in {fault.value for fault in Fault}:
            raise UnknownMode("no such fault")
        return Mode(name, kind, fault=Fault(rest))
    most = ANSWER_BYTES_MAX if kind is Kind.JSON else LATENCY_MS_MAX
    if not rest.isdigit() or int(rest) > most:
        raise UnknownMode("a number is missing or out of bounds")
    if kind is Kind.JSON:
        return Mode(name, kind, answer_bytes=int(rest))
    return Mode(name, kind, latency_ms=int(rest))


def _stream_mode(name: str, kind: Kind, rest: str) -> Mode:
    match = _STREAM.fullmatch(rest)
    if match is None:
        raise UnknownMode("a stream mode is named NxMICROSECONDS")
    chunks, gap_us = int(match[1]), int(match[2])
    if not 1 <= chunks <= CHUNKS_MAX or gap_us > GAP_US_MAX:
        raise UnknownMode("a number is out of bounds")
    return Mode(name, kind, chunks=chunks, gap_us=gap_us)


JSON_SMALL = "bench-json-230"
JSON_1K = "bench-json-1024"
STREAM_TTFT = "bench-sse-2x1000"
STREAM_FAST = "bench-sse-64x5000"
STREAM_PACED = "bench-sse-64x20000"
STREAM_CHUNKS = "bench-sse-1000x20000"
STREAM_500 = "bench-sse-40x50000"
STREAM_1000 = "bench-sse-30x100000"
STREAM_LONG = "bench-sse-70x100000"
STREAM_HELD = "bench-sse-2x1800000000"
STREAM_BULK = "bench-sse-40000x0"

# Gateways that must be told every model by name are configured with these.
MODELS = (
    JSON_SMALL,
    JSON_1K,
    STREAM_TTFT,
    STREAM_FAST,
    STREAM_PACED,
    STREAM_CHUNKS,
    STREAM_500,
    STREAM_1000,
    STREAM_LONG,
    STREAM_HELD,
    STREAM_BULK,
)
