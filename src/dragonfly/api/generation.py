"""GET /v1/generation?id=: one request after it ended, as metadata. Readable before its last bytes leave.

The fields are OpenRouter's. What Dragonfly does not know or keep (addresses, user agents, referers) is null.
"""

import re
from collections.abc import Awaitable, Callable

import msgspec
from sqlalchemy import Engine

from dragonfly.admission.grants import KeyPolicy
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, RequestId
from dragonfly.core.money import NUSD_PER_USD, usd_text
from dragonfly.core.outcomes import Outcome
from dragonfly.infra.database import DatabaseThreads, read
from dragonfly.usage.queries import UsageRow, usage_by_request

Reader = Callable[[KeyPolicy, dict[str, str], dict[str, str]], Awaitable[bytes]]

_REQUEST_ID = re.compile(r"gen-[0-9a-f]{32}", re.ASCII)
_CANCELLED = frozenset(
    outcome.value
    for outcome in (Outcome.CLIENT_GONE, Outcome.CLIENT_GONE_EARLY, Outcome.CLIENT_STALLED, Outcome.STOPPED)
)


class GenerationIdMissing(DragonflyError):
    """400."""

    code = "invalid_parameter"
    status = 400
    param = "id"

    def __init__(self) -> None:
        super().__init__("Name the request: /v1/generation?id=gen-…, as in the header x-request-id.")


class GenerationNotFound(DragonflyError):
    """404, also for another account's request and for one that is older than ninety days."""

    code = "generation_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("This account has no such request. Requests can be looked up for ninety days.")


def generation_reader(engine: Engine, threads: DatabaseThreads) -> Reader:
    """Answers for the account of the calling key."""

    def find(account_id: AccountId, request_id: RequestId) -> UsageRow | None:
        with read(engine) as connection:
            return usage_by_request(connection, account_id, request_id)

    async def generation(key: KeyPolicy, params: dict[str, str], query: dict[str, str]) -> bytes:
        asked = query.get("id")
        if not asked:
            raise GenerationIdMissing
        row = None
        if _REQUEST_ID.fullmatch(asked):
            row = await threads.run(find, key.account_id, RequestId(asked))
        if row is None:
            raise GenerationNotFound
        return msgspec.json.encode({"data": generation_shown(row)})

    return generation


def generation_shown(row: UsageRow) -> dict[str, object]:
    """One request in OpenRouter's words. Times in milliseconds; dollars as JSON numbers, exactly in `exact`."""
    usd = row.cost_nusd / NUSD_PER_USD
    latency_ms = row.ttft_us // 1_000 if row.ttft_us else None
    status = row.upstream_status or None
    answers = [{"provider_name": row.provider, "status": status, "latency": latency_ms}] if row.provider else []
    return {
        "id": row.request_id,
        "request_id": row.request_id,
        "upstream_id": None,
        "model": row.model,
        "provider_name": row.provider or None,
        "api_type": "completions",
        "created_at": moment_text(row.created_at_ns),
        "streamed": bool(row.is_streamed),
        "cancelled": row.outcome in _CANCELLED,
        "outcome": row.outcome,
        "finish_reason": row.finish_reason or None,
        "native_finish_reason": None,
        "tokens_prompt": row.prompt_tokens,
        "tokens_completion": row.completion_tokens,
        "native_tokens_prompt": row.prompt_tokens,
        "native_tokens_completion": row.completion_tokens,
        "native_tokens_reasoning": row.reasoning_tokens,
        "native_tokens_cached": row.cached_tokens,
        "native_tokens_cache_write": row.cache_write_tokens,
        "usage_basis": row.basis,
        "total_cost": usd,
        "usage": usd,
        "cost": usd_text(row.cost_nusd),
        "cost_details": {
            "prompt": usd_text(row.prompt_cost_nusd),
            "completion": usd_text(row.cost_nusd - row.prompt_cost_nusd),
            "price_version": row.price_version_id or None,
        },
        "cache_discount": None,
        "upstream_inference_cost": None,
        "is_byok": False,
        "latency": latency_ms,
        "generation_time": max(0, row.duration_us - row.ttft_us) // 1_000 if row.ttft_us else None,
        "moderation_latency": None,
        "attempts": row.attempts,
        "provider_responses": answers,
        **dict.fromkeys(("origin", "http_referer", "user_agent", "app_id", "external_user", "session_id")),
        **dict.fromkeys(("workspace_id", "preset_id", "service_tier", "data_region", "router")),
    }
