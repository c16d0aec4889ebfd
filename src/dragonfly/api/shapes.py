"""The small values of the account API: money, moments, pages and their cursors.

Money comes as decimal text or as a JSON number and leaves as decimal text. Moments are RFC 3339.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from dragonfly.core.errors import DragonflyError
from dragonfly.core.money import NUSD_PER_USD, from_usd

PAGE_MAX = 100
PAGE_DEFAULT = 50
CURSOR_LENGTH_MAX = 300
YEAR_MAX = 2200
_USD = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_USD_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,300}", re.ASCII)

Item = TypeVar("Item")


class Strict(BaseModel):
    """A body: unknown names are errors, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Page(BaseModel, Generic[Item]):
    """A part of a list. Ask again with `cursor` = `next_cursor` for the next one."""

    data: list[Item]
    next_cursor: Annotated[str | None, Field(description="null: this was the last page.")]


class CursorInvalid(DragonflyError):
    """Made by somebody else, or for another list."""

    code = "cursor_invalid"
    status = 400
    param = "cursor"

    def __init__(self) -> None:
        super().__init__("This cursor is not of this list. Begin without one.")


def _usd(value: object) -> int:
    if isinstance(value, float) and not isinstance(value, bool):
        value = format(Decimal(repr(value)), "f")
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and _USD.fullmatch(value):
        return from_usd(value)
    raise PydanticCustomError("usd", "not an amount")


def _moment(value: object) -> int:
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            at = datetime.fromisoformat(value.upper())
            if 1970 < at.year < YEAR_MAX:
                return int(at.timestamp()) * 1_000_000_000
        except (ValueError, OverflowError):
            pass
    raise PydanticCustomError("moment", "not a moment")


Usd = Annotated[
    int,
    BeforeValidator(_usd),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _USD_PATTERN}, {"type": "number", "minimum": 0}],
            "description": "USD, at most nine decimals.",
            "examples": ["5.00"],
        }
    ),
]
"""nano-USD."""

Moment = Annotated[
    int,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2027-01-31T00:00:00Z"]}),
]
"""Nanoseconds since the epoch."""

Day = Annotated[str, Query(pattern=r"^\d{4}-\d{2}-\d{2}$", description="A UTC day, YYYY-MM-DD.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Most entries in the answer.")]
Cursor = Annotated[str | None, Query(max_length=CURSOR_LENGTH_MAX, description="`next_cursor` of the page before.")]


class DayInvalid(DragonflyError):
    code = "day_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__("Write days as YYYY-MM-DD, the first not after the last.")


def day_number(text: str) -> int:
    """A day counted from the epoch. DayInvalid."""
    try:
        at = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise DayInvalid from None
    if not 1970 <= at.year < YEAR_MAX:
        raise DayInvalid
    return int(at.timestamp()) // 86_400


def day_text(day: int) -> str:
    """YYYY-MM-DD of a day counted from the epoch."""
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")


def usd_number(nusd: int | None) -> float | None:
    """For fields whose name others gave and that they hold as numbers."""
    return None if nusd is None else nusd / NUSD_PER_USD


def cursor_text(kind: str, *position: str | int) -> str:
    """An opaque cursor: where the next page of a list of this kind begins."""
    packed = json.dumps([kind, *position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def cursor_position(kind: str, cursor: str | None, *shapes: type[str] | type[int]) -> tuple[str | int, ...] | None:
    """What `cursor_text` was given; None without a cursor. CursorInvalid.

    A cursor holds a position and no right: every list is bound to its owner anyway, so it is checked, not signed.
    """
    if cursor is None:
        return None
    if not _CURSOR.fullmatch(cursor):
        raise CursorInvalid
    try:
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found = json.loads(packed)
    except (binascii.Error, ValueError, RecursionError):
        raise CursorInvalid from None
    if not isinstance(found, list) or len(found) != len(shapes) + 1 or found[0] != kind:
        raise CursorInvalid
    for value, shape in zip(found[1:], shapes, strict=True):
        if type(value) is not shape or (isinstance(value, int) and not 0 <= value < 2**63):
            raise CursorInvalid
        if isinstance(value, str) and not value.isprintable():
            raise CursorInvalid
    return tuple(found[1:])


def page_of(
    found: Sequence[Item], limit: int, kind: str, position: Callable[[Item], tuple[str | int, ...]]
) -> tuple[list[Item], str | None]:
    """A page and its next cursor, of a read that asked for one row more than the page takes."""
    page = list(found[:limit])
    return page, cursor_text(kind, *position(page[-1])) if len(found) > limit else None
