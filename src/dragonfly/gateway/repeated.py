"""The head that a client sends again: clients with a kept connection send the same bytes but for the length.

Parsing a head and checking it again costs a tenth of a request. So the last one that was parsed and found good is
kept, and a read that begins with the same bytes, holds another length in the same place and then just that much of
a body is taken as what the parser would have made of it. Everything else goes to the parser, as a whole.
"""

import re
from typing import NamedTuple

from dragonfly.core.content import holds_content

DIGITS_MAX = 6
_length = re.compile(rb"\r\ncontent-length:[ \t]*(?=[0-9])", re.IGNORECASE)


BLANK_LINE = b"\r\n\r\n"
UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


@holds_content
class ParsedHead(NamedTuple):
    """What the parser made of a head, for a connection that stays open."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    """With the length of the first request that had this head; not written to."""
    body_bytes: int


@holds_content
class RepeatedHead(NamedTuple):
    """A head of one connection that may come again."""

    before: bytes
    """Up to the digits of the length."""
    after: bytes
    """From behind the digits to the end of the blank line."""
    parsed: ParsedHead

    def body_of(self, data: bytes, bytes_max: int) -> bytes | None:
        """The body, when `data` is exactly one whole request with this head and at most so many bytes; else None."""
        before, after, _ = self
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + DIGITS_MAX + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        digits = data[start:end]
        body_at = end + len(after)
        body_bytes = len(data) - body_at
        if body_bytes > bytes_max or not digits.isdigit() or int(digits) != body_bytes:
            return None
        return data[body_at:]


def repeatable(data: bytes, parsed: ParsedHead) -> RepeatedHead | None:
    """The head of `data`, a read in which one request began with the first byte and was complete.

    It has passed the parser and every check, so there is one length, no folded line and no bare line end. None when
    more or less than that request stands in the read, or when its head has no length.
    """
    head_bytes = len(data) - parsed.body_bytes
    if data.find(BLANK_LINE) != head_bytes - len(BLANK_LINE) or not UNUSUAL.isdisjoint(parsed.headers):
        return None
    found = _length.search(data, 0, head_bytes)
    if found is None:
        return None
    start = found.end()
    return RepeatedHead(data[:start], data[data.index(b"\r", start) : head_bytes], parsed)
