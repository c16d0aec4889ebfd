"""What the simulated provider says: pure functions from a request to the parts of an answer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from dragonfly.providers.simulated.corpus import (
    CHINESE,
    CHINESE_OPENING,
    CHINESE_REASONING,
    ENGLISH,
    ENGLISH_OPENING,
    ENGLISH_REASONING,
    is_chinese,
    tokens_of,
)
from dragonfly.providers.simulated.faults import Fault, fault_of
from dragonfly.providers.simulated.schema import example

SENTENCES_MIN = 3
SENTENCES_SPREAD = 4
CACHE_BLOCK_TOKENS = 64
FINGERPRINT = "fp_simulated"
MESSAGE_TOKENS = 3
COUNTED_LENGTH_MAX = 65_536
"""Characters of a message that are counted; the rest is taken as four to a token."""
TOKENS_MAX = 8_192
"""Longest simulated answer, whatever the request allows."""

Fields = Mapping[str, object]


@dataclass(frozen=True)
class Answer:
    """One answer, ready to be sent whole or in pieces."""

    id: str
    model: str
    streamed: bool
    with_usage: bool
    reasoning: list[str]
    content: list[str]
    tool: str
    """Name of the called function; "" for none."""
    arguments: list[str]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    fault: Fault | None = None
    tokens_out: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens_out", len(self.reasoning) + len(self.content) + len(self.arguments))

    @property
    def usage(self) -> dict[str, object]:
        """DeepSeek's usage object, key for key."""
        usage: dict[str, object] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens_out,
            "total_tokens": self.prompt_tokens + self.tokens_out,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
        if self.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": len(self.reasoning)}
        usage["prompt_cache_hit_tokens"] = self.cached_tokens
        usage["prompt_cache_miss_tokens"] = self.prompt_tokens - self.cached_tokens
        return usage


def answer_to(request: Fields) -> Answer:
    """The answer to a decoded request. Same request, same answer; no input is repeated in it."""
    model = _text(request.get("model"))
    fault = fault_of(model, request.get("simulate"))
    messages = _mappings(request.get("messages"))
    texts = [_content_text(message) for message in messages]
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).digest()
    question = _last_question(messages)
    chinese = is_chinese(question)
    tool = _tool_to_call(request, messages, question)
    reasoning = tokens_of("".join(CHINESE_REASONING if chinese else ENGLISH_REASONING)) if _thinks(request) else []
    content = [] if tool else tokens_of(_content(request, digest, chinese))
    arguments = tokens_of(json.dumps(example(_parameters(tool)))) if tool else []
    if fault is Fault.EMPTY:
        reasoning, content, arguments, tool = [], [], [], None
    limit = _output_limit(request)
    is_whole = len(reasoning) + len(content) + len(arguments) <= limit
    reasoning = reasoning[:limit]
    content = content[: limit - len(reasoning)]
    arguments = arguments[: limit - len(reasoning)]
    prompt_tokens, cached_tokens = _prompt_tokens(texts)
    options = request.get("stream_options")
    return Answer(
        id=f"{digest[:4].hex()}-{digest[4:6].hex()}-4{digest[6:8].hex()[1:]}-a000-{digest[8:14].hex()}",
        model=model,
        streamed=request.get("stream") is True,
        with_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        reasoning=reasoning,
        content=content,
        tool=_tool_name(tool) if tool else "",
        arguments=arguments,
        finish_reason=_finish_reason(fault, bool(tool), is_whole),
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        fault=fault,
    )


def whole(answer: Answer, created_s: int) -> dict[str, object]:
    """The body of an answer that is not streamed."""
    message: dict[str, object] = {"role": "assistant", "content": "".join(answer.content)}
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.tool:
        function = {"name": answer.tool, "arguments": "".join(answer.arguments)}
        message["tool_calls"] = [{"index": 0, "id": _call_id(answer), "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": created_s,
        "model": answer.model,
        "choices": [choice],
        "usage": answer.usage,
        "system_fingerprint": FINGERPRINT,
    }


def deltas(answer: Answer) -> list[dict[str, object]]:
    """The deltas of a stream in order, the one with the role first; each stands for at most one token."""
    found: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    found += [{"content": None, "reasoning_content": token} for token in answer.reasoning]
    found += [{"content": token} for token in answer.content]
    if answer.tool:
        function = {"name": answer.tool, "arguments": ""}
        found.append({"tool_calls": [{"index": 0, "id": _call_id(answer), "type": "function", "function": function}]})
    found += [{"tool_calls": [{"index": 0, "function": {"arguments": token}}]} for token in answer.arguments]
    return found


def chunk(answer: Answer, created_s: int, delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
    """One event's object; the one with the finish reason carries the usage."""
    body: dict[str, object] = {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": created_s,
        "model": answer.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    if answer.with_usage:
        body["usage"] = answer.usage if finish_reason else None
    return body


def _content(request: Fields, digest: bytes, chinese: bool) -> str:
    wanted = request.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if isinstance(wanted, Mapping) and kind == "json_schema":
        described = wanted.get("json_schema")
        schema = described.get("schema") if isinstance(described, Mapping) else None
        return json.dumps(example(schema), ensure_ascii=False)
    if kind == "json_object":
        return json.dumps(
            {"simulated": True, "answer": CHINESE[0] if chinese else ENGLISH[0].strip()}, ensure_ascii=False
        )
    sentences = CHINESE if chinese else ENGLISH
    count = SENTENCES_MIN + digest[0] % SENTENCES_SPREAD
    start, stride = digest[1], 1 + digest[2] % (len(sentences) - 1)
    chosen = (sentences[(start + step * stride) % len(sentences)] for step in range(count))
    return (CHINESE_OPENING if chinese else ENGLISH_OPENING) + "".join(chosen).rstrip()


def _finish_reason(fault: Fault | None, calls_tool: bool, is_whole: bool) -> str:
    if fault is Fault.CONTENT_FILTER:
        return "content_filter"
    if fault is Fault.OUT_OF_RESOURCES:
        return "insufficient_system_resource"
    if not is_whole:
        return "length"
    return "tool_calls" if calls_tool else "stop"


def _thinks(request: Fields) -> bool:
    thinking = request.get("thinking")
    if isinstance(thinking, Mapping):
        return thinking.get("type") == "enabled"
    return _text(request.get("reasoning_effort")) not in ("", "none")


def _tool_to_call(request: Fields, messages: list[Fields], question: str) -> Fields | None:
    """The first tool, or the named one: when the choice demands a call, or the question mentions its name."""
    tools = [tool for tool in _mappings(request.get("tools")) if _tool_name(tool)]
    choice = request.get("tool_choice")
    if not tools or choice == "none" or (messages and messages[-1].get("role") == "tool"):
        return None
    if isinstance(choice, Mapping):
        return next((tool for tool in tools if _tool_name(tool) == _tool_name(choice)), tools[0])
    if choice == "required":
        return tools[0]
    asked = question.lower()
    return next(
        (tool for tool in tools if _tool_name(tool).lower().replace("_", " ") in asked.replace("_", " ")), None
    )


def _tool_name(tool: Fields) -> str:
    function = tool.get("function")
    return _text(function.get("name")) if isinstance(function, Mapping) else ""


def _parameters(tool: Fields | None) -> object:
    function = tool.get("function") if tool else None
    return function.get("parameters", {"type": "object"}) if isinstance(function, Mapping) else None


def _call_id(answer: Answer) -> str:
    return f"call_00_{answer.id.replace('-', '')[:24]}"


def _output_limit(request: Fields) -> int:
    limits = [request.get("max_completion_tokens"), request.get("max_tokens")]
    given = [limit for limit in limits if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0]
    return min([*given, TOKENS_MAX])


def _prompt_tokens(texts: list[str]) -> tuple[int, int]:
    """All tokens, and those taken as read from the cache: whole blocks of what stands before the last message."""
    counts = [MESSAGE_TOKENS + len(tokens_of(text[:COUNTED_LENGTH_MAX])) for text in texts]
    for position, text in enumerate(texts):
        counts[position] += max(0, len(text) - COUNTED_LENGTH_MAX) // 4
    cached = sum(counts[:-1]) // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS
    return max(1, sum(counts)), cached


def _last_question(messages: list[Fields]) -> str:
    return next((_content_text(one) for one in reversed(messages) if one.get("role") == "user"), "")


def _content_text(message: Fields) -> str:
    """Text of a message, its parts joined."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return " ".join(_text(part.get("text")) for part in _mappings(content))


def _mappings(value: object) -> list[Fields]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
