"""What goes to a provider: heads from allow-listed values, and the quirks of the fields."""

import json
from dataclasses import replace
from typing import Any

import httptools
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dragonfly import __version__
from dragonfly.core.secrets import Secret
from dragonfly.providers.channel import Origin
from dragonfly.providers.dialects import DIALECTS, dialect
from dragonfly.providers.requests import UnsafeChannel, check_channel, request_head
from tests.fakes.calls import channel_to

CHANNEL = channel_to(8443, host="api.example.com", tls=True)


def fields_of(**values: Any) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in values.items()}


def prepared(name: str, streamed: bool = False, **values: Any) -> dict[str, Any]:
    fields = fields_of(model="m", messages=[], **values)
    dialect(name).prepare(fields, streamed)
    return {key: json.loads(bytes(value)) for key, value in fields.items()}


def test_a_head_holds_exactly_what_is_allowed() -> None:
    assert request_head(CHANNEL, 12, True) == (
        b"POST /v1/chat/completions HTTP/1.1\r\n"
        b"Host: api.example.com:8443\r\n"
        b"User-Agent: dragonfly/" + __version__.encode() + b"\r\n"
        b"Content-Type: application/json\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Authorization: Bearer test-credential\r\n"
        b"Accept: text/event-stream\r\n"
        b"Content-Length: 12\r\n\r\n"
    )
    assert b"Accept: application/json\r\n" in request_head(CHANNEL, 12, False)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (Origin("api.example.com", 443, tls=True), b"api.example.com"),
        (Origin("api.example.com", 80, tls=True), b"api.example.com:80"),
        (Origin("127.0.0.1", 80, tls=False), b"127.0.0.1"),
        (Origin("::1", 11434, tls=False), b"[::1]:11434"),
    ],
)
def test_the_host_names_the_port_unless_it_is_the_usual_one(origin: Origin, host: bytes) -> None:
    assert b"\r\nHost: " + host + b"\r\n" in request_head(replace(CHANNEL, origin=origin), 0, False)


def test_a_server_without_a_key_gets_no_authorization() -> None:
    assert b"Authorization" not in request_head(replace(CHANNEL, credential=Secret("")), 0, False)


def test_a_changed_credential_is_sent_at_once() -> None:
    request_head(CHANNEL, 0, False)
    assert b"Bearer other\r\n" in request_head(replace(CHANNEL, credential=Secret("other")), 0, False)


BAD = ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "ä", "a b", "a\tb", "\u2028"]


@pytest.mark.parametrize("bad", BAD)
def test_values_that_could_end_a_line_are_refused_without_being_repeated(bad: str) -> None:
    for channel in (
        replace(CHANNEL, credential=Secret(f"key{bad}")),
        replace(CHANNEL, path=f"/v1/{bad}"),
        replace(CHANNEL, origin=Origin(f"host{bad}", 443, tls=True)),
    ):
        with pytest.raises(UnsafeChannel) as caught:
            check_channel(channel)
        assert bad not in str(caught.value)
        with pytest.raises(UnsafeChannel):
            request_head(channel, 0, False)


@pytest.mark.parametrize("path", ["", "v1/chat", "http://evil/", "/" + "x" * 3_000])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(UnsafeChannel):
        check_channel(replace(CHANNEL, path=path))


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_a_head_is_one_request_whatever_the_channel_says(host: str, path: str, credential: str) -> None:
    channel = replace(CHANNEL, origin=Origin(host, 443, tls=True), path=path, credential=Secret(credential))
    try:
        head = request_head(channel, 0, False)
    except UnsafeChannel:
        return

    class Reader:
        complete = 0

        def on_message_complete(self) -> None:
            self.complete += 1

    reader = Reader()
    httptools.HttpRequestParser(reader).feed_data(head)
    assert reader.complete == 1
    assert head.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("name", sorted(set(DIALECTS) - {"mistral"}))
def test_a_streamed_request_asks_for_usage_and_keeps_the_callers_options(name: str) -> None:
    assert prepared(name, streamed=True)["stream_options"] == {"include_usage": True}
    mine = {"include_usage": False, "include_obfuscation": False}
    expected = {"include_usage": True, "include_obfuscation": False}
    assert prepared(name, streamed=True, stream_options=mine)["stream_options"] == expected
    assert prepared(name, streamed=True, stream_options=None)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in prepared(name, streamed=False)


def test_mistral_gets_no_field_that_it_refuses() -> None:
    body = prepared(
        "mistral",
        streamed=True,
        stream_options={"include_usage": True},
        max_completion_tokens=9,
        user="u",
        store=True,
    )
    assert body == {"model": "m", "messages": [], "max_tokens": 9}


@pytest.mark.parametrize("name", ["deepseek", "glm", "mistral", "together", "stepfun", "siliconflow"])
def test_the_output_limit_goes_by_the_name_that_is_understood(name: str) -> None:
    assert prepared(name, max_completion_tokens=7)["max_tokens"] == 7
    assert prepared(name, max_tokens=7)["max_tokens"] == 7
    both = prepared(name, max_tokens=7, max_completion_tokens=5)
    assert both["max_tokens"] == 5
    assert "max_completion_tokens" not in both
    unset = prepared(name, max_completion_tokens=None, max_tokens=4)
    assert unset["max_tokens"] == 4


@pytest.mark.parametrize("name", ["openai", "moonshot", "xai", "vllm"])
def test_where_both_names_are_understood_the_limit_is_left_alone(name: str) -> None:
    assert prepared(name, max_completion_tokens=7)["max_completion_tokens"] == 7
    assert prepared(name, max_tokens=7)["max_tokens"] == 7


def test_the_service_tier_never_reaches_a_provider_that_charges_by_it() -> None:
    charged = set(DIALECTS) - {"ollama", "vllm", "llama-cpp", "llama-box"}
    for name in charged:
        assert "service_tier" not in prepared(name, service_tier="priority")


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=4), max_size=6))
def test_all_other_fields_pass_untouched(extra: dict[str, Any]) -> None:
    own = {"service_tier", "stream_options", "max_tokens", "max_completion_tokens", "store", "user", "metadata"}
    kept = {name: value for name, value in extra.items() if name not in own | {"model", "messages"}}
    for name in DIALECTS:
        body = prepared(name, streamed=True)
        fields = msgspec.json.decode(json.dumps(kept), type=dict[str, Raw])
        before = dict(fields)
        dialect(name).prepare(fields, True)
        fields.pop("stream_options", None)
        assert {key: bytes(value) for key, value in fields.items()} == {k: bytes(v) for k, v in before.items()}
        assert body["model"] == "m"
