"""Decisions about tickets without any I/O: kinds, states, and what of somebody's words is kept."""

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType

TEXT_LENGTH_MAX = 5_000
REQUEST_IDS_MAX = 10
_REQUEST_ID = re.compile(r"(?:gen|req)-[0-9a-f]{32}", re.ASCII)
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|re|whsec|ghp|xox[abp])[-_][A-Za-z0-9_-]{12,}", re.ASCII)
_BEARER = re.compile(r"(?i)\b(bearer|authorization:?\s+\w+)\s+[A-Za-z0-9._~+/=-]{16,}")
_CARD_LIKE = re.compile(r"\b(?:[0-9][ -]?){12,18}[0-9]\b", re.ASCII)
REMOVED = "[removed]"


class TicketKind(enum.Enum):
    """What somebody writes about. The value stands in the database: never rename one."""

    QUESTION = "question"
    PAYMENT = "payment"
    DATA_EXPORT = "data_export"
    DELETION = "deletion"
    ABUSE = "abuse"


class TicketState(enum.Enum):
    """Whose turn it is."""

    OPEN = "open"
    """The operator's."""
    ANSWERED = "answered"
    """The writer's; closed when they say nothing for 30 days."""
    CLOSED = "closed"


class Author(enum.Enum):
    """Who wrote a message."""

    CUSTOMER = "customer"
    OPERATOR = "operator"


class RequestState(enum.Enum):
    """How far a request about data is."""

    RECEIVED = "received"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    READY = "ready"
    DONE = "done"
    REFUSED = "refused"
    CANCELLED = "cancelled"


DATA_REQUESTS: Mapping[TicketKind, str] = MappingProxyType(
    {TicketKind.DATA_EXPORT: "export", TicketKind.DELETION: "deletion"}
)
"""The kinds that need a review, and what mails call them."""
ENDED = frozenset({RequestState.DONE, RequestState.REFUSED, RequestState.CANCELLED})
_NEXT: Mapping[RequestState, frozenset[RequestState]] = MappingProxyType(
    {
        RequestState.RECEIVED: frozenset(
            {RequestState.IN_REVIEW, RequestState.APPROVED, *ENDED} - {RequestState.DONE}
        ),
        RequestState.IN_REVIEW: frozenset({RequestState.APPROVED, *ENDED} - {RequestState.DONE}),
        RequestState.APPROVED: frozenset({RequestState.READY, *ENDED}),
        RequestState.READY: frozenset({RequestState.DONE, RequestState.CANCELLED}),
    }
)


def may_follow(old: RequestState, new: RequestState) -> bool:
    """A request is carried out only after it was approved, and an ended one stays ended."""
    return new in _NEXT.get(old, frozenset())


def is_text(text: str) -> bool:
    """1 to 5,000 characters in lines, without control characters."""
    return 0 < len(text.strip()) <= len(text) <= TEXT_LENGTH_MAX and all(
        line.isprintable() for line in text.replace("\t", " ").split("\n")
    )


def is_request_id(text: str) -> bool:
    """An id as answers carry it in x-request-id."""
    return _REQUEST_ID.fullmatch(text) is not None


def without_secrets(text: str) -> str:
    """The text without what looks like a key, a token or a card number: people paste them, and nobody needs them."""
    text = _KEY_LIKE.sub(REMOVED, text.replace("\t", " "))
    text = _BEARER.sub(lambda found: f"{found[1]} {REMOVED}", text)
    return _CARD_LIKE.sub(lambda found: REMOVED if _is_card(found[0]) else found[0], text)


def _is_card(text: str) -> bool:
    """The check digit (Luhn) is right: other long numbers, such as a payment's reference, stay."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
