"""Lost passwords, other addresses, and the first sign-in of an operator: all by links that work once."""

from sqlalchemy import Connection, delete, select, update

from dragonfly.accounts.actions import verify_account
from dragonfly.accounts.letters import Recipient, Tools, send_link, tell
from dragonfly.accounts.links import Link, LinkInvalid, make_link, take_link, void_links
from dragonfly.accounts.people import (
    Person,
    add_person,
    claim_account,
    make_operator,
    person_by_address,
    person_of,
    set_password,
)
from dragonfly.accounts.rules import folded_address, is_address
from dragonfly.accounts.sessions import EndReason, end_sessions
from dragonfly.accounts.tables import accounts, identities, people
from dragonfly.core.credentials import Token, TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.mail.kinds import MailKind


class AddressUnusable(DragonflyError):
    """Not one plain address."""

    code = "address_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__("That is no address that mail can go to. Write one such as alice@example.com.")


class AddressUnverified(DragonflyError):
    """What an unproven owner may not change."""

    code = "address_unverified"
    status = 403

    def __init__(self) -> None:
        super().__init__("Verify your present address first: open the link in the verification mail.")


def ask_for_reset(connection: Connection, tools: Tools, address: str, *, now_ns: int) -> None:
    """A link to choose another password, when somebody signs in with that address; the caller does not learn it."""
    person = person_by_address(connection, address)
    if person is None:
        return
    to = Recipient(person.account_id, person.address, person.language)
    link = Link(person.account_id, None, folded_address(person.address), None)
    token = make_link(connection, tools.seal, TokenKind.RESET, link, now_ns=now_ns)
    send_link(connection, tools, TokenKind.RESET, token, to, now_ns=now_ns)


def reset_password(
    connection: Connection, tools: Tools, token: Token, password_hash: str, *, now_ns: int
) -> tuple[AccountId, bool]:
    """The account whose password is changed, and whether its address was proven only now.

    Every session and open link ends. With the first proof of ownership, everything that was arranged before goes.
    """
    link = take_link(connection, token, TokenKind.RESET, now_ns=now_ns)
    person = _person_behind(connection, link)
    is_claimed = claim_account(connection, person.account_id, now_ns=now_ns)
    _change_password(connection, tools, person, password_hash, now_ns)
    return person.account_id, is_claimed


def change_password(
    connection: Connection,
    tools: Tools,
    account_id: AccountId,
    password_hash: str,
    *,
    session_id: str | None,
    now_ns: int,
) -> None:
    """Another password; every session but the one that asks ends."""
    person = person_of(connection, account_id)
    assert person is not None, "only people have sessions"
    _change_password(connection, tools, person, password_hash, now_ns, session_id or "")


def _change_password(
    connection: Connection, tools: Tools, person: Person, password_hash: str, now_ns: int, except_id: str = ""
) -> None:
    set_password(connection, person.account_id, password_hash, now_ns=now_ns)
    end_sessions(connection, person.account_id, EndReason.CREDENTIALS_CHANGED, except_id=except_id, now_ns=now_ns)
    void_links(connection, person.account_id, now_ns=now_ns)
    to = Recipient(person.account_id, person.address, person.language)
    tell(connection, tools, MailKind.PASSWORD_CHANGED, to, now_ns=now_ns)


def ask_for_address(
    connection: Connection, tools: Tools, account_id: AccountId, address: str, *, now_ns: int
) -> None:
    """A link to the new address; nothing changes before it is opened. The caller does not learn who has it.

    AddressUnusable, AddressUnverified.
    """
    if not is_address(address):
        raise AddressUnusable
    person = person_of(connection, account_id)
    if person is None or person.verified_at_ns is None:
        raise AddressUnverified
    if person_by_address(connection, address) is not None:
        return
    token = make_link(connection, tools.seal, TokenKind.EMAIL, Link(account_id, None, address, None), now_ns=now_ns)
    send_link(
        connection, tools, TokenKind.EMAIL, token, Recipient(account_id, address, person.language), now_ns=now_ns
    )


def change_address(connection: Connection, tools: Tools, token: Token, *, now_ns: int) -> None:
    """The address that the link went to becomes the account's; both are told. LinkInvalid also when it is taken."""
    link = take_link(connection, token, TokenKind.EMAIL, now_ns=now_ns)
    person = None if link.account_id is None else person_of(connection, link.account_id)
    if person is None or link.address is None or person_by_address(connection, link.address) is not None:
        raise LinkInvalid
    account_id = person.account_id
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(email=link.address))
    folded = {"address_folded": folded_address(link.address)}
    connection.execute(update(people).where(people.c.account_id == account_id).values(folded))
    void_links(connection, account_id, now_ns=now_ns)
    for address in (person.address, link.address):
        to = Recipient(account_id, address, person.language)
        tell(connection, tools, MailKind.EMAIL_CHANGED, to, now_ns=now_ns)


def add_operator(connection: Connection, tools: Tools, address: str, *, now_ns: int) -> tuple[AccountId, Secret]:
    """An operator's account, new or promoted, and the link that sets it up. AddressUnusable.

    A promoted account loses what let people in before: its owner sets it up again.
    """
    if not is_address(address):
        raise AddressUnusable
    existing = person_by_address(connection, address)
    if existing is None:
        account_id = _bare_account(connection, tools, address, now_ns)
    else:
        account_id = existing.account_id
        make_operator(connection, account_id, now_ns=now_ns)
        connection.execute(delete(identities).where(identities.c.account_id == account_id))
        void_links(connection, account_id, now_ns=now_ns)
    link = Link(account_id, None, folded_address(address), None)
    return account_id, make_link(connection, tools.seal, TokenKind.SETUP, link, now_ns=now_ns)


def set_up_operator(
    connection: Connection, tools: Tools, token: Token, password_hash: str, *, now_ns: int
) -> AccountId:
    """The first password of an operator."""
    link = take_link(connection, token, TokenKind.SETUP, now_ns=now_ns)
    person = _person_behind(connection, link)
    claim_account(connection, person.account_id, now_ns=now_ns)
    _change_password(connection, tools, person, password_hash, now_ns)
    return person.account_id


def _bare_account(connection: Connection, tools: Tools, address: str, now_ns: int) -> AccountId:
    found = connection.execute(select(accounts.c.id).where(accounts.c.email == address).limit(2)).scalars().all()
    if len(found) == 1:
        account_id = AccountId(found[0])
        verify_account(connection, account_id, now_ns=now_ns)
    else:
        account_id = AccountId(tools.ids.new("acc-", now_ns))
        row = {"id": account_id, "name": "", "email": address, "created_at_ns": now_ns}
        connection.execute(accounts.insert().values(row))
    add_person(connection, account_id, address, role="operator", language="en")
    return account_id


def _person_behind(connection: Connection, link: Link) -> Person:
    """Whose link it is, as long as their address is still the one it was made for; LinkInvalid."""
    person = None if link.account_id is None else person_of(connection, link.account_id)
    if person is None or folded_address(person.address) != link.address:
        raise LinkInvalid
    return person
