"""People who sign in: found by address or account, and what they may change about themselves."""

import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, delete, insert, select, update

from dragonfly.accounts.actions import AccountNotFound, verify_account
from dragonfly.accounts.links import void_links
from dragonfly.accounts.rules import RISK_MAX, RISK_POINTS, Risk, RiskReason, folded_address, is_address, is_name
from dragonfly.accounts.second_factors import remove_second_factor
from dragonfly.accounts.sessions import EndReason, end_sessions
from dragonfly.accounts.tables import accounts, identities, people, sign_ups
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.changes import record_change
from dragonfly.mail.rules import mail_language

IDENTITIES_MAX = 20
OPERATORS_MAX = 1_000


class NameInvalid(DragonflyError):
    code = "name_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__("A name has at most 100 printable characters.")


class Person(NamedTuple):
    """Somebody who may sign in. The hash never leaves the packages that check it."""

    account_id: AccountId
    address: str
    name: str
    verified_at_ns: int | None
    created_at_ns: int
    role: str
    language: str
    password_hash: str | None
    browser_key: str | None

    def __repr__(self) -> str:
        return f"Person({self.account_id})"


def person_by_address(connection: Connection, address: str) -> Person | None:
    """Who signs in with this address, whatever its case; nobody does with what is no address."""
    if not is_address(address):
        address = ""
    row = connection.execute(_persons().where(people.c.address_folded == folded_address(address))).one_or_none()
    return None if row is None else Person(*row)


def person_of(connection: Connection, account_id: AccountId) -> Person | None:
    """The person of an account; None for one that an operator made for a program."""
    row = connection.execute(_persons().where(people.c.account_id == account_id)).one_or_none()
    return None if row is None else Person(*row)


def rename_person(connection: Connection, account_id: AccountId, *, name: str | None, language: str | None) -> None:
    """Another name or language; None leaves it. NameInvalid, AccountNotFound."""
    if name is not None:
        if not is_name(name):
            raise NameInvalid
        if not connection.execute(update(accounts).where(accounts.c.id == account_id).values(name=name)).rowcount:
            raise AccountNotFound
    if language is not None:
        chosen = update(people).where(people.c.account_id == account_id)
        connection.execute(chosen.values(language=mail_language(language)))


def set_password(connection: Connection, account_id: AccountId, password_hash: str, *, now_ns: int) -> None:
    """Another password. What else ends with it is the caller's decision."""
    values = {"password_hash": password_hash, "password_set_at_ns": now_ns}
    connection.execute(update(people).where(people.c.account_id == account_id).values(values))


def rehash_password(connection: Connection, account_id: AccountId, *, old_hash: str, new_hash: str) -> None:
    """The same password under another secret or other costs; nothing when it was changed meanwhile."""
    unchanged = update(people).where(people.c.account_id == account_id, people.c.password_hash == old_hash)
    connection.execute(unchanged.values(password_hash=new_hash))


def claim_account(connection: Connection, account_id: AccountId, *, now_ns: int) -> bool:
    """Somebody has proven to own the address. True when nobody had before.

    Then whatever was arranged by others goes: password, sessions, second factor, identities, links. Keys are the
    caller's to revoke.
    """
    person = person_of(connection, account_id)
    if person is None or person.verified_at_ns is not None:
        return False
    forgotten = update(people).where(people.c.account_id == account_id)
    connection.execute(forgotten.values(password_hash=None, password_set_at_ns=None, browser_key=None))
    end_sessions(connection, account_id, EndReason.OWNER_PROVEN, now_ns=now_ns)
    remove_second_factor(connection, account_id)
    connection.execute(delete(identities).where(identities.c.account_id == account_id))
    void_links(connection, account_id, now_ns=now_ns)
    verify_account(connection, account_id, now_ns=now_ns)
    return True


def make_operator(connection: Connection, account_id: AccountId, *, now_ns: int) -> None:
    """From now on the account may use what operators use, with a second factor. Its sessions end."""
    connection.execute(update(people).where(people.c.account_id == account_id).values(role="operator"))
    end_sessions(connection, account_id, EndReason.CREDENTIALS_CHANGED, now_ns=now_ns)
    record_change(connection, f"account/{account_id}")


def unmake_operator(connection: Connection, account_id: AccountId, *, now_ns: int) -> None:
    """The account is a customer's again. Its sessions end, and so do links that would sign in."""
    connection.execute(update(people).where(people.c.account_id == account_id).values(role="customer"))
    end_sessions(connection, account_id, EndReason.CREDENTIALS_CHANGED, now_ns=now_ns)
    void_links(connection, account_id, now_ns=now_ns)
    record_change(connection, f"account/{account_id}")


def operators(connection: Connection) -> list[Person]:
    """Who runs this installation, in the order of their accounts."""
    rows = connection.execute(
        _persons().where(people.c.role == "operator").order_by(accounts.c.id).limit(OPERATORS_MAX)
    )
    return [Person(*row) for row in rows]


def add_person(connection: Connection, account_id: AccountId, address: str, *, role: str, language: str) -> None:
    """Lets somebody sign in to an account that exists, once they have a password."""
    row = {
        "account_id": account_id,
        "address_folded": folded_address(address),
        "role": role,
        "language": mail_language(language),
    }
    connection.execute(insert(people).values(row))


def sign_up_risk(connection: Connection, account_id: AccountId) -> Risk | None:
    """For operators: how the sign-up looked. None when that is forgotten, or nobody signed up."""
    wanted = select(sign_ups.c.risk_reasons).where(sign_ups.c.account_id == account_id)
    stored = connection.execute(wanted).scalar_one_or_none()
    if stored is None:
        return None
    reasons = tuple(RiskReason(word) for word in json.loads(stored))
    return Risk(min(RISK_MAX, sum(RISK_POINTS[reason] for reason in reasons)), reasons)


def _persons() -> "Select[Any]":
    joined = accounts.join(people, people.c.account_id == accounts.c.id)
    columns = (
        accounts.c.id,
        accounts.c.email,
        accounts.c.name,
        accounts.c.verified_at_ns,
        accounts.c.created_at_ns,
        people.c.role,
        people.c.language,
        people.c.password_hash,
        people.c.browser_key,
    )
    return select(*columns).select_from(joined)
