"""Values between the outbox, the templates and the transports."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from dragonfly.core.errors import DragonflyError


class Failure(enum.Enum):
    """Why a mail was not sent; a closed list, because providers' own words may quote addresses."""

    AWAY = "provider_away"
    LIMITED = "provider_limit"
    QUOTA = "provider_quota"
    CONFIGURATION = "configuration_refused"
    """The provider refuses our credential, our sender or our certificate authority."""
    ADDRESS = "address_refused"
    MESSAGE = "message_refused"
    TEMPLATE = "template_failed"
    INTERRUPTED = "interrupted"
    """The process died, or lost the database, between claiming and sending, again and again."""
    STALE = "stale"
    ADDRESS_DEAD = "address_dead"
    OPTED_OUT = "opted_out"


@dataclass(frozen=True, slots=True)
class Message:
    """One mail as it goes out. Its words do not show themselves in a repr."""

    id: str
    """The outbox's id of it; the provider's idempotency key."""
    address: str
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Beside the usual ones, e.g. List-Unsubscribe."""
    queued_at_ns: int


class MailFailed(DragonflyError):
    """A transport could not deliver. `is_final`: another attempt would fail too."""

    code = "mail_failed"

    def __init__(self, failure: Failure, *, is_final: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(f"The mail could not be sent: {failure.value}. docs/operate/mail.md says what to do.")
        self.failure = failure
        self.is_final = is_final
        self.pause_s = retry_after_s
        """How long the provider asks us to send nothing at all."""
