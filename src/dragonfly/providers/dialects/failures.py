"""Why a provider refused: by status, then type, then known code, then message, because each alone misleads.

DeepSeek writes `invalid_request_error` into the code of a bad key; Moonshot, GLM and MiniMax answer an account
without money with 429, Qwen with 400, Ark with 403. Nothing of a provider's text leaves this module.

Messages may repeat what the customer wrote. Kinds that take a channel out of service are therefore read from a
message only when it begins with the phrase, wherever the status says that the request was at fault.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from msgspec import Raw

from dragonfly.core.content import holds_content
from dragonfly.providers.dialects.facts import FailureKind, UpstreamFailure
from dragonfly.providers.dialects.retry_after import retry_info_s, seconds_in_message
from dragonfly.providers.dialects.usage import plain

BODY_BYTES_MAX = 256 * 1024
"""A longer error body is judged by its status alone."""
MESSAGE_LENGTH_MAX = 4_096
WORD_LENGTH_MAX = 200
DEPTH_MAX = 6
LIST_ITEMS_MAX = 8

_K = FailureKind
Words = tuple[tuple[str, FailureKind], ...]


@dataclass(frozen=True, slots=True)
class FailureRules:
    """What one family says differently; looked at before what all have in common."""

    statuses: Mapping[int, FailureKind] = field(default_factory=dict)
    """Decide alone."""
    words: Words = ()
    """Types and codes, lower case, with `*`; the first that matches."""
    phrases: Words = ()
    """Parts of messages, lower case; with `^` in front: the beginning."""


_STATUSES: dict[int, FailureKind] = {401: _K.BAD_KEY, 402: _K.NO_BALANCE, 451: _K.CONTENT_REFUSED}

_WORDS: Words = (
    ("authentication_error", _K.BAD_KEY),
    ("authenticationerror", _K.BAD_KEY),
    ("invalid_authentication_error", _K.BAD_KEY),
    ("incorrect_api_key_error", _K.BAD_KEY),
    ("invalid_api_key", _K.BAD_KEY),
    ("api_key_invalid", _K.BAD_KEY),
    ("unauthenticated", _K.BAD_KEY),
    ("account_deactivated", _K.BAD_KEY),
    ("insufficient_quota", _K.NO_BALANCE),
    ("insufficient_balance*", _K.NO_BALANCE),
    ("exceeded_current_quota_error", _K.NO_BALANCE),
    ("billing_error", _K.NO_BALANCE),
    ("billing_hard_limit_reached", _K.NO_BALANCE),
    ("billing_not_active", _K.NO_BALANCE),
    ("enforced_spend_limit_reached", _K.NO_BALANCE),
    ("accountoverdueerror", _K.NO_BALANCE),
    ("arrearage", _K.NO_BALANCE),
    ("engine_overloaded*", _K.OVERLOADED),
    ("overloaded_error", _K.OVERLOADED),
    ("server_error", _K.OVERLOADED),
    ("api_error", _K.OVERLOADED),
    ("internal_server_error", _K.OVERLOADED),
    ("internalservererror", _K.OVERLOADED),
    ("service_unavailable*", _K.OVERLOADED),
    ("unavailable", _K.OVERLOADED),
    ("unexpected_output", _K.OVERLOADED),
    ("timeout_error", _K.OVERLOADED),
    ("context_length_exceeded", _K.CONTEXT_TOO_LONG),
    ("exceed_context_size_error", _K.CONTEXT_TOO_LONG),
    ("string_above_max_length", _K.CONTEXT_TOO_LONG),
    ("content_filter", _K.CONTENT_REFUSED),
    ("content_policy_violation", _K.CONTENT_REFUSED),
    ("data_inspection_failed", _K.CONTENT_REFUSED),
    ("datainspectionfailed", _K.CONTENT_REFUSED),
    ("*riskdetection", _K.CONTENT_REFUSED),
    ("*sensitivecontentdetected*", _K.CONTENT_REFUSED),
    ("model_not_found", _K.MODEL_UNKNOWN),
    ("resource_not_found_error", _K.MODEL_UNKNOWN),
    ("not_found_error", _K.MODEL_UNKNOWN),
    ("modelnotfound", _K.MODEL_UNKNOWN),
    ("modelnotopen", _K.MODEL_UNKNOWN),
    ("invalidendpointormodel*", _K.MODEL_UNKNOWN),
    ("request_too_large", _K.TOO_LARGE),
)

_NO_BALANCE_PHRASES: Words = tuple(
    (phrase, _K.NO_BALANCE)
    for phrase in (
        "insufficient balance",
        "insufficient credit",
        "insufficient funds",
        "exceeded your current quota",
        "credit balance is too low",
        "out of credits",
        "account is overdue",
        "account overdue",
        "please recharge",
        "余额不足",
        "欠费",
    )
)
_QUOTA_PHRASES: Words = tuple(
    (phrase, _K.QUOTA_USED_UP)
    for phrase in ("per day", "perday", "(tpd)", "(rpd)", " tpd", " rpd", "daily", "weekly", "monthly", "5 hour")
)
_OVERLOAD_PHRASES: Words = tuple(
    (phrase, _K.OVERLOADED) for phrase in ("overloaded", "temporarily unavailable", "at capacity", "server is busy")
)
_RATE_PHRASES: Words = tuple(
    (phrase, _K.RATE_LIMITED)
    for phrase in ("rate limit", "rate-limited", "too many requests", "max rpm", "concurrency")
)
_LENGTH_PHRASES: Words = tuple(
    (phrase, _K.CONTEXT_TOO_LONG)
    for phrase in (
        "maximum context length",
        "context length",
        "context window",
        "context size",
        "too long",
        "exceeded model token limit",
        "exceeds the maximum number of tokens",
        "exceeds maximum tokens",
        "range of input length",
        "reduce the length",
    )
)
_REFUSAL_PHRASES: Words = tuple(
    (phrase, _K.CONTENT_REFUSED)
    for phrase in (
        "content exists risk",
        "considered high risk",
        "inappropriate content",
        "content policy",
        "content management policy",
        "safety system",
        "flagged",
        "moderation",
    )
)
_KEY_PHRASES: Words = (
    ("^incorrect api key", _K.BAD_KEY),
    ("^invalid api key", _K.BAD_KEY),
    ("^api key not valid", _K.BAD_KEY),
    ("^invalid x-api-key", _K.BAD_KEY),
    ("^token is invalid", _K.BAD_KEY),
    ("^authentication fails", _K.BAD_KEY),
)
_MODEL_PHRASES: Words = (("^model not exist", _K.MODEL_UNKNOWN), ("^the model `", _K.MODEL_UNKNOWN))

_PHRASES: Words = (
    *_KEY_PHRASES,
    *_NO_BALANCE_PHRASES,
    *_OVERLOAD_PHRASES,
    *_LENGTH_PHRASES,
    *_REFUSAL_PHRASES,
)
_PHRASES_BY_STATUS: dict[int, Words] = {
    400: (*_KEY_PHRASES, *_NO_BALANCE_PHRASES, *_MODEL_PHRASES, *_LENGTH_PHRASES, *_REFUSAL_PHRASES),
    404: (),
    408: (),
    413: _LENGTH_PHRASES,
    422: (*_LENGTH_PHRASES, *_REFUSAL_PHRASES),
    429: (*_NO_BALANCE_PHRASES, *_OVERLOAD_PHRASES, *_QUOTA_PHRASES),
    500: (*_NO_BALANCE_PHRASES, *_LENGTH_PHRASES),
    200: (*_PHRASES, *_RATE_PHRASES, *_QUOTA_PHRASES),
}

_DEFAULTS: dict[int, FailureKind] = {
    400: _K.BAD_REQUEST,
    403: _K.BAD_KEY,
    404: _K.MODEL_UNKNOWN,
    408: _K.OVERLOADED,
    413: _K.TOO_LARGE,
    422: _K.BAD_REQUEST,
    425: _K.OVERLOADED,
    429: _K.RATE_LIMITED,
}

_CALLERS_STATUSES = frozenset((400, 404, 413, 422))
_OPERATORS_KINDS = frozenset((_K.BAD_KEY, _K.NO_BALANCE, _K.QUOTA_USED_UP, _K.MODEL_UNKNOWN))
_WAITING_KINDS = frozenset((_K.RATE_LIMITED, _K.QUOTA_USED_UP, _K.OVERLOADED))


@holds_content
class _Account(NamedTuple):
    """What a provider said, as far as it is structured."""

    words: tuple[str, ...]
    """Types, then codes, lower case."""
    message: str
    """Lower case."""
    status: int | None
    """A status named inside the body."""
    retry_after_s: float | None


_NOTHING_SAID = _Account((), "", None, None)


def classify_body(rules: FailureRules, status: int, content_type: bytes, body: bytes) -> UpstreamFailure:
    """Judge a whole response that is no answer. The content type is only believed when it says HTML: DeepSeek
    labels JSON errors as application/octet-stream, and gateways in front of providers send HTML."""
    text = body.strip()
    if len(text) > BODY_BYTES_MAX or b"html" in content_type.lower() or text.startswith(b"<"):
        return _judge(rules, status, _NOTHING_SAID)
    if not text.startswith((b"{", b"[")):
        message = text[:MESSAGE_LENGTH_MAX].decode("utf-8", "replace").lower()
        return _judge(rules, status, _Account((), message, None, None))
    return classify_value(rules, status, plain(Raw(text)))


def classify_value(rules: FailureRules, status: int, value: object) -> UpstreamFailure:
    """Judge a decoded error: the body, or the object of a mid-stream event (status 200 then)."""
    return _judge(rules, status, _account_of(value, 0))


def _judge(rules: FailureRules, status: int, account: _Account) -> UpstreamFailure:
    if status < 400 and account.status is not None:
        status = account.status
    kind = _kind(rules, status, account)
    wait_s = account.retry_after_s if kind in _WAITING_KINDS else None
    return UpstreamFailure(kind, wait_s, status)


def _kind(rules: FailureRules, status: int, account: _Account) -> FailureKind:
    """What the family says of itself goes before what is common to all; structure goes before text."""
    return (
        rules.statuses.get(status)
        or _STATUSES.get(status)
        or _by_word(rules.words, account)
        or _by_phrase(rules.phrases, status, account)
        or _by_word(_WORDS, account)
        or _by_phrase(_PHRASES_BY_STATUS.get(status, _PHRASES), status, account)
        or _DEFAULTS.get(status)
        or (_K.OVERLOADED if status >= 500 else _K.OTHER)
    )


def _by_word(words: Words, account: _Account) -> FailureKind | None:
    for word in account.words:
        for pattern, kind in words:
            if fnmatchcase(word, pattern):
                return kind
    return None


def _by_phrase(phrases: Words, status: int, account: _Account) -> FailureKind | None:
    callers = status in _CALLERS_STATUSES
    for phrase, kind in phrases:
        if phrase.startswith("^") or (callers and kind in _OPERATORS_KINDS):
            if account.message.startswith(phrase.removeprefix("^")):
                return kind
        elif phrase in account.message:
            return kind
    return None


def _account_of(value: object, depth: int) -> _Account:
    """Flatten any of the known shapes: nested and flat, numbers and texts, lists around, messages of objects."""
    if isinstance(value, list) and depth <= DEPTH_MAX:
        parts = (_account_of(item, depth + 1) for item in value[:LIST_ITEMS_MAX])
        return functools.reduce(_joined, parts, _NOTHING_SAID)
    if isinstance(value, str):
        return _Account((), value[:MESSAGE_LENGTH_MAX].lower(), None, seconds_in_message(value[:MESSAGE_LENGTH_MAX]))
    if not isinstance(value, dict) or depth > DEPTH_MAX:
        return _NOTHING_SAID
    inner = _NOTHING_SAID
    for name in ("error", "detail", "base_resp", "details", "violations"):
        if value.get(name) is not None:
            inner = _joined(inner, _account_of(value[name], depth + 1))
    own = _Account(
        words=tuple(_words(value)),
        message=_message(value),
        status=_named_status(value),
        retry_after_s=retry_info_s(value) or seconds_in_message(_message(value)),
    )
    return _joined(inner, own)


def _joined(first: _Account, second: _Account) -> _Account:
    return _Account(
        words=first.words + second.words,
        message=first.message or second.message,
        status=first.status if first.status is not None else second.status,
        retry_after_s=first.retry_after_s if first.retry_after_s is not None else second.retry_after_s,
    )


def _words(value: Mapping[str, object]) -> list[str]:
    """Type before code; a code may be a number."""
    found = []
    for name in ("type", "code", "status", "error_code", "reason", "status_code", "quotaId"):
        word = value.get(name)
        if isinstance(word, int) and not isinstance(word, bool):
            word = str(word)
        if isinstance(word, str) and 0 < len(word) <= WORD_LENGTH_MAX:
            found.append(word.lower())
    return found


def _message(value: Mapping[str, object]) -> str:
    for name in ("message", "msg", "status_msg"):
        text = value.get(name)
        if isinstance(text, str):
            return text[:MESSAGE_LENGTH_MAX].lower()
    return ""


def _named_status(value: Mapping[str, object]) -> int | None:
    """A number between 400 and 599 as `code`, `status_code` or `http_code`, also as text."""
    for name in ("status_code", "http_code", "code", "status"):
        number = value.get(name)
        if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) == 3:
            number = int(number)
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number <= 599:
            return number
    return None


def failure_in(rules: FailureRules, obj: Mapping[str, object], status: int = 200) -> UpstreamFailure | None:
    """The failure that a JSON object under a good status holds; None when it holds none.

    Seen: `error` beside or instead of `choices`, also inside a choice; `x_groq.error`; MiniMax's `base_resp` with
    a status code; `{code, message}` or `{object: "error", message}` without `choices`.
    """
    if is_something(obj.get("error")):
        return classify_value(
            rules, status, {"error": plain(obj["error"]), "status_code": plain(obj.get("status_code"))}
        )
    groq = plain(obj.get("x_groq"))
    if isinstance(groq, dict) and is_something(groq.get("error")):
        return classify_value(rules, status, groq)
    base = plain(obj.get("base_resp"))
    if isinstance(base, dict) and base.get("status_code") not in (None, 0, "0"):
        return classify_value(rules, status, {"base_resp": base})
    if "choices" in obj or "message" not in obj:
        return None
    flat = {name: plain(value) for name, value in obj.items() if name in _FLAT_FIELDS}
    says_error = flat.get("object") == "error"
    is_flat = isinstance(flat["message"], str) and ("code" in flat or "type" in flat or "status" in flat)
    return classify_value(rules, status, flat) if says_error or is_flat else None


_FLAT_FIELDS = frozenset(("message", "code", "object", "type", "status", "status_code", "http_code", "error_code"))
_VOID = frozenset((b"", b"null", b'""', b"{}", b"[]", b"false"))


def is_something(value: object) -> bool:
    """Not missing, null, false or empty; works on Raw without decoding."""
    if isinstance(value, Raw):
        return bytes(value).strip() not in _VOID
    return bool(value)
