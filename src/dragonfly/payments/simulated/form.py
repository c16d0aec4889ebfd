"""Stripe's nested form encoding (`a[b][0][c]=1`), read by the SDK's own parameter types.

The types are generated from Stripe's OpenAPI description, so a parameter that Stripe does not know, lacks or would
not take is refused here as Stripe refuses it.
"""

import functools
import re
import types
import typing
from collections.abc import Mapping
from typing import Literal, Union, get_args, get_origin
from urllib.parse import parse_qsl

from dragonfly.payments.simulated.faults import StripeFault, invalid

FIELDS_MAX = 500
DEPTH_MAX = 8
REQUEST_OPTIONS = frozenset(
    ("api_key", "stripe_version", "stripe_account", "stripe_context", "max_network_retries", "idempotency_key",
     "headers", "content_type", "rate_limiter")
)  # fmt: skip
"""What the SDK's types carry besides the API's parameters."""
NAMES_FOR_TYPE_CHECKERS = {"StripeContext": str, "Mapping": Mapping}
"""Names in annotations of request options that the SDK imports for type checkers only."""

Tree = dict[str, "Tree | str"]
Params = dict[str, object]


def decode(text: str, shape: type) -> Params:
    """The form or query `text` as values of the TypedDict `shape`; StripeFault for what does not fit."""
    pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    value = _typed(_tree(pairs), shape, "")
    assert isinstance(value, dict)
    return value


def _tree(pairs: list[tuple[str, str]]) -> Tree:
    root: Tree = {}
    for name, value in pairs:
        parts = re.findall(r"[^\[\]]+", name)
        if not parts or len(parts) > DEPTH_MAX:
            raise invalid("Invalid parameter name.", name[:80])
        table = root
        for part in parts[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise invalid("Invalid object.", name[:80])
            table = inner
        table[parts[-1]] = value
    return root


@functools.cache
def _hints(shape: type) -> Mapping[str, object]:
    hints = typing.get_type_hints(shape, localns=dict(NAMES_FOR_TYPE_CHECKERS))
    return {name: hint for name, hint in hints.items() if name not in REQUEST_OPTIONS}


def _typed(raw: Tree | str, hint: object, path: str) -> object:
    """`raw` as a value of `hint`; the first alternative of a union that fits."""
    if isinstance(hint, type) and hasattr(hint, "__required_keys__"):  # a TypedDict, of either library
        return _record(raw, hint, path)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _alternative(raw, hint, path)
    if origin is Literal:
        if raw not in get_args(hint):
            raise invalid(f"Invalid {path}: must be one of {', '.join(map(str, get_args(hint)))}", path)
        return raw
    if origin in (list, typing.List):  # noqa: UP006
        return _list(raw, get_args(hint)[0], path)
    if origin in (dict, typing.Dict):  # noqa: UP006
        if not isinstance(raw, dict):
            raise invalid("Invalid object", path)
        return {name: _typed(value, get_args(hint)[1], f"{path}[{name}]") for name, value in raw.items()}
    return _scalar(raw, hint, path)


def _record(raw: Tree | str, shape: type, path: str) -> Params:
    if not isinstance(raw, dict):
        raise invalid("Invalid object", path)
    hints = _hints(shape)
    needed: frozenset[str] = getattr(shape, "__required_keys__", frozenset())
    for name in sorted(needed & set(hints)):
        if name not in raw:
            at = f"{path}[{name}]" if path else name
            raise invalid(f"Missing required param: {at}.", at, "parameter_missing")
    values: Params = {}
    for name, value in raw.items():
        at = f"{path}[{name}]" if path else name
        if name not in hints:
            raise invalid(f"Received unknown parameter: {at}", at, "parameter_unknown")
        values[name] = _typed(value, hints[name], at)
    return values


def _alternative(raw: Tree | str, hint: object, path: str) -> object:
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    # `Union[Literal[…], str]` marks an open list in the SDK; the API itself takes the listed words only.
    closed = [kind for kind in kinds if get_origin(kind) is Literal] or kinds
    if len(closed) < len(kinds) and str in kinds:
        kinds = [kind for kind in kinds if kind is not str]
    failures: list[StripeFault] = []
    for kind in kinds:
        try:
            return _typed(raw, kind, path)
        except StripeFault as failure:
            failures.append(failure)
    raise max(failures, key=lambda failure: len(str(failure.error.get("param", ""))))


def _list(raw: Tree | str, kind: object, path: str) -> list[object]:
    if not isinstance(raw, dict):
        raise invalid("Invalid array", path)
    numbers = sorted(raw, key=lambda name: int(name) if name.isdigit() else -1)
    if numbers != [str(number) for number in range(len(numbers))]:
        raise invalid("Invalid array", path)
    return [_typed(raw[number], kind, f"{path}[{number}]") for number in numbers]


def _scalar(raw: Tree | str, kind: object, path: str) -> object:
    if isinstance(raw, dict):
        raise invalid("Invalid string: an object was given", path)
    if kind is int:
        if not re.fullmatch(r"-?\d{1,18}", raw):
            raise invalid(f"Invalid integer: {raw[:40]}", path, "parameter_invalid_integer")
        return int(raw)
    if kind is bool:
        if raw not in ("true", "false"):
            raise invalid(f"Invalid boolean: {raw[:40]}", path)
        return raw == "true"
    return raw
