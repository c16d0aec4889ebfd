"""Reading a JSON body without decoding what is not ours.

The body is decoded into its top-level fields, each value kept as the bytes that the client sent
(`msgspec.Raw`). What goes upstream is rendered from the same fields, so that price and provider can never see
two different values of one name. Names that stand twice are refused, and so are other spellings of names
that money depends on (`Model`): decoders that fold case would read them.
"""

import re

import msgspec
from msgspec import Raw

from dragonfly.core.content import holds_content
from dragonfly.gateway.refusals import Refusal

TEXT_CHECK_STEP_BYTES = 256 * 1024

LARGE_BODY_BYTES = 64 * 1024
SMALL_FIELDS_BYTES_MAX = 256 * 1024
"""All fields together but the long ones: bounds how many fields there can be before they are counted."""
FIELDS_MAX = 200
COMMON_NAMES = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "n",
        "stop",
        "seed",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "user",
        "reasoning_effort",
        "thinking",
        "models",
        "provider",
        "usage",
        "metadata",
        "prompt_cache_key",
    }
)
"""Names as they are documented: a body with only these holds no look-alike of a guarded name."""


@holds_content
class _LongFields(msgspec.Struct):
    """Those that may be long. Whatever else a body holds is small."""

    messages: Raw = Raw(b"")
    tools: Raw = Raw(b"")
    functions: Raw = Raw(b"")
    response_format: Raw = Raw(b"")
    prediction: Raw = Raw(b"")
    input: Raw = Raw(b"")


_fields = msgspec.json.Decoder(dict[str, Raw])
_long_fields = msgspec.json.Decoder(_LongFields)
_space = re.compile(rb"[ \t\r\n]*")


def read_fields(body: bytes, guarded: frozenset[str]) -> dict[str, Raw]:
    """The top-level fields of a JSON object; `guarded` are the names that money or limits depend on.

    Refused with 400: anything but one JSON object, invalid UTF-8, nesting beyond the interpreter's limit
    (about 900 levels), a name given twice, another spelling of a guarded name.
    """
    check_utf8(body)
    try:
        if len(body) > LARGE_BODY_BYTES:
            _refuse_many_small_fields(body)
        fields = _fields.decode(body)
    except RecursionError:
        raise Refusal("invalid_json", "The body is nested too deeply. Send fewer than 500 levels.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(
            "invalid_json",
            "The body is not one valid JSON object. Check it with a JSON parser.",
        ) from None
    if len(fields) > FIELDS_MAX:
        raise _too_many_fields()
    _refuse_lookalikes(fields, guarded)
    _refuse_duplicates(body, fields)
    return fields


def _refuse_many_small_fields(body: bytes) -> None:
    long_fields = _long_fields.decode(body)
    length = sum(len(getattr(long_fields, name)) for name in long_fields.__struct_fields__)
    if len(body) - length > SMALL_FIELDS_BYTES_MAX:
        raise _too_many_fields()


def _too_many_fields() -> Refusal:
    return Refusal(
        "invalid_parameter", f"The body has too many or too long top-level fields. Send at most {FIELDS_MAX}."
    )


def check_utf8(body: bytes) -> None:
    """Refuse bytes that are not UTF-8; ASCII costs one scan, other text is decoded piece by piece."""
    if body.isascii():
        return
    try:
        if len(body) <= TEXT_CHECK_STEP_BYTES:
            body.decode()
            return
        _check_long_utf8(body)
    except UnicodeDecodeError:
        raise Refusal("invalid_json", "The body is not valid UTF-8. Encode the JSON text as UTF-8.") from None


def _check_long_utf8(body: bytes) -> None:
    start = 0
    while start < len(body):
        end = min(start + TEXT_CHECK_STEP_BYTES, len(body))
        while end < len(body) and body[end] & 0xC0 == 0x80 and end > start + TEXT_CHECK_STEP_BYTES - 4:
            end -= 1
        body[start:end].decode()
        start = end


def _refuse_lookalikes(fields: dict[str, Raw], guarded: frozenset[str]) -> None:
    if COMMON_NAMES.issuperset(fields):
        return
    for name in fields:
        if name not in guarded and (name.lower() in guarded or name.casefold() in guarded):
            raise Refusal("invalid_parameter", "A field's name is spelled with other letter case. Use lower case.")


def _refuse_duplicates(body: bytes, fields: dict[str, Raw]) -> None:
    """A body that is just as long as its distinct fields written compactly has nothing else in it."""
    length = 4 * len(fields) + 1 + sum(map(len, fields)) + sum(map(len, fields.values()))
    if len(body) != length:
        _walk(body, fields)


def _walk(body: bytes, fields: dict[str, Raw]) -> None:
    """Find every field where the last one ended; a mismatch means a name that came twice or was escaped."""
    skip = _space.match
    position = skip(body, 0).end() + 1  # type: ignore[union-attr]
    for index, (name, value) in enumerate(fields.items()):
        quoted = b'"' + name.encode() + b'"'
        position = skip(body, position).end()  # type: ignore[union-attr]
        if index:
            if not body.startswith(b",", position):
                _refuse_walk()
            position = skip(body, position + 1).end()  # type: ignore[union-attr]
        if not body.startswith(quoted, position):
            _refuse_walk()
        position = skip(body, position + len(quoted)).end()  # type: ignore[union-attr]
        if not body.startswith(b":", position):
            _refuse_walk()
        position = skip(body, position + 1).end()  # type: ignore[union-attr]
        raw = bytes(value)
        if not body.startswith(raw, position):
            _refuse_walk()
        position += len(raw)
    position = skip(body, position).end()  # type: ignore[union-attr]
    if body[position:].strip(b" \t\r\n") != b"}":
        _refuse_walk()


def _refuse_walk() -> None:
    raise Refusal(
        "duplicate_field", "A top-level field stands twice or its name is written with escapes. Send each field once."
    )
