"""Chat completions: what is read from a request, and what is written into the one that goes upstream.

Ours are `models`, `provider`, `usage` (never forwarded), `model` (replaced by the provider's id),
`stream_options.include_usage` (always asked for) and the output limit when it is clamped. Everything else is
forwarded as the bytes that came.
"""

from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from dragonfly.core.content import holds_content
from dragonfly.core.routing import Sort
from dragonfly.gateway.refusals import Refusal
from dragonfly.gateway.wire.peek import read_fields

MODELS_MAX = 8
CHOICES_MAX = 128
OUTPUT_TOKENS_MAX = 100_000_000
PROVIDER_NAMES_MAX = 50

GUARDED = frozenset(
    {
        "model",
        "models",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "provider",
        "usage",
    }
)
OUR_FIELD_BYTES_MAX = 16 * 1024
"""Longest value of a field that is decoded here; `messages` is not."""
UNPRICED = frozenset(
    {
        "best_of",
        "chat_template",
        "enable_code_interpreter",
        "enable_search",
        "extra_body",
        "max_new_tokens",
        "max_output_tokens",
        "mcp_servers",
        "mm_processor_kwargs",
        "num_predict",
        "options",
        "plugins",
        "search_options",
        "search_parameters",
        "speed",
        "vl_high_resolution_images",
        "web_search",
        "web_search_options",
    }
)
"""Fields that lift the output above `max_tokens` or the prompt above its bytes at some providers, or are billed by
the call: no price covers them, so they are refused by name instead of passing."""
BUDGETS = frozenset({"thinking", "reasoning", "thinking_budget", "enable_thinking", "prediction"})
"""Fields that let some providers bill output beyond `max_tokens`; what they add is held too."""
PREDICTION_BYTES_PER_TOKEN = 2
OURS = ("models", "provider", "usage")

_text = msgspec.json.Decoder(str)
_texts = msgspec.json.Decoder(list[str])
_flag = msgspec.json.Decoder(bool | None)
_count = msgspec.json.Decoder(int | None)
_encode = msgspec.json.Encoder().encode
_options = msgspec.json.Decoder(dict[str, Raw])

_INCLUDE_USAGE = Raw(b'{"include_usage":true}')
_TRUE = Raw(b"true")
_NULL = Raw(b"null")
CALLERS_TOOLS = frozenset({"function", "custom"})
SHORT_LIST_BYTES = 64
OPENING_BRACKET, OPENING_BRACE = ord("["), ord("{")


class MaxPrice(msgspec.Struct, forbid_unknown_fields=True):
    """Ceilings in USD per million tokens; a channel above one is left out."""

    prompt: float | None = None
    completion: float | None = None


class Preferences(msgspec.Struct, forbid_unknown_fields=True):
    """The `provider` object: every field is honoured or refused, never ignored."""

    order: list[str] = []
    only: list[str] = []
    ignore: list[str] = []
    allow_fallbacks: bool = True
    sort: str | None = None
    max_price: MaxPrice | None = None
    data_collection: str | None = None
    """"deny": only providers that are known not to train on what they are sent."""
    zdr: bool | None = None
    """True: only providers that are known to keep nothing."""


class UsageWish(msgspec.Struct):
    """The `usage` object of OpenRouter clients."""

    include: bool = False


class _Tool(msgspec.Struct):
    type: str = "function"


class _Thinking(msgspec.Struct):
    budget_tokens: int | None = None
    max_tokens: int | None = None


_tools = msgspec.json.Decoder(list[_Tool] | None)
_thinking = msgspec.json.Decoder(_Thinking | None)
_preferences = msgspec.json.Decoder(Preferences)
_usage_wish = msgspec.json.Decoder(UsageWish)
NO_PREFERENCES = Preferences()
SORTS = frozenset(sort.value for sort in Sort)
DATA_COLLECTION = frozenset({"allow", "deny"})


@holds_content
class ChatRequest(NamedTuple):
    """What the gateway needs to know of one request; `fields` hold the rest as bytes."""

    fields: dict[str, Raw]
    models: tuple[str, ...]
    streamed: bool
    wants_usage: bool
    output_tokens: int | None
    choices: int
    preferences: Preferences
    extra_tokens: int
    """Output that may come on top of `output_tokens`: a budget for thinking, a prediction that is rejected."""


def read_chat_request(body: bytes) -> ChatRequest:
    """Read and check what is ours; raises Refusal with the name of the wrong field."""
    fields = read_fields(body, GUARDED)
    if not UNPRICED.isdisjoint(fields):
        name = min(UNPRICED.intersection(fields))
        raise Refusal("invalid_parameter", f"`{name}` is not served here. Use max_tokens and tools.", param=name)
    if "tools" in fields:
        _check_tools(fields["tools"])
    if "modalities" in fields or "audio" in fields:
        _check_modalities(fields)
    models = _read_models(fields)
    messages = fields.get("messages")
    if messages is None or not _is_filled_list(messages):
        raise Refusal("invalid_parameter", "`messages` must be a list with at least one message.", param="messages")
    streamed = "stream" in fields and _read(_flag, fields, "stream", "true or false") is True
    choices = 1
    if "n" in fields:
        choices = _bounded(fields, "n", CHOICES_MAX) or 1
    output_tokens = None
    if "max_completion_tokens" in fields:
        output_tokens = _bounded(fields, "max_completion_tokens", OUTPUT_TOKENS_MAX)
    if "max_tokens" in fields:
        older = _bounded(fields, "max_tokens", OUTPUT_TOKENS_MAX)
        output_tokens = older if output_tokens is None else max(output_tokens, older or 0)
    return ChatRequest(
        fields,
        models,
        streamed,
        _wants_usage(fields),
        output_tokens,
        choices,
        _read_preferences(fields) if "provider" in fields else NO_PREFERENCES,
        0 if BUDGETS.isdisjoint(fields) else _extra_tokens(fields),
    )


def _extra_tokens(fields: dict[str, Raw]) -> int:
    """The most that these fields add; whether a provider counts it inside of `max_tokens` differs, so it is held."""
    extra = 0
    for name in ("thinking", "reasoning"):
        if name in fields and memoryview(fields[name])[0] == OPENING_BRACE:
            budget = _read(_thinking, fields, name, "an object with whole numbers")
            assert isinstance(budget, _Thinking)
            extra += max(0, budget.budget_tokens or 0, budget.max_tokens or 0)
    if "thinking_budget" in fields:
        extra += max(0, _read(_count, fields, "thinking_budget", "a whole number") or 0)
    elif fields.get("enable_thinking", _NULL) == _TRUE:
        extra += OUTPUT_TOKENS_MAX
    if "prediction" in fields:
        extra += len(fields["prediction"]) // PREDICTION_BYTES_PER_TOKEN
    return min(extra, OUTPUT_TOKENS_MAX)


def _check_modalities(fields: dict[str, Raw]) -> None:
    """Answers are text: sound and images have prices of their own, which no catalogue here knows."""
    if fields.get("audio", _NULL) != _NULL:
        raise Refusal("invalid_parameter", "`audio` is not served here: answers are text.", param="audio")
    if fields.get("modalities", _NULL) != _NULL:
        wanted = _read(_texts, fields, "modalities", 'the list ["text"]')
        if any(kind != "text" for kind in wanted):
            raise Refusal("invalid_parameter", "`modalities` may only be text.", param="modalities")


def _check_tools(value: Raw) -> None:
    """Only tools that the caller runs: a provider bills its own by the call, and no price covers them."""
    try:
        tools = _tools.decode(value) or []
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refusal("invalid_parameter", "`tools` must be a list of tools with a type.", param="tools") from None
    if any(tool.type not in CALLERS_TOOLS for tool in tools):
        raise Refusal(
            "invalid_parameter",
            "`tools` take the types function and custom; providers' own are not served.",
            param="tools",
        )


def _is_filled_list(value: Raw) -> bool:
    if memoryview(value)[0] != OPENING_BRACKET:
        return False
    return len(value) > SHORT_LIST_BYTES or bool(bytes(value)[1:-1].strip())


def _read(decoder: "msgspec.json.Decoder[Any]", fields: dict[str, Raw], name: str, expected: str) -> Any:
    if len(fields[name]) > OUR_FIELD_BYTES_MAX:
        raise Refusal("invalid_parameter", f"`{name}` is too long.", param=name)
    try:
        return decoder.decode(fields[name])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refusal("invalid_parameter", f"`{name}` must be {expected}.", param=name) from None


def _bounded(fields: dict[str, Raw], name: str, maximum: int) -> int | None:
    expected = f"a whole number from 1 to {maximum}"
    value = _read(_count, fields, name, expected)
    if value is None:
        return None
    assert isinstance(value, int)
    if not 1 <= value <= maximum:
        raise Refusal("invalid_parameter", f"`{name}` must be {expected}.", param=name)
    return value


def _read_models(fields: dict[str, Raw]) -> tuple[str, ...]:
    first: tuple[str, ...] = ()
    if "model" in fields:
        first = (str(_read(_text, fields, "model", "the text of a model id")),)
    if fields.get("models", _NULL) == _NULL:
        if not first:
            raise Refusal("invalid_parameter", "`model` is missing. GET /v1/models lists the ids.", param="model")
        return first
    others = _read(_texts, fields, "models", "a list of model ids")
    assert isinstance(others, list)
    if len(others) > MODELS_MAX:
        raise Refusal("invalid_parameter", f"`models` may name at most {MODELS_MAX} models.", param="models")
    names = tuple(dict.fromkeys((*first, *others)))
    if not names:
        raise Refusal("invalid_parameter", "`models` must name at least one model.", param="models")
    return names


def _wants_usage(fields: dict[str, Raw]) -> bool:
    if "stream_options" in fields:
        options = _stream_options(fields)
        if "include_usage" in options and _read(_flag, options, "include_usage", "true or false"):
            return True
    if fields.get("usage", _NULL) != _NULL:
        wish = _read(_usage_wish, fields, "usage", "an object with `include`")
        assert isinstance(wish, UsageWish)
        return wish.include
    return False


def _stream_options(fields: dict[str, Raw]) -> dict[str, Raw]:
    if fields["stream_options"] == _NULL:
        return {}
    options = _read(_options, fields, "stream_options", "an object")
    assert isinstance(options, dict)
    return options


def _read_preferences(fields: dict[str, Raw]) -> Preferences:
    if fields["provider"] == _NULL:
        return NO_PREFERENCES
    expected = "an object of order, only, ignore, allow_fallbacks, sort, max_price, data_collection, zdr"
    preferences = _read(_preferences, fields, "provider", expected)
    assert isinstance(preferences, Preferences)
    if preferences.sort is not None and preferences.sort not in SORTS:
        raise Refusal("invalid_parameter", "`provider.sort` must be price, latency or throughput.", param="provider")
    if preferences.data_collection is not None and preferences.data_collection not in DATA_COLLECTION:
        raise Refusal("invalid_parameter", "`provider.data_collection` must be allow or deny.", param="provider")
    for names in (preferences.order, preferences.only, preferences.ignore):
        if len(names) > PROVIDER_NAMES_MAX:
            raise Refusal(
                "invalid_parameter",
                f"`provider` lists take {PROVIDER_NAMES_MAX} names at most.",
                param="provider",
            )
    ceiling = preferences.max_price
    if ceiling is not None and any(
        value is not None and not value >= 0 for value in (ceiling.prompt, ceiling.completion)
    ):
        raise Refusal("invalid_parameter", "`provider.max_price` must not be negative.", param="provider")
    return preferences


def forwarded_fields(request: ChatRequest, upstream_model: Raw) -> dict[str, Raw]:
    """The fields for upstream: a copy, so that a second attempt starts from what the client sent."""
    fields = request.fields.copy()
    fields["model"] = upstream_model
    for name in OURS:
        fields.pop(name, None)
    if request.streamed:
        if "stream_options" in fields:
            options = _stream_options(fields)
            options["include_usage"] = _TRUE
            fields["stream_options"] = Raw(_encode(options))
        else:
            fields["stream_options"] = _INCLUDE_USAGE
    return fields


def set_output_limit(fields: dict[str, Raw], name: str, tokens: int) -> None:
    """Write the clamp under the name that the provider takes."""
    fields.pop("max_tokens", None)
    fields.pop("max_completion_tokens", None)
    fields[name] = Raw(b"%d" % tokens)


encode_fields = _encode
