"""Reads of mail: what waits, what accounts want, where mail must not go."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from dragonfly.core.ids import AccountId
from dragonfly.mail.kinds import Choice
from dragonfly.mail.tables import mail_dead_addresses, mail_outbox, mail_preferences

OUTBOX_PAGE_MAX = 1_000


class Preferences(NamedTuple):
    """What an account wants."""

    choices: frozenset[Choice] = frozenset(Choice)
    """The mails that are switched on; all of them until somebody switches one off."""
    low_balance_nusd: int | None = None
    """Below which balance it is told; None: the installation's default."""


class OutboxRow(NamedTuple):
    """One mail as the operator sees it: never what it says."""

    id: str
    kind: str
    account_id: AccountId | None
    address: str
    state: str
    attempts: int
    due_at_ns: int
    failure: str | None
    created_at_ns: int
    ended_at_ns: int | None


def preferences_of(connection: Connection, account_id: AccountId) -> Preferences:
    """The account's preferences; the defaults when it never set any."""
    row = connection.execute(
        select(mail_preferences).where(mail_preferences.c.account_id == account_id)
    ).one_or_none()
    if row is None:
        return Preferences()
    wanted = frozenset(choice for choice in Choice if getattr(row, choice.value))
    return Preferences(wanted, row.low_balance_nusd)


def is_dead_address(connection: Connection, digest: str) -> bool:
    """Mail to the address of that digest bounced or was called spam."""
    wanted = select(mail_dead_addresses.c.digest).where(mail_dead_addresses.c.digest == digest)
    return connection.execute(wanted).first() is not None


def outbox_page(
    connection: Connection, *, state: str | None = None, before: str | None = None, limit: int = 100
) -> list[OutboxRow]:
    """For operators: the newest mails first; `before` is the id of the last one seen."""
    wanted = select(*(mail_outbox.c[name] for name in OutboxRow._fields)).order_by(mail_outbox.c.id.desc())
    if state is not None:
        wanted = wanted.where(mail_outbox.c.state == state)
    if before is not None:
        wanted = wanted.where(mail_outbox.c.id < before)
    return [OutboxRow(*row) for row in connection.execute(wanted.limit(min(limit, OUTBOX_PAGE_MAX)))]
