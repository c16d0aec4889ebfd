"""The values that cross the border between the data plane and the money."""

from dataclasses import dataclass
from typing import NamedTuple

from dragonfly.core.addresses import Network
from dragonfly.core.ids import AccountId, KeyId, RequestId
from dragonfly.core.money import NanoUsd
from dragonfly.core.outcomes import Outcome
from dragonfly.core.routing import RoutingRules
from dragonfly.core.tokens import TokenUsage
from dragonfly.keys.rules import NO_SPEND_LIMITS, SpendLimits
from dragonfly.providers.channel import Channel


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What one API key may do; cached per process, replaced whole, never edited."""

    key_id: KeyId
    account_id: AccountId
    verified: bool
    requests_per_minute: int
    """0: no limit."""
    concurrency_max: int
    """0: no limit."""
    models: frozenset[str] | None
    """Public model ids this key may call; None: all."""
    expires_at_ns: int | None
    spend_limit_nusd: int | None = None
    """Most this key may spend in all; None: only the balance limits it."""
    routing: RoutingRules | None = None
    """The key's routing profile."""
    frozen: bool = False
    """An operator froze the account; `verified` is false then, so that one look tells both."""
    paused: bool = False
    """The key spent far above its habit; `verified` is false then too."""
    tokens_per_minute: int = 0
    """0: no limit."""
    spend: SpendLimits = NO_SPEND_LIMITS
    """Of the key, by day, week and month."""
    account_spend: SpendLimits = NO_SPEND_LIMITS
    """Of all keys of the account together."""
    networks: tuple[Network, ...] | None = None
    """From where it may be used; None: from anywhere."""

    @property
    def has_own_purse(self) -> bool:
        """The key's spending is limited, so money is leased to it alone."""
        return self.spend_limit_nusd is not None or self.spend is not NO_SPEND_LIMITS


@dataclass(frozen=True, slots=True)
class Candidate:
    """One channel that can serve a model, with the price frozen for this request.

    `price` is opaque to the data plane: it hands it back in the settlement.
    """

    channel: Channel
    price: object
    prompt_nusd_per_mtok: int
    """Uncached input price for the customer, nano-USD per million tokens, for sorting and max_price."""
    completion_nusd_per_mtok: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What the catalogue sells under one public model id at this moment; at least one candidate."""

    model: str
    """Public id, e.g. "deepseek/deepseek-flash"."""
    candidates: tuple[Candidate, ...]
    context_tokens_max: int
    output_tokens_max: int
    grows: bool = False
    """Every candidate streams all the output that it bills, so that the hold of a stream may grow with it."""


class Ask(NamedTuple):
    """A request for admission, made from the peek at the body."""

    key: KeyPolicy
    request_id: RequestId
    offers: tuple[Offer, ...]
    """The model and then its fallbacks (`models`), in the caller's order; already filtered by `provider`."""
    body_bytes: int
    """Of the text: the body without inline images."""
    output_tokens: int | None
    """max_completion_tokens or max_tokens, for each choice; None when the caller set no limit."""
    choices: int
    """n, at least 1."""
    streamed: bool
    started_ns: int
    media_tokens: int = 0
    """Most prompt tokens of parts that are not text; their bytes are not in `body_bytes`."""
    extra_tokens: int = 0
    """Output for each choice that may come on top of `output_tokens`, e.g. a budget for thinking."""


@dataclass(slots=True)
class Grant:
    """Permission to spend up to `hold_nusd`; ends in exactly one `settle`."""

    ask: Ask
    hold_nusd: NanoUsd
    output_tokens_clamp: int | None
    """Set when the caller gave no limit and the balance does not cover the model's maximum: the data plane
    writes it into the forwarded body and names it in the header `x-dragonfly-max-tokens`."""
    covered_tokens: int | None = None
    """Output tokens of each choice that the hold covers so far; None: all that the request may make."""
    tokens_reserved: int = 0
    """What the key's limit of tokens per minute was charged ahead; corrected by the count at the end."""
    settled: bool = False
    lease: object = None
    """Opaque: the worker-local lease that the hold was taken from."""


class Charge(NamedTuple):
    """What one request costs. `cost_nusd` is never above the hold."""

    cost_nusd: NanoUsd
    """What the customer pays."""
    upstream_nusd: NanoUsd
    """What the provider will bill by its list price."""
    absorbed_nusd: NanoUsd
    """What the customer would have paid and does not: above the hold, or for an outcome that is free. The
    operator carries it."""
    prompt_cost_nusd: NanoUsd
    completion_cost_nusd: NanoUsd


class Settlement(NamedTuple):
    """How a granted request ended. Metadata only: numbers and names from closed sets."""

    outcome: Outcome
    candidate: Candidate | None
    """The one that answered; None when none was reached."""
    usage: TokenUsage
    charge: Charge
    answered_model: str
    """Public id of the model that answered."""
    finish_reason: str
    """Normalised: "", stop, length, tool_calls, content_filter, error."""
    upstream_status: int
    attempts: int
    ttft_us: int
    """Microseconds from the request's first byte to the answer's first byte; 0 when there was none."""
    duration_us: int
