"""Proof that what arrived is what the mock sent: order and number of events, content, usage, end.

Bodies are kept while a window runs and judged after it, so that proving costs no time inside it. Each is
EXACT (the mock's bytes, stamps aside), REBUILT (other bytes, same content, usage and end) or WRONG.
"""

import enum
import json
import re
from collections.abc import Iterable
from functools import lru_cache

from bench.answers import DONE_EVENT, STAMP_DIGITS, at_once, json_body, stream_answer
from bench.modes import Kind, Mode

KEPT_BYTES_MAX = 768 * 1024 * 1024

STAMPED = re.compile(rb"tok(\d{6}):(\d{19})")
_STAMP = re.compile(rb"(?<=tok\d{6}:)\d{19}")
_BLANK = b"0" * STAMP_DIGITS
_FRAME = re.compile(rb"\r\n[0-9a-f]+\r\n")


class Verdict(enum.Enum):
    """How a body compares with what the mock sent."""

    EXACT = "exact"
    REBUILT = "rebuilt"
    WRONG = "wrong"


class TooMuchKept(RuntimeError):
    """A window received more than may be kept for its proof; make it shorter."""


class Bodies:
    """The bodies of a window: equal ones are counted, distinct ones kept."""

    __slots__ = ("_kept_bytes", "counts")

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}
        self._kept_bytes = 0

    def add(self, body: bytes) -> None:
        """Count one complete body."""
        counts = self.counts
        seen = counts.get(body)
        if seen is not None:
            counts[body] = seen + 1
            return
        counts[body] = 1
        self._kept_bytes += len(body)
        if self._kept_bytes > KEPT_BYTES_MAX:
            raise TooMuchKept("the window received more bytes than are kept for its proof")

    def judge(self, mode: Mode) -> dict[Verdict, int]:
        """Judge all bodies against the mode; every verdict has an entry."""
        verdicts = dict.fromkeys(Verdict, 0)
        for body, count in self.counts.items():
            verdicts[judge(mode, body)] += count
        return verdicts


def judge(mode: Mode, body: bytes) -> Verdict:
    """Judge one body, already freed of HTTP's framing."""
    if (_STAMP.sub(_BLANK, body) if mode.is_stream else body) == expected_body(mode):
        return Verdict.EXACT
    try:
        good = _same_stream(mode, body) if mode.is_stream else _same_json(mode, body)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Verdict.WRONG
    return Verdict.REBUILT if good else Verdict.WRONG


@lru_cache(64)
def expected_body(mode: Mode) -> bytes:
    """The body of a mode without framing, stamps zero."""
    if mode.kind is Kind.JSON:
        return json_body(mode.name, mode.answer_bytes)
    if mode.kind is Kind.LATE:
        return json_body(mode.name, 230)
    framed = at_once(mode, stream_answer(mode)).partition(b"\r\n\r\n")[2]
    return _FRAME.sub(b"", b"\r\n" + framed).removesuffix(b"\r\n")


def _same_json(mode: Mode, body: bytes) -> bool:
    wanted, got = json.loads(expected_body(mode)), json.loads(body)
    choice, wanted_choice = got["choices"][0], wanted["choices"][0]
    return (
        choice["message"]["content"] == wanted_choice["message"]["content"]
        and choice["finish_reason"] == wanted_choice["finish_reason"]
        and _same_usage(got["usage"], wanted["usage"])
    )


def _same_usage(got: dict[str, object], wanted: dict[str, object]) -> bool:
    names = ("prompt_tokens", "completion_tokens")
    return all(got[name] == wanted[name] for name in names)


def events(body: bytes) -> Iterable[bytes]:
    """The data of each SSE event of a body; comments are left out."""
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
        if lines:
            yield b"\n".join(lines)


def _same_stream(mode: Mode, body: bytes) -> bool:
    text: list[str] = []
    finish_reasons: list[str] = []
    usages: list[dict[str, object]] = []
    *datas, last = events(body)
    for data in datas:
        event = json.loads(data)
        if event.get("usage"):
            usages.append(event["usage"])
        for choice in event["choices"]:
            text.append(choice["delta"].get("content") or "")
            if choice.get("finish_reason"):
                finish_reasons.append(choice["finish_reason"])
    numbers = [int(number) for number, _ in STAMPED.findall("".join(text).encode())]
    return (
        last == DONE_EVENT[6:-2]
        and numbers == list(range(mode.chunks))
        and len("".join(text)) == mode.chunks * (len("tok:") + 6 + STAMP_DIGITS + 1)
        and finish_reasons == ["stop"]
        and bool(usages)
        and _same_usage(usages[-1], {"prompt_tokens": 25, "completion_tokens": mode.chunks})
    )
