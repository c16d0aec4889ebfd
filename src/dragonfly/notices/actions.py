"""What begins, goes on with and ends notices. Each action runs inside a transaction that its caller opened."""

from typing import Any

from sqlalchemy import Connection, Row, Select, and_, exists, func, literal, select, update

from dragonfly.accounts.letters import recipient_of
from dragonfly.accounts.tables import accounts, people
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.money import usd_text
from dragonfly.core.outcomes import Outcome
from dragonfly.infra.database import insert_missing
from dragonfly.ledger.tables import wallets
from dragonfly.mail.kinds import Choice, MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.mail.queries import preferences_of
from dragonfly.mail.rules import is_mail_address
from dragonfly.mail.tables import mail_preferences
from dragonfly.notices.rules import BEGINS_DAYS, ENDS_DAYS, NS_PER_DAY, WELCOME_STEPS, next_welcome_ns
from dragonfly.notices.tables import low_balance_notices, welcomes
from dragonfly.usage.tables import usage

AT_ONCE_MAX = 200
"""Accounts in one transaction; the next turn goes on."""


def begin_welcomes(connection: Connection, *, now_ns: int) -> int:
    """Begins the welcome of customers who have just proven their address; how many."""
    known = exists().where(welcomes.c.account_id == accounts.c.id)
    fresh = and_(
        accounts.c.verified_at_ns > now_ns - BEGINS_DAYS * NS_PER_DAY,
        accounts.c.verified_at_ns <= now_ns,
        accounts.c.frozen_at_ns.is_(None),
        people.c.role == "customer",
        ~known,
    )
    found = select(accounts.c.id, accounts.c.verified_at_ns).join(people, people.c.account_id == accounts.c.id)
    begun = 0
    for row in connection.execute(found.where(fresh).limit(AT_ONCE_MAX)).all():
        started = {"steps": 0, "started_at_ns": row.verified_at_ns, "due_at_ns": row.verified_at_ns}
        begun += insert_missing(connection, welcomes, {"account_id": row.id, **started})
    return begun


def send_welcomes(connection: Connection, ids: IdSource, *, now_ns: int) -> int:
    """Queues the welcome mails that are due, and ends those welcomes that nobody needs any more; how many it saw."""
    due = and_(welcomes.c.ended_at_ns.is_(None), welcomes.c.due_at_ns <= now_ns)
    rows = connection.execute(select(welcomes).where(due).order_by(welcomes.c.due_at_ns).limit(AT_ONCE_MAX)).all()
    for row in rows:
        _go_on(connection, ids, row, now_ns)
    return len(rows)


def _go_on(connection: Connection, ids: IdSource, row: Row[Any], now_ns: int) -> None:
    account_id = AccountId(row.account_id)
    is_late = now_ns > row.started_at_ns + ENDS_DAYS * NS_PER_DAY
    wants_it = Choice.WELCOME in preferences_of(connection, account_id).choices
    is_over = is_late or not wants_it or has_succeeded(connection, account_id)
    following = None if is_over else next_welcome_ns(row.started_at_ns, row.steps + 1, now_ns=now_ns)
    changed: dict[str, int] = {} if is_over else {"steps": row.steps + 1}
    changed |= {"ended_at_ns": now_ns} if following is None else {"due_at_ns": following}
    # The step is part of the condition: of several workers that see the same row, one goes on.
    own = update(welcomes).where(
        welcomes.c.account_id == account_id, welcomes.c.steps == row.steps, welcomes.c.ended_at_ns.is_(None)
    )
    if connection.execute(own.values(changed)).rowcount and not is_over:
        kind = WELCOME_STEPS[row.steps][0]
        _tell(connection, ids, account_id, kind, {}, key=f"{kind.value}/{account_id}", now_ns=now_ns)


def has_succeeded(connection: Connection, account_id: AccountId) -> bool:
    """The account has made a request that was answered completely, within the 90 days that usage is kept."""
    wanted = select(usage.c.request_id).where(
        usage.c.account_id == account_id, usage.c.outcome == Outcome.COMPLETE.value
    )
    return connection.execute(wanted.limit(1)).first() is not None


def any_low_balance(connection: Connection, default_nusd: int) -> bool:
    """Somebody is to be told; a look without the write lock."""
    return connection.execute(_crossed(default_nusd).limit(1)).first() is not None


def tell_low_balances(connection: Connection, ids: IdSource, default_nusd: int, *, now_ns: int) -> int:
    """Tells accounts whose balance has fallen to their threshold, once per crossing; how many.

    `default_nusd` is the threshold of accounts that chose none. An account that was told is told again only after
    credit has lifted it above its threshold, also when that was spent before anybody looked.
    """
    rows = connection.execute(_crossed(default_nusd).limit(AT_ONCE_MAX)).all()
    for row in rows:
        noted = {
            "balance_nusd": row.balance_nusd,
            "credited_nusd": row.balance_nusd + row.charged_nusd,
            "created_at_ns": now_ns,
        }
        if not insert_missing(connection, low_balance_notices, {"account_id": row.account_id, **noted}):
            mine = update(low_balance_notices).where(low_balance_notices.c.account_id == row.account_id)
            connection.execute(mine.values(noted))
        _tell(
            connection,
            ids,
            AccountId(row.account_id),
            MailKind.LOW_BALANCE,
            {"threshold_usd": usd_text(row.threshold_nusd)},
            key=f"low_balance/{row.account_id}/{noted['credited_nusd']}/{row.threshold_nusd}",
            now_ns=now_ns,
        )
    return len(rows)


def _crossed(default_nusd: int) -> Select[Any]:
    """Wallets at or below their threshold whose credit had lifted them above it since they were last told."""
    wants, told = mail_preferences.c, low_balance_notices.c
    threshold = func.coalesce(wants.low_balance_nusd, literal(default_nusd))
    credited = wallets.c.balance_nusd + wallets.c.charged_nusd
    # The most that the balance can have been since then: what it was, and all credit that has come.
    lifted = func.coalesce(told.balance_nusd, 0) + credited - func.coalesce(told.credited_nusd, 0)
    joined = (
        wallets.join(people, people.c.account_id == wallets.c.account_id)
        .outerjoin(mail_preferences, wants.account_id == wallets.c.account_id)
        .outerjoin(low_balance_notices, told.account_id == wallets.c.account_id)
    )
    columns = (
        wallets.c.account_id,
        wallets.c.balance_nusd,
        wallets.c.charged_nusd,
        threshold.label("threshold_nusd"),
    )
    return (
        select(*columns)
        .select_from(joined)
        .where(
            threshold > 0,
            wallets.c.balance_nusd <= threshold,
            lifted > threshold,
            func.coalesce(wants.low_balance, 1) == 1,
        )
        .order_by(wallets.c.account_id)
    )


def _tell(
    connection: Connection,
    ids: IdSource,
    account_id: AccountId,
    kind: MailKind,
    values: dict[str, str | int],
    *,
    key: str,
    now_ns: int,
) -> None:
    to = recipient_of(connection, account_id)
    if to is None or not is_mail_address(to.address):
        return  # erased meanwhile
    queue_mail(
        connection,
        ids,
        kind=kind,
        account_id=account_id,
        address=to.address,
        language=to.language,
        values=values,
        idempotency_key=key,
        now_ns=now_ns,
    )
