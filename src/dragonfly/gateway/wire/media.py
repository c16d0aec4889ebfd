"""Content parts that are not text, found by byte searches: their bytes say nothing about their tokens.

An image by URL is 40 bytes and a thousand tokens; the same image inline is a megabyte and a thousand tokens.
"""

import re
from typing import NamedTuple

from msgspec import Raw

IMAGE_TOKENS_MOST = 8_000
"""Held for each image. Providers count 85 to 1,600 tokens at common sizes; tiled ones go higher."""
IMAGE_TOKENS_USUAL = 1_200
"""Charged for each image when a client leaves before the provider has counted."""
UNBOUNDED_TOKENS = 2**31 - 1
"""Files, sound and film may fill the whole context: admission cuts this to what the model takes."""

_IMAGE = b'"image_url"'
_UNBOUNDED = (
    b'"video_url"',
    b'"audio_url"',
    b'"input_audio"',
    b'"input_image"',
    b'"input_video"',
    b'"input_file"',
    b'"file"',
    b'"file_id"',
    b'"file_url"',
    b'"video"',
    b'"audio"',
    b'"image"',
    b'"document"',
    b"\\u004",
    b"\\u005",
    b"\\u006",
    b"\\u007",
)
"""Parts whose tokens nothing bounds, and escapes of ASCII letters, which no client writes and which could hide one.
A quotation mark inside text is escaped, so that words in a prompt do not match."""
_TYPE, _URL, _ESCAPE = b'"type"', b'_url"', b"\\u00"
"""Every part names its type or holds an address, and so does a tool; most bodies hold neither."""
_image_fields = re.compile(rb'"image_url"\s*:')
_inline = re.compile(rb'"url"\s*:\s*"data:[a-z]+/[^",;]{1,60};base64,[A-Za-z0-9+/=]*"')


class Media(NamedTuple):
    """What a request holds besides text."""

    images: int
    inline_bytes: int
    """Bytes of data URLs: in the body, but not text."""
    is_unbounded: bool

    @property
    def tokens_most(self) -> int:
        return UNBOUNDED_TOKENS if self.is_unbounded else self.images * IMAGE_TOKENS_MOST

    @property
    def tokens_usual(self) -> int:
        return self.images * IMAGE_TOKENS_USUAL


NO_MEDIA = Media(0, 0, False)


def find_media(body: bytes, messages: Raw) -> Media:
    """What stands in the messages; the body is searched first, because most hold nothing of the kind.

    An image counts by its field, because some servers take parts without a type.
    """
    if _TYPE not in body and _URL not in body and _ESCAPE not in body:
        return NO_MEDIA
    if _IMAGE not in body and not any(mark in body for mark in _UNBOUNDED):
        return NO_MEDIA
    parts = bytes(messages)
    is_unbounded = any(mark in parts for mark in _UNBOUNDED)
    inline_bytes = sum(match.end() - match.start() for match in _inline.finditer(parts))
    return Media(len(_image_fields.findall(parts)), inline_bytes, is_unbounded)
