"""Repeated requests: what an `Idempotency-Key` was used for, for a day.

A request with such a key is claimed before it runs and noted after it ran, in transactions of their own. A claim
without a note is a request that runs, or one whose process died: then nobody knows whether it took effect, and
saying so beats doing it twice.
"""

from typing import NamedTuple

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    delete,
    func,
    select,
    update,
)

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import BIG, SCHEMA, insert_missing

LIFETIME_NS = 24 * 3_600 * 1_000_000_000
REPEATS_PER_ACCOUNT_MAX = 10_000

repeats = Table(
    "repeats",
    SCHEMA,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("request_digest", LargeBinary, nullable=False),
    Column("status", Integer),
    Column("reply", Text),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("length(digest) = 32", name="digest"),
    CheckConstraint("length(request_digest) = 32", name="request_digest"),
    Index("ix_repeats_account_id", "account_id"),
    Index("ix_repeats_created_at_ns", "created_at_ns"),
    info={
        "purpose": "Requests that may be sent again without happening twice",
        "category": "account",
        "lifetime": "24 hours",
        "since": "created_at_ns",
        "columns": {
            "digest": "Who sent which idempotency key",
            "account_id": "Who sent it",
            "request_digest": "Hash of the request, to tell a repeat from another one; prompts never come here",
            "status": "How the request ended",
            "reply": "What was answered, without secrets",
            "created_at_ns": "When it was sent",
        },
    },
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""`digest` is over who asked and the key, `request_digest` over method, path and body. `reply` is the JSON of the
answer without secrets, NULL when it is not kept; `status` is NULL until the request has ended."""


class TooManyRepeats(DragonflyError):
    code = "too_many_idempotency_keys"
    status = 429

    def __init__(self) -> None:
        super().__init__(
            f"This account used {REPEATS_PER_ACCOUNT_MAX} idempotency keys within a day. Send without one, or later."
        )


class Repeat(NamedTuple):
    """What is known of the first request with a key."""

    request_digest: bytes
    status: int | None
    reply: str | None


def claim(
    connection: Connection, account_id: AccountId, digest: bytes, request_digest: bytes, *, now_ns: int
) -> Repeat | None:
    """None: the key was free and is now this request's. Else what its first request was. TooManyRepeats."""
    expired = delete(repeats).where(repeats.c.digest == digest, repeats.c.created_at_ns <= now_ns - LIFETIME_NS)
    connection.execute(expired)
    row = {
        "digest": digest,
        "account_id": account_id,
        "request_digest": request_digest,
        "created_at_ns": now_ns,
    }
    used = select(func.count()).where(repeats.c.account_id == account_id)
    if connection.execute(used).scalar_one() >= REPEATS_PER_ACCOUNT_MAX:
        raise TooManyRepeats
    if insert_missing(connection, repeats, row):
        return None
    wanted = select(repeats.c.request_digest, repeats.c.status, repeats.c.reply).where(repeats.c.digest == digest)
    return Repeat(*connection.execute(wanted).one())


def note(connection: Connection, digest: bytes, *, status: int, reply: str | None) -> None:
    """Keeps how the claimed request ended."""
    connection.execute(update(repeats).where(repeats.c.digest == digest).values(status=status, reply=reply))


def release(connection: Connection, digest: bytes) -> None:
    """The claimed request was refused before it did anything: the key is free again."""
    connection.execute(delete(repeats).where(repeats.c.digest == digest, repeats.c.status.is_(None)))
