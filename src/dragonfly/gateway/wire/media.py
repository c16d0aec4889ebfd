"""Content parts that are not text, found by byte searches: their bytes say nothing about their tokens.

An image by URL is 40 bytes and a thousand tokens; the same image inline is a megabyte and a thousand tokens.
"""

from typing import NamedTuple

IMAGE_TOKENS_MOST = 8_000
"""Held for each image. Providers count 85 to 1,600 tokens at common sizes; tiled ones go higher."""
IMAGE_TOKENS_USUAL = 1_200
"""Charged for each image when a client leaves before the provider has counted."""
UNBOUNDED_TOKENS = 2**31 - 1
"""Files, sound and film may fill the whole context: admission cuts this to what the model takes."""
PARTS_READ_MAX = 2_000

_IMAGE = b'"image_url"'
_UNBOUNDED = (b'"video_url"', b'"input_audio"', b'"file"', b'"input_video"')
_URL, _INPUT, _FILE = b'_url"', b'"input_', b'"file"'
"""One of these stands in every mark above: most bodies hold none."""
_INLINE = b'"data:'


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


def find_media(body: bytes) -> Media:
    """Counts at least what is there: a part's type and its field have the same name, so images count double
    only where both are written."""
    if _URL not in body and _INPUT not in body and _FILE not in body:
        return NO_MEDIA
    is_unbounded = any(mark in body for mark in _UNBOUNDED)
    marks = body.count(_IMAGE)
    if not marks and not is_unbounded:
        return NO_MEDIA
    return Media((marks + 1) // 2, _inline_bytes(body), is_unbounded)


def _inline_bytes(body: bytes) -> int:
    total = position = 0
    for _ in range(PARTS_READ_MAX):
        start = body.find(_INLINE, position)
        if start < 0:
            break
        end = body.find(b'"', start + 1)
        if end < 0:
            break
        total += end - start
        position = end
    return total
