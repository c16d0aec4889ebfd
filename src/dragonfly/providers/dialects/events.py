"""What one SSE event, or one whole answer, holds. Text of answers is never decoded: values stay Raw."""

import re
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from dragonfly.providers.dialects import finish
from dragonfly.providers.dialects.facts import NATIVE_LENGTH_MAX, EventFacts, FailureKind, UpstreamFailure
from dragonfly.providers.dialects.failures import FailureRules, classify_value, failure_in, is_something
from dragonfly.providers.dialects.usage import UsageRules, find_report, plain, read_report

_NOTHING = Raw(b"")
_BOM = b"\xef\xbb\xbf"
_line_ends = re.compile(rb"\r\n|\n|\r")
_OUTPUT_FIELDS = (
    "content",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "tool_calls",
    "function_call",
    "refusal",
    "audio",
    "images",
)
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode


class _Choice(Struct, gc=False):
    """One choice of a chunk or an answer; everything stays undecoded, so that no odd value breaks the rest."""

    index: Raw = _NOTHING
    finish_reason: Raw = _NOTHING
    native_finish_reason: Raw = _NOTHING
    delta: Raw = _NOTHING
    message: Raw = _NOTHING
    text: Raw = _NOTHING
    error: Raw = _NOTHING


_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


class _Lines(NamedTuple):
    """The lines of one event by field."""

    data: bytes | None
    name: bytes
    stray: bytes
    """Lines that are neither a comment nor a field of the standard, joined."""


def inspect(usage: UsageRules, failures: FailureRules, event: bytes) -> EventFacts:
    """The facts of one complete event, all its lines given (blank ones do not matter)."""
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
    obj = _object(payload)
    if obj is None:
        return EventFacts()
    choices = _choices(obj)
    finished = [(choice, native) for choice in choices if (native := _native_reason(choice))]
    reasons = [finish.normalised(native) for _, native in finished]
    reason = finish.worst(reasons)
    native = next((native for (_, native), word in zip(finished, reasons, strict=True) if word == reason), "")
    error = _failure_of(failures, obj, choices)
    if error is None and reason == "error":
        error = UpstreamFailure(FailureKind.OVERLOADED, None, 200)
    report = find_report(obj)
    reading = read_report(report, usage) if report is not None else None
    return EventFacts(
        finish_reason=reason,
        native_finish_reason=native[:NATIVE_LENGTH_MAX],
        usage=reading.usage if reading else None,
        error=error,
        has_output=any(_has_output(choice) for choice in choices),
        choices_empty=not choices and is_empty_list(obj.get("choices")),
        obj=obj,
        finished_choices=tuple(_index(choice) for choice, _ in finished),
        usage_contradicts=reading is not None and reading.contradicts,
    )


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


def _object(payload: bytes) -> dict[str, Raw] | None:
    """The object, or the first of a list (Gemini wraps an error so); None for anything else."""
    try:
        if payload.lstrip().startswith(b"["):
            listed = _decode_objects(payload)
            return listed[0] if listed else None
        return _decode_object(payload)
    except _DECODE_ERRORS:
        return None


def _choices(obj: dict[str, Raw]) -> list[_Choice]:
    value = obj.get("choices")
    if value is None:
        return []
    try:
        return _decode_choices(value)
    except _DECODE_ERRORS:
        return []


def _native_reason(choice: _Choice) -> str:
    reason = plain(choice.finish_reason) if choice.finish_reason else None
    return reason if isinstance(reason, str) else ""


def _index(choice: _Choice) -> int:
    index = plain(choice.index) if choice.index else 0
    return index if isinstance(index, int) else 0


def _has_output(choice: _Choice) -> bool:
    if is_something(choice.text):
        return True
    for part in (choice.delta, choice.message):
        fields = _object(bytes(part)) if part else None
        if fields and any(is_something(fields[name]) for name in _OUTPUT_FIELDS if name in fields):
            return True
    return False
