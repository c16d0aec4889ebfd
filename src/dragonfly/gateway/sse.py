"""Server-sent events as bytes: finding where events end, without decoding them.

Only CR, LF and CRLF end a line (the standard's three); `str.splitlines` would also split on U+2028 and
others inside JSON text.
"""

import re

_boundary = re.compile(rb"\n\n|\r\n\r\n|\r\r|\n\r\n")


def complete_length(data: bytes) -> int:
    """How many of the first bytes are whole events: the end of the last blank line, or 0."""
    if data.endswith((b"\n\n", b"\r\n\r\n")):
        return len(data)
    return max(_after(data, b"\n\n"), _after(data, b"\r\n\r\n"), _after(data, b"\r\r"), _after(data, b"\n\r\n"))


def _after(data: bytes, boundary: bytes) -> int:
    position = data.rfind(boundary)
    return position + len(boundary) if position >= 0 else 0


def split_events(data: bytes) -> list[bytes]:
    """The events in `data` (whole ones only), each with its blank line; joined they are `data` again."""
    events = []
    start = 0
    for match in _boundary.finditer(data):
        events.append(data[start : match.end()])
        start = match.end()
    if start < len(data):
        events.append(data[start:])
    return events
