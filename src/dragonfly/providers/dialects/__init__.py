"""Dialects of chat completions by name. Names are part of the configuration file's contract."""

from dragonfly.providers.dialects.anthropic_compat import ANTHROPIC_COMPAT
from dragonfly.providers.dialects.ark import ARK
from dragonfly.providers.dialects.deepseek import DEEPSEEK
from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import EventFacts, FailureKind, UpstreamFailure
from dragonfly.providers.dialects.gemini import GEMINI
from dragonfly.providers.dialects.glm import GLM
from dragonfly.providers.dialects.groq import GROQ
from dragonfly.providers.dialects.local import LLAMA_BOX, LLAMA_CPP, OLLAMA, VLLM
from dragonfly.providers.dialects.minimax import MINIMAX
from dragonfly.providers.dialects.mistral import MISTRAL
from dragonfly.providers.dialects.moonshot import MOONSHOT
from dragonfly.providers.dialects.openai import OPENAI
from dragonfly.providers.dialects.openrouter import OPENROUTER
from dragonfly.providers.dialects.plain import plain_events
from dragonfly.providers.dialects.qwen import QWEN
from dragonfly.providers.dialects.siliconflow import SILICONFLOW
from dragonfly.providers.dialects.stepfun import STEPFUN
from dragonfly.providers.dialects.together import TOGETHER
from dragonfly.providers.dialects.xai import XAI

__all__ = ["DIALECTS", "Dialect", "EventFacts", "FailureKind", "UpstreamFailure", "dialect", "plain_events"]

DIALECTS: dict[str, Dialect] = {
    one.name: one
    for one in (
        OPENAI,
        DEEPSEEK,
        MOONSHOT,
        GLM,
        QWEN,
        MINIMAX,
        ANTHROPIC_COMPAT,
        GEMINI,
        XAI,
        MISTRAL,
        GROQ,
        TOGETHER,
        OPENROUTER,
        OLLAMA,
        VLLM,
        LLAMA_CPP,
        LLAMA_BOX,
        ARK,
        STEPFUN,
        SILICONFLOW,
    )
}


def dialect(name: str) -> Dialect:
    """The dialect of that name; KeyError for one that does not exist (the catalogue checks names at start)."""
    return DIALECTS[name]
