"""The closed list of ways in which an admitted request ends; every request ends in exactly one."""

import enum


class Outcome(enum.Enum):
    """How an admitted request ended. The value is what the database, metrics and the API show."""

    COMPLETE = "complete"
    """The whole answer arrived, with a normal finish reason."""
    EMPTY = "empty"
    """A finished answer without any output."""
    FILTERED = "filtered"
    """The provider's content filter ended the answer."""
    UPSTREAM_REFUSED = "upstream_refused"
    """The provider refused this request as the caller's fault (400, 413, 422, too long, content policy)."""
    UPSTREAM_ERROR = "upstream_error"
    """No channel gave an answer; nothing had reached the client."""
    UPSTREAM_BROKE = "upstream_broke"
    """The provider failed or cut the answer after its first byte had reached the client."""
    UPSTREAM_TIMEOUT = "upstream_timeout"
    """The provider did not answer, or stopped answering, within the limits."""
    CLIENT_GONE_EARLY = "client_gone_early"
    """The client left before the provider had accepted the request."""
    CLIENT_GONE = "client_gone"
    """The client left while the answer was on its way."""
    CLIENT_STALLED = "client_stalled"
    """The client stopped reading for longer than the stall limit."""
    STOPPED = "stopped"
    """The caller asked for the answer to end (stop call)."""
    WALLET_EMPTY = "wallet_empty"
    """The money ran out while the answer was on its way."""
    SHUTDOWN = "shutdown"
    """The gateway stopped before the answer had ended."""
    CRASHED = "crashed"
    """A fault of ours ended it. Never charged."""


class Charging(enum.Enum):
    """What the customer pays for an outcome."""

    ACTUAL = "actual"
    """The provider's count (or ours when it sent none), never above the hold."""
    DELIVERED = "delivered"
    """The prompt and the output relayed so far, never above the hold."""
    NOTHING = "nothing"
    """Nothing; what the provider may bill is the operator's cost."""


CHARGING: dict[Outcome, Charging] = {
    Outcome.COMPLETE: Charging.ACTUAL,
    Outcome.EMPTY: Charging.NOTHING,
    Outcome.FILTERED: Charging.NOTHING,
    Outcome.UPSTREAM_REFUSED: Charging.NOTHING,
    Outcome.UPSTREAM_ERROR: Charging.NOTHING,
    Outcome.UPSTREAM_BROKE: Charging.NOTHING,
    Outcome.UPSTREAM_TIMEOUT: Charging.NOTHING,
    Outcome.CLIENT_GONE_EARLY: Charging.NOTHING,
    Outcome.CLIENT_GONE: Charging.DELIVERED,
    Outcome.CLIENT_STALLED: Charging.DELIVERED,
    Outcome.STOPPED: Charging.DELIVERED,
    Outcome.WALLET_EMPTY: Charging.DELIVERED,
    Outcome.SHUTDOWN: Charging.NOTHING,
    Outcome.CRASHED: Charging.NOTHING,
}
