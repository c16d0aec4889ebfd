"""Errors as Stripe words them, and the ways in which its API can be made to fail."""

import enum
from collections.abc import Mapping
from typing import NamedTuple


class StripeFault(Exception):
    """An error answer: HTTP status and the fields of Stripe's error object."""

    def __init__(self, status: int, kind: str, message: str, **fields: object) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, object] = {"type": kind, "message": message, **fields}


class Outage(enum.Enum):
    """What happens to a request instead of a good answer."""

    REFUSED = "refused"
    """500 before anything happened."""
    LIMITED = "limited"
    """429 before anything happened."""
    LOST = "lost"
    """Carried out, but the connection breaks before the answer."""
    CUT = "cut"
    """The connection breaks before anything happened."""


class Planned(NamedTuple):
    """The next request of this kind meets an outage."""

    method: str
    path: str
    outage: Outage


def invalid(message: str, param: str = "", code: str = "") -> StripeFault:
    """A request that Stripe would not carry out."""
    fields = {name: value for name, value in (("param", param), ("code", code)) if value}
    return StripeFault(400, "invalid_request_error", message, **fields)


def missing(kind: str, object_id: str, param: str = "id") -> StripeFault:
    """There is no such object."""
    message = f"No such {kind}: '{object_id}'"
    return StripeFault(404, "invalid_request_error", message, param=param, code="resource_missing")


def declined(code: str, decline_code: str, intent: Mapping[str, object]) -> StripeFault:
    """A card that was refused, with the intent as it is now."""
    return StripeFault(
        402, "card_error", "Your card was declined.", code=code, decline_code=decline_code, payment_intent=intent
    )
