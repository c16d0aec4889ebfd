"""A channel: one way to reach one model at one provider with one credential."""

from dataclasses import dataclass, field

from dragonfly.core.secrets import Secret


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go; one pool per origin."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class ChannelTimeouts:
    """Upper bounds of each wait for this channel, in seconds."""

    connect_s: float = 5.0
    head_s: float = 600.0
    """From the request's last byte to the first body byte. DeepSeek queues for up to ten minutes."""
    idle_s: float = 120.0
    """Between two reads of a running answer."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Everything the gateway needs to send one request upstream; built once by the catalogue."""

    id: str
    """Stable and public, e.g. "deepseek/deepseek-flash@deepseek"."""
    provider: str
    """Slug shown to callers, e.g. "deepseek"."""
    upstream_model: str
    """The provider's own model id, put into the forwarded body."""
    origin: Origin
    path: str
    """Request target of chat completions, e.g. "/v1/chat/completions"."""
    credential: Secret
    """Sent as `Authorization: Bearer …`; empty for servers without keys."""
    dialect: str
    """Name of the dialect in providers/dialects, e.g. "deepseek"."""
    concurrency_max: int | None = None
    """Open requests that the provider allows for the account; None: no known limit."""
    drop_fields: frozenset[str] = frozenset()
    """Top-level request fields that this provider refuses and that may be left out without harm."""
    max_tokens_field: str = "max_tokens"
    """The name under which this provider takes the output limit ("max_tokens" or "max_completion_tokens")."""
    simulated: bool = False
    may_train: bool = True
    """The provider is not known to leave what it is sent out of training; unknown counts as yes."""
    may_retain: bool = True
    """The provider is not known to keep nothing of what it is sent; unknown counts as yes."""
    timeouts: ChannelTimeouts = field(default_factory=ChannelTimeouts)
