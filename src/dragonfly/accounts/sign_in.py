"""Signing in: by password or another provider, with a second factor where there is one."""

import enum
from typing import NamedTuple

from sqlalchemy import Connection

from dragonfly.accounts.letters import Recipient, Tools, tell
from dragonfly.accounts.links import Link, LinkInvalid, count_attempt, look_at_link, make_link, take_link
from dragonfly.accounts.people import Person, person_of
from dragonfly.accounts.second_factors import has_second_factor, show_second_factor
from dragonfly.accounts.sessions import Browser, Tokens, begin_session, has_signed_in, knows_browser
from dragonfly.core.credentials import Token, TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.mail.kinds import MailKind


class SignInRefused(DragonflyError):
    """Address and password do not belong together; whether there is such an account is not said."""

    code = "sign_in_refused"
    status = 401

    def __init__(self) -> None:
        super().__init__("Address and password do not fit together. Try again, or ask for a new password.")


class Wanted(enum.Enum):
    """What is still missing."""

    SECOND_FACTOR = "second_factor"


class Ticket(NamedTuple):
    """The first factor was right. Good for one browser and a few minutes, with a code."""

    secret: Secret
    wanted: Wanted = Wanted.SECOND_FACTOR


def sign_in(
    connection: Connection, tools: Tools, account_id: AccountId, browser: Browser, *, now_ns: int
) -> Tokens | Ticket:
    """For somebody whose first factor was right: a session, or a ticket when there is a second factor."""
    if has_second_factor(connection, account_id):
        link = Link(account_id, browser.key, None, None)
        return Ticket(make_link(connection, tools.seal, TokenKind.TICKET, link, now_ns=now_ns))
    return _open(connection, tools, account_id, browser, has_second_factor=False, now_ns=now_ns)


def sign_in_by_password(
    connection: Connection, tools: Tools, proven: Person, browser: Browser, *, now_ns: int
) -> Tokens | Ticket:
    """As `sign_in`, unless the password was changed since it was found right: SignInRefused."""
    current = person_of(connection, proven.account_id)
    if current is None or current.password_hash != proven.password_hash:
        raise SignInRefused
    return sign_in(connection, tools, proven.account_id, browser, now_ns=now_ns)


def show_ticket(
    connection: Connection, tools: Tools, ticket: Token, code: str, browser: Browser, *, now_ns: int
) -> Tokens | None:
    """The session, when the code is right. None: it is not; commit, since the attempt is counted. LinkInvalid."""
    link = look_at_link(connection, ticket, TokenKind.TICKET, now_ns=now_ns)
    if link.account_id is None or link.browser_key != browser.key:
        raise LinkInvalid
    if not show_second_factor(connection, tools.seal, link.account_id, code, now_ns=now_ns):
        count_attempt(connection, ticket, TokenKind.TICKET, now_ns=now_ns)
        return None
    take_link(connection, ticket, TokenKind.TICKET, now_ns=now_ns)
    return _open(connection, tools, link.account_id, browser, has_second_factor=True, now_ns=now_ns)


def _open(
    connection: Connection,
    tools: Tools,
    account_id: AccountId,
    browser: Browser,
    *,
    has_second_factor: bool,
    now_ns: int,
) -> Tokens:
    is_new = has_signed_in(connection, account_id) and not knows_browser(connection, account_id, browser.key)
    tokens = begin_session(
        connection,
        tools.seal,
        tools.ids,
        account_id,
        browser,
        has_second_factor=has_second_factor,
        now_ns=now_ns,
    )
    person = person_of(connection, account_id)
    if is_new and person is not None:
        to = Recipient(account_id, person.address, person.language)
        device = browser.device or "?"
        tell(connection, tools, MailKind.NEW_SIGN_IN, to, now_ns=now_ns, device=device, ip=browser.ip)
    return tokens
