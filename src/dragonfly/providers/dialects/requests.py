"""What a family wants different in the top-level fields of a request."""

from dataclasses import dataclass

import msgspec
from msgspec import Raw

_INCLUDE_USAGE = Raw(b'{"include_usage":true}')
_TRUE = Raw(b"true")
_LIMIT_NAMES = ("max_completion_tokens", "max_tokens")
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


@dataclass(frozen=True, slots=True)
class RequestRules:
    """Quirks of one family. Only what may be left out without harm is ever dropped."""

    limit_field: str = ""
    """The one name under which the output limit is understood; empty: both are."""
    stream_options: bool = True
    """Takes `stream_options.include_usage`. Those that do not send usage unasked."""
    drop: frozenset[str] = frozenset()
    """Fields that are refused, or that would change what the provider charges us."""


def prepare_fields(rules: RequestRules, fields: dict[str, Raw], streamed: bool) -> None:
    """Change the outgoing fields in place."""
    for name in rules.drop:
        fields.pop(name, None)
    if rules.limit_field:
        _name_limit(fields, rules.limit_field)
    if not rules.stream_options:
        fields.pop("stream_options", None)
    elif streamed:
        fields["stream_options"] = _with_usage(fields.get("stream_options"))


def _name_limit(fields: dict[str, Raw], name: str) -> None:
    """One limit under the right name; where both are given, max_completion_tokens is the one that was priced."""
    given = [fields.pop(other) for other in _LIMIT_NAMES if other in fields]
    limits = [limit for limit in given if bytes(limit) != b"null"]
    if limits:
        fields[name] = limits[0]


def _with_usage(options: Raw | None) -> Raw:
    """The caller's options with usage asked for: without it there is nothing exact to bill."""
    if options is None:
        return _INCLUDE_USAGE
    try:
        given = _decode_object(options)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _INCLUDE_USAGE
    return Raw(msgspec.json.encode({**given, "include_usage": _TRUE}))
