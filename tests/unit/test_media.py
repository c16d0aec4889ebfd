"""Content parts are an allow list: found however they are spelled, and text is not taken for them."""

import json

import pytest
from msgspec import Raw

from dragonfly.gateway.refusals import Refusal
from dragonfly.gateway.wire.media import (
    IMAGE_TOKENS_MOST,
    LARGE_BYTES,
    NO_MEDIA,
    OBJECTS_MAX,
    UNBOUNDED_TOKENS,
    Media,
    find_media,
)


def found_in(messages: bytes) -> Media:
    return find_media(b'{"messages":' + messages + b"}", Raw(messages))


def media(content: object) -> Media:
    return found_in(json.dumps([{"role": "user", "content": content}]).encode())


def refusal_of(messages: bytes) -> str:
    with pytest.raises(Refusal) as raised:
        found_in(messages)
    assert raised.value.code == "invalid_parameter"
    assert raised.value.param == "messages"
    return raised.value.message


def test_text_holds_no_media_whatever_it_says() -> None:
    words = 'a "file", "content": [1] and an "image_url": \u00e9 <b> data:image/png;base64,AAAA'
    assert media(words) is NO_MEDIA
    assert media([{"type": "text", "text": words}, {"text": words}, words]) is NO_MEDIA


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
        {"type": "image_url", "image_url": {"url": "data:image/words " + "x" * 10_000}},
    ]
    assert media(parts).inline_bytes == 0


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "video", "video": ["https://example.com/a.jpg"]},
        {"type": "image", "image": "https://example.com/a.jpg"},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "image_url", "image_url": {"url": "data:video/mp4;base64,AAAA"}},
        {"type": "image_url", "image_url": "data:application/pdf;base64,AAAA"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}, "max_pixels": 10**9},
    ],
)
def test_what_nothing_bounds_holds_the_whole_context(part: dict[str, object]) -> None:
    assert media([part]).tokens_most == UNBOUNDED_TOKENS


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "image_pil", "image_pil": "AAAA"},
        {"type": "resource", "resource": {}},
        {"type": "search_result", "content": "x"},
        {"image_embeds": "AAAA"},
        {"image_pil": "AAAA"},
        {"audio_url": "https://example.com/a.wav"},
        {},
        {"type": 1},
        [["a"]],
        7,
        None,
    ],
)
def test_a_part_that_is_not_on_the_list_is_refused(part: object) -> None:
    assert refusal_of(json.dumps([{"role": "user", "content": [part]}]).encode())


@pytest.mark.parametrize(
    "message",
    [
        {"content": {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}},
        {"content": "x", "images": ["AAAA"]},
        {"content": "x", "image_url": "https://example.com/a.png"},
        {"content": "x", "audio": {"id": "audio-1"}},
    ],
)
def test_media_outside_of_parts_are_refused(message: dict[str, object]) -> None:
    assert refusal_of(json.dumps([message]).encode())


def test_a_message_that_an_sdk_sends_back_with_its_empty_fields_is_served() -> None:
    answered = {"role": "assistant", "content": None, "refusal": None, "audio": None, "images": []}
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"content": ["file"]}'}}]
    assert found_in(json.dumps([{**answered, "tool_calls": calls}]).encode()) is NO_MEDIA


def test_a_content_that_stands_twice_is_held_for_both_readings() -> None:
    messages = b'[{"content":[{"type":"image_url","image_url":"https://x"}],"content":"x"}]'
    assert found_in(messages).tokens_most == UNBOUNDED_TOKENS


def test_more_parts_than_are_looked_at_hold_the_whole_context() -> None:
    assert media([{"type": "text", "text": "a"}] * (OBJECTS_MAX + 1)).tokens_most == UNBOUNDED_TOKENS


@pytest.mark.parametrize("space", [b"", b" ", b"\n\t "])
@pytest.mark.parametrize("escaped", [rb"image\u005furl", rb"\u0066ile", rb"\u0069mage_url"])
def test_a_part_whose_name_is_hidden_by_escapes_is_found(escaped: bytes, space: bytes) -> None:
    part = b'{"type":"%b","image_url":"https://x"}' % escaped
    assert found_in(b'[{"role":"user","content"%b:%b[%b]}]' % (space, space, part)).tokens_most > 0
    assert found_in(b'[{"role":"user","c\\u006fntent":[%b]}]' % part).tokens_most > 0


@pytest.mark.parametrize(
    "message",
    [
        b'{"role":"user","content":"x"}',
        b'{"role":"user","content":[{"type":"text","text":"x"}]}',
        b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}',
        b'{"role":"user","c\\u006fntent":[{"type":"file","file":{}}]}',
        b'{"content":[{"type":"image_url","image_url":"https://x"}],"content":"x"}',
    ],
)
@pytest.mark.parametrize("filler", ['say "x"\n', "{}", "\\u0065"])
def test_what_is_found_does_not_depend_on_how_long_the_text_beside_it_is(message: bytes, filler: str) -> None:
    long = json.dumps({"role": "user", "content": filler * (LARGE_BYTES // len(filler))}).encode()
    alone, beside = found_in(b"[%b]" % message), found_in(b"[%b,%b]" % (message, long))
    assert beside.tokens_most in (alone.tokens_most, UNBOUNDED_TOKENS)
    assert beside.tokens_most == alone.tokens_most or long.count(b"}") > OBJECTS_MAX
