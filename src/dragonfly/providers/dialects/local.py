"""Servers that people run themselves: Ollama, vLLM, llama.cpp, llama-box. No accounts, no money.

llama-box writes a mid-stream error as a line `error: {…}` and never sends [DONE]; llama.cpp answers 503 while it
loads its model; a key that is wrong is a wrong setting of the operator's.
"""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules

_FAILURES = FailureRules(
    words=(("unavailable_error", FailureKind.OVERLOADED),),
    phrases=(
        ("loading model", FailureKind.OVERLOADED),
        ("exceeds the available context", FailureKind.CONTEXT_TOO_LONG),
        ("exceeds context", FailureKind.CONTEXT_TOO_LONG),
        ("prompt too long", FailureKind.CONTEXT_TOO_LONG),
    ),
)

OLLAMA = Dialect("ollama", failures=_FAILURES)
VLLM = Dialect("vllm", failures=_FAILURES)
LLAMA_CPP = Dialect("llama-cpp", failures=_FAILURES)
LLAMA_BOX = Dialect("llama-box", failures=_FAILURES)
