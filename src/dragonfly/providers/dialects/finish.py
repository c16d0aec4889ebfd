"""Finish reasons in one vocabulary: stop, length, tool_calls, content_filter, error."""

_MEANINGS = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "spii": "content_filter",
    "error": "error",
    "abort": "error",
    "cancelled": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
    "malformed_function_call": "error",
}
"""DeepSeek: insufficient_system_resource. GLM: network_error, sensitive, model_context_window_exceeded.
Mistral: model_length. vLLM: abort. Gemini's native words come through compatible layers of others."""

_FAILURE_SIGNS = ("error", "fail", "abort", "malformed", "timeout")
_WORST_FIRST = ("error", "content_filter", "length", "tool_calls", "stop")


def normalised(native: str) -> str:
    """The word of ours for a provider's; "" for "" only. An unknown word is an ordinary stop unless it says
    failure: the provider did say that the answer is over."""
    if not native:
        return ""
    word = native.lower()
    known = _MEANINGS.get(word)
    if known is not None:
        return known
    return "error" if any(sign in word for sign in _FAILURE_SIGNS) else "stop"


def worst(reasons: list[str]) -> str:
    """The one that matters most among several choices; "" for none."""
    return next((reason for reason in _WORST_FIRST if reason in reasons), "")
