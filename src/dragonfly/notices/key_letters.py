"""What owners are told of their keys, so that nobody makes or changes one unnoticed."""

import enum

from sqlalchemy import Connection

from dragonfly.accounts.people import person_of
from dragonfly.accounts.queries import account_by_id
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.keys.actions import IssuedKey
from dragonfly.keys.queries import StoredKey
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.mail.rules import mail_moment


class KeyChange(enum.Enum):
    """What happened to a key; the words of the mail's template."""

    ROTATED = "rotated"
    """Its owner, or a program with the right to, gave it another secret."""
    REVOKED = "revoked"
    """An operator ended it."""
    STOPPED = "stopped"
    """An operator switched it off."""
    STARTED = "started"
    """An operator switched it on again."""


def tell_key_created(
    connection: Connection, ids: IdSource, account_id: AccountId, issued: IssuedKey, *, name: str, now_ns: int
) -> None:
    """There is a new key."""
    values = {"time": mail_moment(now_ns), "name": name, "hint": issued.hint}
    key = f"key-created/{issued.key_id}"
    _queue(connection, ids, MailKind.KEY_CREATED, account_id, values, key=key, now_ns=now_ns)


def tell_key_changed(
    connection: Connection, ids: IdSource, stored: StoredKey, change: KeyChange, *, now_ns: int
) -> None:
    """Something happened to a key; `stored` is what it was then or is now."""
    values = {"time": mail_moment(now_ns), "name": stored.name, "hint": stored.hint, "change": change.value}
    key = ids.new(f"key-changed/{stored.id}/", now_ns)
    _queue(connection, ids, MailKind.KEY_CHANGED, stored.account_id, values, key=key, now_ns=now_ns)


def _queue(
    connection: Connection,
    ids: IdSource,
    kind: MailKind,
    account_id: AccountId,
    values: dict[str, str],
    *,
    key: str,
    now_ns: int,
) -> None:
    account, person = account_by_id(connection, account_id), person_of(connection, account_id)
    if account is None or account.email is None:
        return
    queue_mail(
        connection,
        ids,
        kind=kind,
        account_id=account_id,
        address=account.email,
        language="en" if person is None else person.language,
        values=values,
        idempotency_key=key,
        now_ns=now_ns,
    )
