"""Requests with a canary in every place where a client can put text."""

import base64
import gzip
import json
import string
import zlib
from collections.abc import Callable
from typing import NamedTuple

HUGE_CHARACTERS = 300_000
DEEP = 5_000
HEADERS = (
    "User-Agent",
    "Referer",
    "HTTP-Referer",
    "X-Title",
    "Cookie",
    "X-Request-Id",
    "Idempotency-Key",
    "OpenAI-Organization",
    "traceparent",
    "baggage",
    "X-Whatever",
)
BASE62 = string.ascii_letters + string.digits


class Ask(NamedTuple):
    """What a request is made from."""

    canary: str
    model: str
    key: str
    host: str


Shape = Callable[[Ask], bytes]


def head(ask: Ask, *lines: str, target: str = "/v1/chat/completions", method: str = "POST", key: str = "") -> bytes:
    """A request's head; the connection ends after the answer."""
    standing = (f"{method} {target} HTTP/1.1", f"Host: {ask.host}", f"Authorization: Bearer {key or ask.key}")
    return "\r\n".join((*standing, "Connection: close", *lines, "", "")).encode()


def post(ask: Ask, body: bytes, *lines: str, target: str = "/v1/chat/completions", key: str = "") -> bytes:
    """A request with a JSON body."""
    length = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return head(ask, *length, *lines, target=target, key=key) + body


def chat(ask: Ask, **fields: object) -> bytes:
    """A body whose last text is the canary."""
    messages = [{"role": "system", "content": ask.canary}, {"role": "user", "content": f"Say {ask.canary}"}]
    return json.dumps(
        {"model": ask.model, "max_tokens": 50, "messages": messages, **fields, "user": ask.canary}
    ).encode()


def _plain(ask: Ask) -> bytes:
    return post(ask, chat(ask))


def _stream(ask: Ask) -> bytes:
    return post(ask, chat(ask, stream=True))


def _stream_with_usage(ask: Ask) -> bytes:
    return post(ask, chat(ask, stream=True, stream_options={"include_usage": True}))


def _tools(ask: Ask) -> bytes:
    schema = {"type": "object", "properties": {ask.canary: {"type": "string", "enum": [ask.canary]}}}
    function = {"name": ask.canary, "description": ask.canary, "parameters": schema}
    choice = {"type": "function", "function": {"name": ask.canary}}
    return post(ask, chat(ask, tools=[{"type": "function", "function": function}], tool_choice=choice))


def _tool_results(ask: Ask) -> bytes:
    call = {"id": ask.canary, "type": "function", "function": {"name": ask.canary, "arguments": ask.canary}}
    messages: list[object] = [{"role": "user", "content": ask.canary}, {"role": "assistant", "tool_calls": [call]}]
    messages.append({"role": "tool", "tool_call_id": ask.canary, "content": ask.canary})
    return post(ask, chat(ask, messages=messages, stream=True))


def _image(ask: Ask) -> bytes:
    address = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + ask.canary.encode() * 20).decode()
    parts = [{"type": "text", "text": ask.canary}, {"type": "image_url", "image_url": {"url": address}}]
    return post(ask, chat(ask, messages=[{"role": "user", "content": parts}]))


def _schema(ask: Ask) -> bytes:
    schema = {"type": "object", "description": ask.canary, "properties": {ask.canary: {"const": ask.canary}}}
    wanted = {"type": "json_schema", "json_schema": {"name": ask.canary, "strict": True, "schema": schema}}
    return post(ask, chat(ask, response_format=wanted, stream=True))


def _huge(ask: Ask) -> bytes:
    text = (ask.canary + " ") * (HUGE_CHARACTERS // (len(ask.canary) + 1))
    return post(ask, chat(ask, messages=[{"role": "user", "content": text}]))


def _every_field(ask: Ask) -> bytes:
    return post(
        ask,
        chat(
            ask,
            metadata={ask.canary: ask.canary},
            stop=[ask.canary],
            service_tier=ask.canary,
            safety_identifier=ask.canary,
            prompt_cache_key=ask.canary,
            logit_bias={ask.canary: 1},
            **{ask.canary: ask.canary},
        ),
    )


def _headers(ask: Ask) -> bytes:
    return post(ask, chat(ask, stream=True), *(f"{name}: {ask.canary}" for name in HEADERS))


def _chunked(ask: Ask) -> bytes:
    body = chat(ask)
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    packed = b"".join(b"%x;%b\r\n%b\r\n" % (len(piece), ask.canary.encode(), piece) for piece in pieces)
    lines = ("Content-Type: application/json", "Transfer-Encoding: chunked", f"Trailer: {ask.canary}")
    return head(ask, *lines) + packed + b"0\r\n\r\n"


def _escaped(ask: Ask) -> bytes:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in ask.canary)
    return post(ask, chat(ask, stop=["@"]).replace(b"@", f"{escaped}\\n\\ud83d\\ude00".encode()))


def _conversation(ask: Ask) -> bytes:
    turns = [{"role": role, "content": ask.canary, "name": ask.canary} for role in ("user", "assistant", "user")]
    return post(ask, chat(ask, messages=turns, stream=True, n=1, temperature=0.5))


FORWARDED: dict[str, Shape] = {
    "plain": _plain,
    "stream": _stream,
    "stream with usage": _stream_with_usage,
    "tools": _tools,
    "tool results": _tool_results,
    "image as data URL": _image,
    "JSON schema": _schema,
    "huge": _huge,
    "every field": _every_field,
    "headers": _headers,
    "chunked": _chunked,
    "escaped": _escaped,
    "conversation": _conversation,
}
"""Shapes that reach the provider, and so meet every ending."""


def _malformed(ask: Ask) -> bytes:
    return post(ask, b'{"model": "' + ask.canary.encode())


def _text_only(ask: Ask) -> bytes:
    return post(ask, ask.canary.encode())


def _twice(ask: Ask) -> bytes:
    return post(ask, f'{{"{ask.canary}":1,"{ask.canary}":2,"model":"a","model":"b"}}'.encode())


def _wrong_types(ask: Ask) -> bytes:
    return post(ask, chat(ask, max_tokens=ask.canary, stream=ask.canary, n=[ask.canary]))


def _wrong_messages(ask: Ask) -> bytes:
    return post(ask, chat(ask, messages=ask.canary))


def _unknown_model(ask: Ask) -> bytes:
    return post(ask, chat(ask, model=ask.canary, models=[ask.canary]))


def _wrong_routing(ask: Ask) -> bytes:
    return post(ask, chat(ask, provider={"only": [ask.canary], ask.canary: 1}))


def _not_unicode(ask: Ask) -> bytes:
    return post(ask, b'{"model":"\xff\xfe' + ask.canary.encode() + b'"}')


def _deep(ask: Ask) -> bytes:
    return post(ask, chat(ask, stop="@").replace(b'"@"', b"[" * DEEP + ask.canary.encode() + b"]" * DEEP))


def _compressed(ask: Ask) -> bytes:
    return post(ask, gzip.compress(chat(ask)), "Content-Encoding: gzip")


def _deflated(ask: Ask) -> bytes:
    return post(ask, zlib.compress(chat(ask)), f"Content-Encoding: {ask.canary}")


def _key_in_body(ask: Ask) -> bytes:
    return post(ask, chat(ask, api_key=f"sk-df-{ask.canary}"), key="none")


def _wrong_key(ask: Ask) -> bytes:
    return post(ask, chat(ask), key=ask.canary)


def _key_like(ask: Ask) -> bytes:
    return post(ask, chat(ask), key="sk-df-" + (ask.canary * 3)[:59])


def _query(ask: Ask) -> bytes:
    return post(ask, chat(ask), target=f"/v1/chat/completions?{ask.canary}={ask.canary}&api_key={ask.canary}")


def _path(ask: Ask) -> bytes:
    return post(ask, chat(ask), target=f"/v1/{ask.canary}")


def _other_path(ask: Ask) -> bytes:
    return post(ask, chat(ask), target=f"/{ask.canary}?{ask.canary}")


def _api_path(ask: Ask) -> bytes:
    return post(ask, json.dumps({ask.canary: ask.canary}).encode(), target=f"/api/{ask.canary}")


def _get_model(ask: Ask) -> bytes:
    return head(ask, method="GET", target=f"/v1/models/{ask.canary}/{ask.canary}?{ask.canary}")


def _get_generation(ask: Ask) -> bytes:
    return head(ask, method="GET", target=f"/v1/generation?id={ask.canary}")


def _expectation(ask: Ask) -> bytes:
    return post(ask, chat(ask), f"Expect: {ask.canary}")


def _two_hosts(ask: Ask) -> bytes:
    return post(ask, chat(ask), f"Host: {ask.canary}")


def _two_lengths(ask: Ask) -> bytes:
    return post(ask, chat(ask), "Transfer-Encoding: chunked", "Content-Length: 3")


def _large_head(ask: Ask) -> bytes:
    return post(ask, chat(ask), "X-Large: " + ask.canary * 3_000)


def _method(ask: Ask) -> bytes:
    return head(ask, method=ask.canary.upper(), target="/v1/chat/completions")


def _not_http(ask: Ask) -> bytes:
    return f"{ask.canary}\r\n{ask.canary}: \x00\r\n\r\n".encode()


def _upgrade(ask: Ask) -> bytes:
    return head(ask, "Upgrade: websocket", f"Sec-WebSocket-Key: {ask.canary}", method="GET", target=f"/{ask.canary}")


REFUSED: dict[str, Shape] = {
    "malformed": _malformed,
    "not JSON": _text_only,
    "fields twice": _twice,
    "wrong types": _wrong_types,
    "wrong messages": _wrong_messages,
    "unknown model": _unknown_model,
    "wrong routing": _wrong_routing,
    "not Unicode": _not_unicode,
    "deeply nested": _deep,
    "compressed": _compressed,
    "unknown encoding": _deflated,
    "key in the body": _key_in_body,
    "wrong key": _wrong_key,
    "key with wrong checksum": _key_like,
    "query": _query,
    "unknown path": _path,
    "path outside /v1": _other_path,
    "path below /api": _api_path,
    "unknown model page": _get_model,
    "unknown generation": _get_generation,
    "expectation": _expectation,
    "two hosts": _two_hosts,
    "two lengths": _two_lengths,
    "large head": _large_head,
    "unknown method": _method,
    "not HTTP": _not_http,
    "upgrade": _upgrade,
}
"""Shapes that the gateway itself refuses or ignores; some are served all the same, which is no harm here."""
