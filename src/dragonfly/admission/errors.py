"""Refusals of the gate. The surface gives each its HTTP status; the numbers are part of the contract."""

from dragonfly.core.errors import DragonflyError
from dragonfly.core.money import usd_text


class InvalidKey(DragonflyError):
    """Unknown, malformed, revoked or expired: one answer for all, so that nothing can be probed."""

    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "This API key is not valid. Copy the whole key (sk-df-…) again, or create a new one in the dashboard."
        )


class AccountUnverified(DragonflyError):
    code = "account_unverified"
    status = 403

    def __init__(self) -> None:
        super().__init__("Verify the account's email address first: open the link in the verification mail.")


class AccountFrozen(DragonflyError):
    code = "account_frozen"
    status = 403

    def __init__(self) -> None:
        super().__init__("This account is frozen. Write to support from the account's email address.")


class KeyPaused(DragonflyError):
    """403: the breaker tripped."""

    code = "key_paused"

    def __init__(self) -> None:
        super().__init__(
            "This key was paused because it suddenly spent far more than usual. Its owner lets it go on: switch it on"
            " again in the dashboard, or revoke it if it leaked."
        )


class AddressNotAllowed(DragonflyError):
    """403: the key is bound to networks."""

    code = "address_not_allowed"

    def __init__(self) -> None:
        super().__init__(
            "This key may not be used from this address. Use it from an allowed network, or change its list."
        )


class ModelNotFound(DragonflyError):
    code = "model_not_found"

    def __init__(self) -> None:
        super().__init__("This model is not offered here. GET /v1/models lists the models that are.")


class ModelUnpriced(DragonflyError):
    code = "model_unpriced"

    def __init__(self) -> None:
        super().__init__(
            "This model has no price at the moment, so it is not served. Choose another from GET /v1/models."
        )


class ModelOutOfService(DragonflyError):
    """503: an operator took every channel of the model out of service."""

    code = "no_healthy_channel"

    def __init__(self) -> None:
        super().__init__("Every channel of this model is out of service. Retry later, or name fallbacks in `models`.")
        self.retry_after_s = 60.0


class ModelNotAllowed(DragonflyError):
    code = "model_not_allowed"

    def __init__(self) -> None:
        super().__init__("This key may not call that model. Use an allowed model or change the key's model list.")


_WAIT = "Wait for the next {} of UTC, or raise the limit"
PURSES = {
    "account": ("the account's balance", "Top up the wallet"),
    "account_daily": ("the account's limit for this day", _WAIT.format("day")),
    "account_weekly": ("the account's limit for this week", _WAIT.format("week")),
    "account_monthly": ("the account's limit for this month", _WAIT.format("month")),
    "key": ("this key's spending limit", "Raise the key's limit"),
    "key_daily": ("this key's limit for this day", _WAIT.format("day")),
    "key_weekly": ("this key's limit for this week", _WAIT.format("week")),
    "key_monthly": ("this key's limit for this month", _WAIT.format("month")),
}
"""By the tightest purse: what it is, and what to do."""


class InsufficientBalance(DragonflyError):
    """402. `limit` says which purse is empty."""

    code = "insufficient_balance"

    def __init__(self, *, needed_nusd: int, available_nusd: int, limit: str) -> None:
        what, remedy = PURSES[limit]
        super().__init__(
            f"This request may cost up to {usd_text(needed_nusd)} USD and {what} has"
            f" {usd_text(available_nusd)} USD available. {remedy}, or lower max_tokens."
        )
        self.needed_nusd = needed_nusd
        self.available_nusd = available_nusd
        self.limit = limit


UNITS = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "concurrency": "requests at the same time",
}


class RateLimited(DragonflyError):
    """429. `what` is "requests", "tokens" or "concurrency"."""

    code = "rate_limited"

    def __init__(self, *, what: str, limit: int, retry_after_s: float) -> None:
        unit = UNITS[what]
        super().__init__(
            f"This key allows {limit} {unit}. Wait for the seconds in Retry-After, or raise the key's limit."
        )
        self.what = what
        self.limit = limit
        self.retry_after_s = retry_after_s


class StoreUnavailable(DragonflyError):
    """503, never 401, 402 or 403: our own trouble is not the caller's fault."""

    code = "store_unavailable"

    def __init__(self, retry_after_s: float = 2.0) -> None:
        super().__init__(
            "The gateway cannot reach its database at the moment. Retry after the seconds in Retry-After."
        )
        self.retry_after_s = retry_after_s
