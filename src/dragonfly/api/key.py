"""GET /v1/key: what the calling key is, may do and has spent. The fields are OpenRouter's."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from sqlalchemy import Engine

from dragonfly.admission.errors import InvalidKey
from dragonfly.admission.grants import KeyPolicy
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.clock import Clock
from dragonfly.core.money import NUSD_PER_USD, usd_text
from dragonfly.infra.database import DatabaseThreads, read
from dragonfly.keys.queries import StoredKey, key_of_account
from dragonfly.keys.rules import SpendLimits
from dragonfly.usage.queries import KeyCosts, day_of, key_costs, month_start

Reader = Callable[[KeyPolicy, dict[str, str], dict[str, str]], Awaitable[bytes]]

_NO_BYOK = dict.fromkeys(("byok_usage", "byok_usage_daily", "byok_usage_weekly", "byok_usage_monthly"), 0)


class _Found(NamedTuple):
    key: StoredKey
    costs: KeyCosts


def key_reader(engine: Engine, threads: DatabaseThreads, clock: Clock) -> Reader:
    """Answers about the calling key itself."""

    def find(key: KeyPolicy) -> _Found:
        today = day_of(clock.now_ns())
        with read(engine) as connection:
            stored = key_of_account(connection, key.key_id, account_id=key.account_id)
            if stored is None:
                raise InvalidKey
            costs = key_costs(connection, key.key_id, day=today, month_first_day=month_start(today))
        return _Found(stored, costs)

    async def key_of(key: KeyPolicy, params: dict[str, str], query: dict[str, str]) -> bytes:
        found = await threads.run(find, key)
        return msgspec.json.encode({"data": key_shown(found.key, found.costs, key)})

    return key_of


def key_shown(stored: StoredKey, costs: KeyCosts, policy: KeyPolicy) -> dict[str, object]:
    """Dollars as JSON numbers; the same as decimal strings under `exact`. Days, weeks and months are UTC's."""
    limit, spent = stored.limits.spend_limit_nusd, stored.spent_nusd
    left = None if limit is None else max(0, limit - spent)
    models = stored.limits.models
    money = {
        "limit": limit,
        "limit_remaining": left,
        "usage": spent,
        "usage_daily": costs.today_nusd,
        "usage_weekly": costs.week_nusd,
        "usage_monthly": costs.month_nusd,
    }
    return {
        "hash": stored.id,
        "label": stored.hint,
        "name": stored.name,
        "key_group": stored.key_group or None,
        "disabled": stored.revoked_at_ns is not None,
        **{name: None if nusd is None else nusd / NUSD_PER_USD for name, nusd in money.items()},
        "exact": {name: None if nusd is None else usd_text(nusd) for name, nusd in money.items()},
        "limit_reset": None,
        **_NO_BYOK,
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "models": None if models is None else sorted(models),
        "expires_at": None if stored.limits.expires_at_ns is None else moment_text(stored.limits.expires_at_ns),
        "created_at": moment_text(stored.created_at_ns),
        "updated_at": None,
        "paused": stored.paused_at_ns is not None,
        "networks": None if stored.limits.networks is None else list(stored.limits.networks),
        "spend_limits": _windows(stored.limits.spend),
        "account_spend_limits": _windows(stored.account_spend),
        "token_limit": policy.tokens_per_minute or None,
        "rate_limit": {"requests": policy.requests_per_minute or -1, "interval": "1m"},
        "concurrency_limit": policy.concurrency_max or None,
    }


def _windows(limits: SpendLimits) -> dict[str, str | None]:
    """Limits by day, week and month as decimal strings of dollars; null: none."""
    pairs = zip(("daily", "weekly", "monthly"), limits, strict=True)
    return {name: None if nusd is None else usd_text(nusd) for name, nusd in pairs}
