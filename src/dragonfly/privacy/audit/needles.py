"""What is looked for: a word in every form in which software keeps text, also inside compressed data.

Forms: as it is and reversed, upper and lower case, UTF-16, base64 and base64url at each of the three offsets, hex,
percent and JSON escapes, pieces of eight characters; all of these again inside whatever gzip, zlib or ZIP can open.
"""

import base64
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

WORD_LENGTH_MIN = 20
PIECE = 8
PIECE_STRIDE = 4
INFLATED_BYTES_MAX = 64 * 1024 * 1024
"""Of one compressed stream; what comes after is not looked at."""
STREAMS_MAX = 20_000
"""Beginnings of compressed data tried in one window."""
_GZIP = b"\x1f\x8b\x08"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_PROBE = 64
_EITHER = 47
"""zlib's way to say: gzip or zlib, whatever the header says."""
_BARE = -15
"""zlib's way to say: without a header."""
_ZIP = b"PK\x03\x04"
_ZIP_HEAD = 30
_DEPTH_MAX = 2


@dataclass(frozen=True, slots=True)
class Needles:
    """One word in all its forms."""

    forms: tuple[tuple[str, bytes], ...]
    """(name of the form, bytes)"""

    @property
    def length_max(self) -> int:
        """Windows overlap by this, so that nothing hides on a border."""
        return max(len(form) for _, form in self.forms)

    def found_in(self, data: bytes) -> str:
        """The name of the first form that is in `data`, plain or compressed; "" when there is none."""
        return self._found_plain(data) or self._found_packed(data, 0)

    def _found_plain(self, data: bytes) -> str:
        return next((name for name, form in self.forms if form in data), "")

    def _found_packed(self, data: bytes, depth: int) -> str:
        for inflated in unpacked(data):
            found = self._found_plain(inflated)
            if not found and depth < _DEPTH_MAX:
                found = self._found_packed(inflated, depth + 1)
            if found:
                return f"compressed, {found}"
        return ""


def needles_for(word: str) -> Needles:
    """Every form of `word`: ASCII letters and digits, WORD_LENGTH_MIN or more of them."""
    assert word.isascii(), "forms are made from bytes"
    assert word.isalnum(), "escapes that keep letters and digits cannot change it"
    assert len(word) >= WORD_LENGTH_MIN, "pieces of a shorter word are found by chance"
    raw = word.encode()
    forms = [
        ("plain", raw),
        ("lower case", raw.lower()),
        ("upper case", raw.upper()),
        ("reversed", raw[::-1]),
        ("UTF-16", word.encode("utf-16-le")),
        ("UTF-16, big end first", word.encode("utf-16-be")),
        ("hex", raw.hex().encode()),
        ("hex, upper case", raw.hex().upper().encode()),
        ("percent escapes", "".join(f"%{byte:02X}" for byte in raw).encode()),
        ("percent escapes, lower case", "".join(f"%{byte:02x}" for byte in raw).encode()),
        ("JSON escapes", "".join(f"\\u{byte:04x}" for byte in raw).encode()),
        ("JSON escapes, upper case", "".join(f"\\u{byte:04X}" for byte in raw).encode()),
    ]
    forms += [(f"base64, offset {offset}", form) for offset, form in enumerate(_base64(raw, base64.b64encode))]
    forms += [
        (f"base64url, offset {offset}", form) for offset, form in enumerate(_base64(raw, base64.urlsafe_b64encode))
    ]
    pieces = range(0, len(raw) - PIECE + 1, PIECE_STRIDE)
    forms += [(f"a piece at {start}", raw[start : start + PIECE]) for start in pieces]
    return Needles(tuple(forms))


def _base64(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """The characters that depend on `raw` alone, for each place that it can have in groups of three bytes."""
    for offset in range(3):
        encoded = encode(b"\0" * offset + raw)
        begin = -(-offset * 4 // 3)
        end = (offset + len(raw)) * 4 // 3
        yield encoded[begin:end]


def unpacked(data: bytes) -> Iterator[bytes]:
    """What every gzip, zlib or ZIP stream in `data` holds, as far as it can be opened; cut streams too."""
    for start, bits in _beginnings(data):
        try:
            zlib.decompressobj(wbits=bits).decompress(data[start : start + _PROBE], _PROBE)
        except zlib.error:
            continue  # by far the most: two bytes that look like a beginning
        yield _inflated(memoryview(data)[start:], bits)


def _inflated(packed: memoryview, bits: int) -> bytes:
    """As much as comes out before an error; the error itself is expected, as most streams are cut by a window."""
    opener = zlib.decompressobj(wbits=bits)
    parts = []
    size = 0
    try:
        for start in range(0, len(packed), 65_536):
            part = opener.decompress(packed[start : start + 65_536], INFLATED_BYTES_MAX - size)
            parts.append(part)
            size += len(part)
            if opener.eof or size >= INFLATED_BYTES_MAX:
                break
    except zlib.error:
        pass
    return b"".join(parts)


def _beginnings(data: bytes) -> Iterator[tuple[int, int]]:
    """Where compressed data may begin, and what zlib calls their kind."""
    left = STREAMS_MAX
    for magic in (_GZIP, *_ZLIB, _ZIP):
        start = data.find(magic)
        while start >= 0 and left:
            left -= 1
            yield (start + _zip_head(data[start : start + _ZIP_HEAD]), _BARE) if magic == _ZIP else (start, _EITHER)
            start = data.find(magic, start + 1)


def _zip_head(head: bytes) -> int:
    """How long the head of a file in a ZIP is, with the file's name (APPNOTE.TXT, 4.3.7)."""
    return _ZIP_HEAD + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
