"""What one SSE event, or one whole answer, holds. Text of answers is never decoded: values stay Raw."""

import re
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from dragonfly.core.content import holds_content
from dragonfly.providers.dialects import finish
from dragonfly.providers.dialects.facts import NATIVE_LENGTH_MAX, EventFacts, FailureKind, UpstreamFailure
from dragonfly.providers.dialects.failures import FailureRules, classify_value, failure_in, is_something
from dragonfly.providers.dialects.usage import UsageRules, plain, read_usage

_NOTHING = Raw(b"")
_NULL = Raw(b"null")
_DATA_AT = 6
_QUOTES = 2
_BOM = b"\xef\xbb\xbf"
_line_ends = re.compile(rb"\r\n|\n|\r")
_OUTPUT_FIELDS = frozenset(
    {
        "content",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "tool_calls",
        "function_call",
        "refusal",
        "audio",
        "images",
    }
)
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode


@holds_content
class _Choice(Struct, gc=False):
    """One choice of a chunk or an answer; everything stays undecoded, so that no odd value breaks the rest."""

    index: Raw = _NOTHING
    finish_reason: Raw = _NOTHING
    delta: Raw = _NOTHING
    message: Raw = _NOTHING
    text: Raw = _NOTHING
    error: Raw = _NOTHING


@holds_content
class _Function(Struct, gc=False, frozen=True):
    name: Raw = _NOTHING
    arguments: Raw = _NOTHING


@holds_content
class _Call(Struct, gc=False):
    function: _Function = _Function()


_decode_calls = msgspec.json.Decoder(list[_Call]).decode
_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


@holds_content
class _Lines(NamedTuple):
    """The lines of one event by field."""

    data: bytes | None
    name: bytes
    stray: bytes
    """Lines that are neither a comment nor a field of the standard, joined."""


def inspect(usage: UsageRules, failures: FailureRules, event: bytes) -> EventFacts:
    """The facts of one complete event, all its lines given (blank ones do not matter)."""
    if event.startswith(b"data: {") and event.find(b"\n") == len(event) - 2 and event.find(b"\r") < 0:
        # One data line and its blank line: nearly every event.
        return inspect_json(usage, failures, event[_DATA_AT:])
    lines = _read_lines(event)
    if lines.data is None or lines.stray.startswith(b"error:"):
        return _inspect_stray(usage, failures, lines.stray) if lines.stray else EventFacts(is_comment=True)
    payload = lines.data.strip()
    if payload == b"[DONE]":
        return EventFacts(done=True)
    facts = inspect_json(usage, failures, payload)
    if lines.name == b"error" and facts.error is None:
        # Groq and Anthropic say it in the event's name; what is inside may be bare of the word.
        return facts._replace(error=_failure_of_text(failures, payload))
    return facts


def inspect_json(usage: UsageRules, failures: FailureRules, payload: bytes) -> EventFacts:
    """The facts of one JSON object: the data of an event, or a whole answer (blank lines before it allowed)."""
    obj = _object_or_first(payload)
    if obj is None:
        return EventFacts()
    choices = _choices(obj)
    finished = [choice for choice in choices if choice.finish_reason and choice.finish_reason != _NULL]
    reason, native, indexes = _finish(finished) if finished else ("", "", ())
    error = _failure_of(failures, obj, choices)
    if error is None and reason == "error":
        error = UpstreamFailure(FailureKind.OVERLOADED, None, 200)
    reading = read_usage(obj, usage)
    output_bytes = _output_bytes(choices)
    return EventFacts(
        finish_reason=reason,
        native_finish_reason=native,
        usage=reading.usage if reading else None,
        error=error,
        has_output=output_bytes > 0,
        output_bytes=output_bytes,
        choices_empty=not choices and is_empty_list(obj.get("choices")),
        obj=obj,
        finished_choices=indexes,
        usage_contradicts=reading is not None and reading.contradicts,
    )


def _finish(choices: list[_Choice]) -> tuple[str, str, tuple[int, ...]]:
    """The worst finish reason, the provider's word for it, and the indexes of the choices that end."""
    words = [(word, choice) for choice in choices if isinstance(word := plain(choice.finish_reason), str) and word]
    reasons = [finish.normalised(word) for word, _ in words]
    reason = finish.worst(reasons)
    native = words[reasons.index(reason)][0] if reason else ""
    return reason, native[:NATIVE_LENGTH_MAX], tuple(_index(choice) for _, choice in words)


def is_empty_list(value: Raw | None) -> bool:
    return value is not None and bytes(value).translate(None, b" \t\r\n") == b"[]"


def _read_lines(event: bytes) -> _Lines:
    data: list[bytes] = []
    stray: list[bytes] = []
    name = b""
    for line in _line_ends.split(event.removeprefix(_BOM)):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip()
        elif line and field and field not in (b"id", b"retry"):
            stray.append(line)
    return _Lines(b"\n".join(data) if data else None, name, b"\n".join(stray))


def _inspect_stray(usage: UsageRules, failures: FailureRules, stray: bytes) -> EventFacts:
    """Text outside the framing: `error: {…}` (llama-box) or bare JSON (Gemini's native errors)."""
    text = stray.strip()
    if text.startswith(b"error:"):
        return EventFacts(error=_failure_of_text(failures, text.removeprefix(b"error:").strip()))
    if text.startswith((b"{", b"[")):
        return inspect_json(usage, failures, text)
    return EventFacts()


def _failure_of_text(failures: FailureRules, payload: bytes) -> UpstreamFailure:
    value = plain(Raw(payload)) if payload else None
    if isinstance(value, dict) and "error" not in value:
        value = {"error": value}
    return classify_value(failures, 200, value)


def _failure_of(failures: FailureRules, obj: dict[str, Raw], choices: list[_Choice]) -> UpstreamFailure | None:
    failure = failure_in(failures, obj)
    if failure is not None:
        return failure
    for choice in choices:
        if is_something(choice.error):
            return classify_value(failures, 200, {"error": plain(choice.error)})
    return None


def _object(payload: bytes | Raw) -> dict[str, Raw] | None:
    try:
        return _decode_object(payload)
    except _DECODE_ERRORS:
        return None


def _object_or_first(payload: bytes) -> dict[str, Raw] | None:
    """The object, or the first of a list (Gemini wraps an error so); None for anything else."""
    if not payload.lstrip().startswith(b"["):
        return _object(payload)
    try:
        listed = _decode_objects(payload)
    except _DECODE_ERRORS:
        return None
    return listed[0] if listed else None


def _choices(obj: dict[str, Raw]) -> list[_Choice]:
    value = obj.get("choices")
    if value is None:
        return []
    try:
        return _decode_choices(value)
    except _DECODE_ERRORS:
        return []


def _index(choice: _Choice) -> int:
    index = plain(choice.index) if choice.index else 0
    return index if isinstance(index, int) else 0


def _output_bytes(choices: list[_Choice]) -> int:
    length = 0
    for choice in choices:
        if choice.text and is_something(choice.text):
            length += _text_length(choice.text)
        for part in (choice.delta, choice.message):
            fields = _object(part) if part else None
            if fields is None:
                continue
            for name, value in fields.items():
                if name in _OUTPUT_FIELDS and is_something(value):
                    length += _calls_length(value) if name == "tool_calls" else _text_length(value)
    return length


def _calls_length(value: Raw) -> int:
    """Of tool calls the names and arguments; what stands around them is the same in every event."""
    try:
        calls = _decode_calls(value)
    except _DECODE_ERRORS:
        return _text_length(value)
    values = [value for call in calls for value in (call.function.name, call.function.arguments)]
    return max(1, sum(max(0, len(value) - _QUOTES) for value in values))


def _text_length(value: Raw) -> int:
    """At least 1: whoever asks has seen that there is something."""
    return max(1, len(value) - _QUOTES)
