"""One cheap test before anything is looked into: most reads of a stream hold nothing that matters.

The test decodes the JSON into a type in which every name that could matter must be null, and everything else is
skipped. That takes about 0.4 µs for 300 bytes, against 0.2 µs for a search for one name, and it cannot be misled
by spacing, key order or escapes such as `\\u0065rror`.
"""

import msgspec
from msgspec import Struct


class _Choice(Struct, gc=False):
    finish_reason: None = None
    error: None = None
    usage: None = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: None = None
    error: None = None
    x_groq: None = None
    base_resp: None = None
    message: None = None
    response: None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_START = b"data: {"
_START_LENGTH = 7
_BODY_AT = 6


def plain_events(data: bytes) -> int:
    """How many complete events these are, when they certainly hold no finish reason, usage, error, [DONE] or
    comment; else 0.

    `data` must end with the blank line of its last event. 0 also for much that is harmless: several data
    lines in one event, CR line ends, odd framing, JSON that is none.
    """
    if data.find(b"\r") >= 0:
        return 0
    try:
        if data.find(b"\n") == len(data) - 2:
            if data[:_START_LENGTH] != _START:
                return 0
            _decode(data[_BODY_AT:])
            return 1
        if not data.endswith(b"\n\n"):
            return 0
        events = data[:-2].split(b"\n\n")
        if data.count(b"\n") != 2 * len(events):
            return 0
        for event in events:
            if event[:_START_LENGTH] != _START:
                return 0
            _decode(event[_BODY_AT:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    return len(events)
