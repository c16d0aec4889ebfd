"""What changes the outbox. Each action runs inside a transaction that its caller opened."""

import json
from collections.abc import Mapping
from typing import TypedDict, Unpack

from sqlalchemy import Connection

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import insert_missing
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.rules import are_right, is_mail_address, mail_language
from dragonfly.mail.tables import mail_outbox

IDEMPOTENCY_KEY_LENGTH_MAX = 200


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
