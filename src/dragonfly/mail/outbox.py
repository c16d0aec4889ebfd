"""What changes the outbox. Each action runs inside a transaction that its caller opened."""

import json
from collections.abc import Mapping
from typing import NamedTuple, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update
from sqlalchemy.sql.dml import Update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import insert_missing
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.messages import Failure
from dragonfly.mail.rules import are_right, is_mail_address, mail_language
from dragonfly.mail.tables import mail_outbox

IDEMPOTENCY_KEY_LENGTH_MAX = 200
CLAIM_S = 300.0
"""Longer than any transport's attempt. A claim that is older belongs to a process that died."""
CLAIMS_MAX = 8
_KNOWN_KINDS = tuple(kind.value for kind in MailKind)


class MailAddressInvalid(DragonflyError):
    """Not one plain address."""

    code = "mail_address_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__("That is no address that mail can go to. Write one such as alice@example.com.")


class MailOrder(TypedDict):
    """One mail to be written. The template of `kind` takes exactly the `values` that `mail.kinds.RULES` lists."""

    kind: MailKind
    account_id: AccountId | None
    """Whose mail it is; None for people without an account."""
    address: str
    language: str
    """Of the reader, e.g. "zh-CN"; English for a language that there is no template in."""
    values: Mapping[str, str | int]
    idempotency_key: str
    """1 to 200 printable characters. The same key queues one mail, as long as its row lives (30 days)."""
    now_ns: int


def queue_mail(connection: Connection, ids: IdSource, **order: Unpack[MailOrder]) -> None:
    """Queues one mail in the caller's transaction: it is sent if, and only if, that transaction commits.

    Raises MailAddressInvalid for an address from outside. Values come from our own code: wrong ones are a bug.
    """
    if not is_mail_address(order["address"]):
        raise MailAddressInvalid
    key = order["idempotency_key"]
    assert 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX, "an idempotency key has 1 to 200 characters"
    assert key.isprintable(), "an idempotency key is printable"
    assert are_right(order["kind"], order["values"]), "the values are those that the kind's rules list"
    row = {
        "id": ids.new("mail-", order["now_ns"]),
        "kind": order["kind"].value,
        "account_id": order["account_id"],
        "address": order["address"],
        "language": mail_language(order["language"]),
        "details": json.dumps(dict(order["values"]), ensure_ascii=False),
        "idempotency_key": key,
        "state": "queued",
        "attempts": 0,
        "due_at_ns": order["now_ns"],
        "created_at_ns": order["now_ns"],
    }
    insert_missing(connection, mail_outbox, row)


class Claimed(NamedTuple):
    """A mail that this process alone may send for `CLAIM_S`."""

    id: str
    claim: str
    kind: MailKind
    account_id: AccountId | None
    address: str
    language: str
    values: dict[str, str | int]
    attempts: int
    """This one included."""
    created_at_ns: int


def is_any_due(connection: Connection, *, now_ns: int) -> bool:
    """A look without the write lock, for the usual case that nothing waits."""
    return connection.execute(select(mail_outbox.c.id).where(_is_due(now_ns)).limit(1)).first() is not None


def claim_due(connection: Connection, claim: str, *, now_ns: int, limit: int = CLAIMS_MAX) -> list[Claimed]:
    """Claims the mails that have waited longest, by one conditional update: of several processes that see the same
    row as due, one changes it. `claim` must be new. The attempt counts from here, so that a mail which kills the
    process is not tried for ever."""
    due = _is_due(now_ns)
    chosen = select(mail_outbox.c.id).where(due).order_by(mail_outbox.c.due_at_ns).limit(limit)
    claiming = (
        update(mail_outbox)
        .where(mail_outbox.c.id.in_(chosen), due)
        .values(claim=claim, claimed_until_ns=now_ns + round(CLAIM_S * 1e9), attempts=mail_outbox.c.attempts + 1)
        .returning(
            mail_outbox.c.id,
            mail_outbox.c.kind,
            mail_outbox.c.account_id,
            mail_outbox.c.address,
            mail_outbox.c.language,
            mail_outbox.c.details,
            mail_outbox.c.attempts,
            mail_outbox.c.created_at_ns,
        )
    )
    return [
        Claimed(
            id=row.id,
            claim=claim,
            kind=MailKind(row.kind),
            account_id=row.account_id,
            address=row.address,
            language=row.language,
            values=json.loads(row.details),
            attempts=row.attempts,
            created_at_ns=row.created_at_ns,
        )
        for row in connection.execute(claiming)
    ]


def note_sent(connection: Connection, claimed: Claimed, transport_id: str | None, *, now_ns: int) -> bool:
    """The mail is out: its values are scrubbed. False when the claim had run out and another process has it."""
    return _end(connection, claimed, "sent", None, now_ns=now_ns, transport_id=transport_id)


def give_up(connection: Connection, claimed: Claimed, failure: Failure, *, now_ns: int) -> bool:
    """No further attempt; the operator sees it as dead, or withheld when it was not to be sent."""
    withheld = failure in (Failure.ADDRESS_DEAD, Failure.OPTED_OUT)
    return _end(connection, claimed, "withheld" if withheld else "dead", failure, now_ns=now_ns)


def put_back(connection: Connection, claimed: Claimed, failure: Failure, *, due_at_ns: int) -> bool:
    """The mail waits for another attempt. A provider that asks us to slow down has not refused it: that attempt does
    not count."""
    attempts = claimed.attempts - (failure is Failure.LIMITED)
    waiting = {"claim": None, "claimed_until_ns": None, "failure": failure.value, "due_at_ns": due_at_ns}
    waiting |= {"attempts": attempts}
    return connection.execute(_own(claimed).values(waiting)).rowcount == 1


def _end(
    connection: Connection,
    claimed: Claimed,
    state: str,
    failure: Failure | None,
    *,
    now_ns: int,
    transport_id: str | None = None,
) -> bool:
    ended = {
        "state": state,
        "details": None,
        **({"address": ""} if claimed.kind is MailKind.DELETION_DONE else {}),
        "claim": None,
        "claimed_until_ns": None,
        "failure": None if failure is None else failure.value,
        "transport_id": transport_id,
        "ended_at_ns": now_ns,
    }
    return connection.execute(_own(claimed).values(ended)).rowcount == 1


def _own(claimed: Claimed) -> Update:
    return update(mail_outbox).where(mail_outbox.c.id == claimed.id, mail_outbox.c.claim == claimed.claim)


def _is_due(now_ns: int) -> ColumnElement[bool]:
    """Waits, and nobody has it. A kind that a newer version queued is left to that version."""
    is_free = or_(mail_outbox.c.claim.is_(None), mail_outbox.c.claimed_until_ns <= now_ns)
    return and_(
        mail_outbox.c.state == "queued",
        mail_outbox.c.due_at_ns <= now_ns,
        mail_outbox.c.kind.in_(_KNOWN_KINDS),
        is_free,
    )
