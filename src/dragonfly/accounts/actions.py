"""What changes accounts. Each action runs inside a transaction that its caller opened."""

from sqlalchemy import Connection, insert, update

from dragonfly.accounts.tables import accounts
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.changes import record_change

NAME_LENGTH_MAX = 100
EMAIL_LENGTH_MAX = 254


class AccountInvalid(DragonflyError):
    """A name or address that is empty, too long or holds control characters."""

    code = "account_invalid"

    def __init__(self) -> None:
        super().__init__("An account needs a name of 1 to 100 printable characters; an email has at most 254.")


class AccountNotFound(DragonflyError):
    code = "account_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such account. Copy the whole id (acc-…).")


def create_account(
    connection: Connection,
    ids: IdSource,
    *,
    name: str,
    email: str | None = None,
    verified_at_ns: int | None = None,
    now_ns: int,
) -> AccountId:
    """A new account without money or keys. Until it is verified, its keys are refused."""
    is_email_fine = email is None or (0 < len(email) <= EMAIL_LENGTH_MAX and email.isprintable())
    if not (0 < len(name) <= NAME_LENGTH_MAX and name.isprintable() and is_email_fine):
        raise AccountInvalid
    account_id = AccountId(ids.new("acc-", now_ns))
    row = {
        "id": account_id,
        "name": name,
        "email": email,
        "verified_at_ns": verified_at_ns,
        "created_at_ns": now_ns,
    }
    connection.execute(insert(accounts).values(row))
    return account_id


def verify_account(connection: Connection, account_id: AccountId, *, now_ns: int) -> None:
    """Marks the account as verified; a second time changes nothing."""
    wanted = update(accounts).where(accounts.c.id == account_id, accounts.c.verified_at_ns.is_(None))
    if connection.execute(wanted.values(verified_at_ns=now_ns)).rowcount:
        record_change(connection, f"account/{account_id}")


def freeze_account(connection: Connection, account_id: AccountId, *, is_frozen: bool, now_ns: int) -> None:
    """Stops the account's keys within a second, or lets them work again. AccountNotFound."""
    wanted = update(accounts).where(accounts.c.id == account_id)
    if not connection.execute(wanted.values(frozen_at_ns=now_ns if is_frozen else None)).rowcount:
        raise AccountNotFound
    record_change(connection, f"account/{account_id}")
