"""Content parts that are not text are found however they are spelled, and text is not taken for them."""

import json

import pytest
from msgspec import Raw

from dragonfly.gateway.wire.media import IMAGE_TOKENS_MOST, NO_MEDIA, UNBOUNDED_TOKENS, Media, find_media


def media(content: object) -> Media:
    messages = json.dumps([{"role": "user", "content": content}]).encode()
    return find_media(b'{"messages":' + messages + b"}", Raw(messages))


def test_text_holds_no_media_whatever_it_says() -> None:
    assert media('a "file" and an "image_url": \u00e9 <b> data:image/png;base64,AAAA') is NO_MEDIA


def test_images_are_counted_and_their_inline_bytes_taken_off() -> None:
    data = "data:image/png;base64," + "A" * 100_000
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in ("https://example.com/a.png", data)]
    found = media([{"type": "text", "text": "What is this?"}, *parts])
    assert found.images == 2
    assert found.tokens_most == 2 * IMAGE_TOKENS_MOST
    assert 100_000 <= found.inline_bytes < 100_100


def test_images_without_a_type_count_as_much() -> None:
    assert media([{"image_url": "https://example.com/a.png"}] * 50).images == 50


def test_text_that_looks_like_a_data_url_stays_text() -> None:
    parts = [
        {"type": "text", "text": "data:" + "words of text " * 1_000},
        {"type": "image_url", "image_url": {"url": "data:words " + "x" * 10_000}},
    ]
    assert media(parts).inline_bytes == 0


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}},
        {"type": "video", "video": ["https://example.com/a.jpg"]},
        {"type": "image", "image": "https://example.com/a.jpg"},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    ],
)
def test_what_nothing_bounds_holds_the_whole_context(part: dict[str, object]) -> None:
    assert media([part]).tokens_most == UNBOUNDED_TOKENS


@pytest.mark.parametrize("escaped", [r"image\u005furl", r"\u0066ile", r"\u0069mage_url"])
def test_a_part_whose_name_is_hidden_by_escapes_holds_the_whole_context(escaped: str) -> None:
    messages = b'[{"role":"user","content":[{"type":"%b","x":1}]}]' % escaped.encode()
    assert find_media(messages, Raw(messages)).tokens_most == UNBOUNDED_TOKENS
