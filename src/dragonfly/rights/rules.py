"""Decisions about requests without any I/O: kinds, states, what may follow what, and dates."""

import enum

NS_PER_DAY = 86_400_000_000_000
REASON_LENGTH_MAX = 1_000
NOTE_LENGTH_MAX = 2_000
SELF_SERVICE = "self_service"
"""Who decided, when the installation lets people serve themselves."""


class RequestKind(enum.Enum):
    """What is demanded. The value stands in the database: never rename one."""

    EXPORT = "export"
    DELETION = "deletion"


class Origin(enum.Enum):
    """Where it was asked for."""

    DASHBOARD = "dashboard"
    """By the person, signed in."""
    TICKET = "ticket"
    """In a ticket of support."""
    OPERATOR = "operator"
    """By letter, say; an operator wrote it down."""


class State(enum.Enum):
    """How far a request is."""

    REQUESTED = "requested"
    """It waits for a review."""
    APPROVED = "approved"
    """A copy can be fetched; a deletion waits for its day and can still be cancelled."""
    DONE = "done"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """A copy that nobody fetched in time."""


def is_words(text: str, length_max: int) -> bool:
    """1 to `length_max` characters in printable lines."""
    return 0 < len(text.strip()) <= len(text) <= length_max and all(line.isprintable() for line in text.split("\n"))
