"""Answers of chat completions: what is read from one, and the few fields that are ours in it.

Only an answer that is not streamed, and the last chunk of a stream, are rendered anew; every value in them
that is not ours stays as the bytes that the provider sent.
"""

from typing import NamedTuple

import msgspec
from msgspec import Raw

from dragonfly.admission.grants import Charge
from dragonfly.core.content import holds_content
from dragonfly.core.money import usd_text
from dragonfly.core.tokens import TokenUsage

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw])

OPENING_BRACE = ord("{")
QUOTES = 2
LONGEST_EMPTY_BYTES = len(b"null")
OUTPUT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "audio")
OUR_PROMPT_DETAILS = frozenset({"cached_tokens", "cache_write_tokens"})
OUR_COMPLETION_DETAILS = frozenset({"reasoning_tokens"})
COMMON_DETAILS = (b'{"cached_tokens":', b'{"reasoning_tokens":')
OUR_USAGE_FIELDS = frozenset(
    {
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "cost_usd",
        "cost",
    }
)
EMPTY_VALUES = frozenset({b"null", b'""', b"[]", b"{}"})


@holds_content
class _Message(msgspec.Struct):
    content: Raw = Raw(b"null")
    reasoning_content: Raw = Raw(b"null")
    reasoning: Raw = Raw(b"null")
    refusal: Raw = Raw(b"null")
    tool_calls: Raw = Raw(b"null")
    function_call: Raw = Raw(b"null")
    audio: Raw = Raw(b"null")


@holds_content
class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    message: _Message | None = None


_choices = msgspec.json.Decoder(list[_Choice])


@holds_content
class AnswerFacts(NamedTuple):
    """What the gateway must know of a whole answer."""

    fields: dict[str, Raw]
    native_finish_reasons: tuple[str, ...]
    has_output: bool
    messages: list[_Message | None]

    def output_bytes(self) -> int:
        """Length of all output, as JSON text without its quotation marks."""
        values = [getattr(message, name) for message in self.messages if message for name in OUTPUT_FIELDS]
        return sum(max(1, len(value) - QUOTES) for value in values if bytes(value) not in EMPTY_VALUES)


def read_answer(body: bytes) -> AnswerFacts | None:
    """None when the bytes are no chat completion; blank lines before the JSON are allowed (DeepSeek)."""
    try:
        fields = _fields.decode(body)
        choices = _choices.decode(fields["choices"]) if "choices" in fields else []
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    reasons = tuple(choice.finish_reason or "" for choice in choices)
    messages = [choice.message for choice in choices]
    return AnswerFacts(fields, reasons, any(map(_has_output, messages)), messages)


def _has_output(message: _Message | None) -> bool:
    if message is None:
        return False
    if len(message.content) > LONGEST_EMPTY_BYTES:
        return True
    return any(bytes(getattr(message, name)) not in EMPTY_VALUES for name in OUTPUT_FIELDS)


def usage_object(usage: TokenUsage, charge: Charge, upstream: dict[str, Raw]) -> bytes:
    """`usage` as the client gets it: our one form, the cost, and whatever else the provider said.

    `cost_usd` is a JSON number, `cost` the same as a decimal string, because numbers lose digits in many
    clients.
    """
    cost = usd_text(charge.cost_nusd).encode()
    prompt_tokens, completion_tokens, cached, written, reasoning = usage[:5]
    prompt_details = _details(upstream, "prompt_tokens_details", OUR_PROMPT_DETAILS)
    completion_details = _details(upstream, "completion_tokens_details", OUR_COMPLETION_DETAILS)
    others = b"" if OUR_USAGE_FIELDS.issuperset(upstream) else _others(upstream, OUR_USAGE_FIELDS)
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d%b},'
        b'"completion_tokens_details":{"reasoning_tokens":%d%b},"cost_usd":%b,"cost":"%b"%b}'
        % (
            prompt_tokens,
            completion_tokens,
            prompt_tokens + completion_tokens,
            cached,
            written,
            prompt_details,
            reasoning,
            completion_details,
            cost,
            cost,
            others,
        )
    )


def _details(upstream: dict[str, Raw], name: str, ours: frozenset[str]) -> bytes:
    """What else stands in the provider's details, as further fields."""
    raw = upstream.get(name)
    if raw is None or memoryview(raw)[0] != OPENING_BRACE:
        return b""
    text = bytes(raw)
    if b"," not in text and text.startswith(COMMON_DETAILS):
        return b""
    return _others(_fields.decode(raw), ours)


def _others(fields: dict[str, Raw], ours: frozenset[str]) -> bytes:
    """The fields that we do not write ourselves; a name that would need escapes is left out."""
    return b"".join(
        [
            b',"%b":%b' % (name.encode(), value)
            for name, value in fields.items()
            if name not in ours and name.isidentifier() and name.isascii()
        ]
    )


def usage_fields(raw: Raw | None) -> dict[str, Raw]:
    """The provider's usage object, field by field; {} when there is none."""
    if raw is None or memoryview(raw)[0] != OPENING_BRACE:
        return {}
    return _fields.decode(raw)


def render_answer(fields: dict[str, Raw], *, request_id: str, model: str, provider: str, usage: bytes) -> bytes:
    """The body of an answer that is not streamed: our id, the public model id, who answered, usage with cost."""
    answer: dict[str, object] = dict(fields)
    answer["id"] = request_id
    answer["model"] = model
    answer["provider"] = provider
    answer["usage"] = Raw(usage)
    return _encode(answer)


def render_last_chunk(fields: dict[str, Raw], *, model: str, provider: str, usage: bytes) -> bytes:
    """One SSE event: a chunk of the provider with the public model id and usage with cost."""
    chunk: dict[str, object] = dict(fields)
    chunk["model"] = model
    chunk["provider"] = provider
    chunk["usage"] = Raw(usage)
    return b"data: " + _encode(chunk) + b"\n\n"


def render_usage_chunk(*, answer_id: Raw | None, created_s: int, model: str, provider: str, usage: bytes) -> bytes:
    """An own last chunk, for a provider that sent no usage: empty choices, as OpenAI documents it."""
    chunk: dict[str, object] = {
        "id": answer_id if answer_id is not None else "",
        "object": "chat.completion.chunk",
        "created": created_s,
        "model": model,
        "provider": provider,
        "choices": [],
        "usage": Raw(usage),
    }
    return b"data: " + _encode(chunk) + b"\n\n"


class Frame(NamedTuple):
    """What stands around every chunk of ours."""

    request_id: str
    model: str
    provider: str
    created_s: int


def render_cut(
    frame: Frame, *, choices: int, finish_reason: str, usage: bytes | None, error: dict[str, object] | None
) -> bytes:
    """The events that end a stream before its provider did: a finish reason for every choice, then usage where it
    was asked for, then the reason as an error when the caller did not wish it, then [DONE]."""
    base: dict[str, object] = {
        "id": frame.request_id,
        "object": "chat.completion.chunk",
        "created": frame.created_s,
        "model": frame.model,
        "provider": frame.provider,
    }
    ends = [{"index": index, "delta": {}, "finish_reason": finish_reason} for index in range(choices)]
    chunks: list[dict[str, object]] = [{**base, "choices": ends}]
    if usage is not None:
        chunks.append({**base, "choices": [], "usage": Raw(usage)})
    if error is not None:
        chunks.append({**base, "choices": [], "error": error})
    return b"".join(b"data: " + _encode(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def render_error_event(error: dict[str, object], *, request_id: str, model: str, created_s: int) -> bytes:
    """The event that ends a broken stream: a chunk with top-level `error` and finish_reason "error".

    OpenAI's SDKs raise on any chunk with `error`; naive parsers see a choice that did not finish normally.
    """
    chunk = {
        "id": request_id,
        "object": "chat.completion.chunk",
        "created": created_s,
        "model": model,
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        "error": error,
    }
    return b"data: " + _encode(chunk) + b"\n\ndata: [DONE]\n\n"
