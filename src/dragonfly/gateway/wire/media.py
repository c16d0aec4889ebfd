"""Content parts: which ones are served, and what those that are not text may cost.

An image by URL is 40 bytes and a thousand tokens; the same image inline is a megabyte and a thousand tokens. So
parts are an allow list: text, images, and the kinds that a provider bills by its text tokens. What nothing bounds
holds the whole context. Sound has prices of its own that no catalogue here knows, so it is refused.

Most messages are plain text. One search over the bytes tells them apart, and only the others are decoded.
"""

import re
from typing import NamedTuple

import msgspec
from msgspec import Raw

from dragonfly.core.content import holds_content
from dragonfly.gateway.refusals import Refusal

IMAGE_TOKENS_MOST = 8_000
"""Held for each image. Providers count 85 to 1,600 tokens at common sizes; tiled ones go higher."""
IMAGE_TOKENS_USUAL = 1_200
"""Charged for each image when a client leaves before the provider has counted."""
UNBOUNDED_TOKENS = 2**31 - 1
"""Files and film may fill the whole context: admission cuts this to what the model takes."""
LARGE_BYTES = 256 * 1024
"""From here on few messages are decoded at once: the search takes 30 ms for 10 MB of text with many quotation marks,
which would hold other requests up."""
OBJECTS_MAX = 20_000
"""Messages and parts that are looked at. With more, the whole context is held instead."""

TEXT_TYPES = frozenset({"text", "refusal", "input_text", "output_text", "thinking", "redacted_thinking"})
IMAGE_TYPES = frozenset({"image_url", "input_image"})
UNBOUNDED_TYPES = frozenset({"image", "video", "video_url", "input_video", "file", "input_file", "document"})
TYPES = TEXT_TYPES | IMAGE_TYPES | UNBOUNDED_TYPES

_suspicious = re.compile(rb'"(?:content"\s*:\s*[\[{]|(?:audio|image|video|file|document)\w*"\s*:)')
"""A list of parts, or a message's own field for media. A quotation mark inside text is escaped, so that words in a
prompt do not match."""
_content_lists = re.compile(rb'"content"\s*:\s*\[')
_hidden = re.compile(rb"\\u00[4-7]")
"""Escapes of ASCII letters, which no client writes and which could hide a name from the search."""
_inline = re.compile(rb'"url"\s*:\s*"data:image/[^",;]{1,60};base64,[A-Za-z0-9+/=]*"')
_other_data = re.compile(rb'"\s*data:(?!image/)', re.IGNORECASE)
_EMPTY = frozenset({b"", b"null", b"[]", b'""'})
_STRING, _LIST, _NULL = ord('"'), ord("["), ord("n")


@holds_content
class _Message(msgspec.Struct, gc=False):
    content: Raw = Raw(b"null")
    audio: Raw = Raw()
    audios: Raw = Raw()
    image: Raw = Raw()
    images: Raw = Raw()
    image_url: Raw = Raw()
    image_urls: Raw = Raw()
    video: Raw = Raw()
    videos: Raw = Raw()
    file: Raw = Raw()
    files: Raw = Raw()
    document: Raw = Raw()
    documents: Raw = Raw()


@holds_content
class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    text: Raw = Raw()
    image_url: Raw = Raw()
    min_pixels: Raw = Raw()
    max_pixels: Raw = Raw()


_messages = msgspec.json.Decoder(list[_Message])
_parts = msgspec.json.Decoder(list[_Part | str])
_OWN_MEDIA = tuple(name for name in _Message.__struct_fields__ if name != "content")


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
    """What stands in `messages`, a field of `body`; Refusal for parts that are not served."""
    is_large = len(messages) > LARGE_BYTES
    if not is_large and _is_plain(body, messages):
        return NO_MEDIA
    text = bytes(messages)
    if text.count(b"}") > OBJECTS_MAX:
        return NO_MEDIA if is_large and _is_plain(body, messages) else Media(0, 0, True)
    try:
        images, is_unbounded = _look_into(messages, text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise _refusal("`messages` must be a list of messages whose content is a text or a list of parts.") from None
    if not images and not is_unbounded:
        return NO_MEDIA
    inline_bytes = sum(match.end() - match.start() for match in _inline.finditer(text))
    return Media(images, inline_bytes, is_unbounded)


def _is_plain(body: bytes, messages: Raw) -> bool:
    """Certainly nothing but text."""
    return _suspicious.search(messages) is None and _hidden.search(body) is None


def _look_into(messages: Raw, text: bytes) -> tuple[int, bool]:
    """How many images there are, and whether anything is without bounds."""
    images = lists = 0
    is_unbounded = False
    for message in _messages.decode(messages):
        _check_message(message)
        if memoryview(message.content)[0] != _LIST:
            continue
        lists += 1
        for part in _parts.decode(message.content):
            if isinstance(part, str):
                continue
            images += _images_in(part)
            is_unbounded = is_unbounded or _is_unbounded(part)
    # A list that was not reached stands where another parser might look, e.g. under a name that came twice.
    return images, is_unbounded or len(_content_lists.findall(text)) != lists


def _check_message(message: _Message) -> None:
    if memoryview(message.content)[0] not in (_STRING, _LIST, _NULL):
        raise _refusal("A message's `content` is a text or a list of parts.")
    if any(bytes(getattr(message, name)) not in _EMPTY for name in _OWN_MEDIA):
        raise _refusal("Send images and files as parts of a message's `content`, not as fields of the message.")


def _images_in(part: _Part) -> int:
    if part.type is None:
        if not len(part.image_url) and not len(part.text):
            raise _refusal("A part without a `type` must be text or an image_url.")
        return int(len(part.image_url) > 0)
    if part.type not in TYPES:
        raise _refusal("Parts are served as text, refusal, thinking, image_url, video_url, file and document.")
    return int(part.type in IMAGE_TYPES or len(part.image_url) > 0)


def _is_unbounded(part: _Part) -> bool:
    """Files and film; an image whose size the caller sets; data that is no image behind an image's name."""
    if part.type in UNBOUNDED_TYPES or len(part.min_pixels) or len(part.max_pixels):
        return True
    return len(part.image_url) > 0 and _other_data.search(part.image_url) is not None


def _refusal(sentence: str) -> Refusal:
    return Refusal("invalid_parameter", sentence, param="messages")
