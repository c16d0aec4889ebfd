"""Links that work once: made in the transaction that needs them, taken in the one that uses them."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update

from dragonfly.accounts.tables import one_time_links as links
from dragonfly.core.credentials import Seal, Token, TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret

NS_PER_S = 1_000_000_000
LIFETIME_S = {
    TokenKind.VERIFY: 24 * 3_600,
    TokenKind.RESET: 30 * 60,
    TokenKind.EMAIL: 24 * 3_600,
    TokenKind.SETUP: 72 * 3_600,
    TokenKind.STATE: 10 * 60,
    TokenKind.TICKET: 5 * 60,
    TokenKind.EXPORT: 10 * 60,
    TokenKind.KEEP: 62 * 86_400,
}
LINKS_PER_ACCOUNT_MAX = 5
"""Of one kind; an older one goes when a further one is made."""
ATTEMPTS_MAX = 5


class LinkInvalid(DragonflyError):
    """Unknown, expired, used or void: one answer for all."""

    code = "link_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__("This link or code does not work any more. Ask for a new one.")


class Link(NamedTuple):
    """What a link is good for."""

    account_id: AccountId | None
    browser_key: str | None
    address: str | None
    details: str | None


def make_link(connection: Connection, seal: Seal, kind: TokenKind, link: Link, *, now_ns: int) -> Secret:
    """A new link; its token exists only in what is returned."""
    token = seal.new_token(kind)
    read = seal.read(kind, token.reveal())
    assert read is not None, "a seal reads what it made"
    if link.account_id is not None:
        _drop_oldest(connection, kind, link.account_id)
    row = {
        "digest": read.digest,
        "kind": kind.value,
        "attempts": 0,
        "created_at_ns": now_ns,
        "expires_at_ns": now_ns + LIFETIME_S[kind] * NS_PER_S,
        **link._asdict(),
    }
    connection.execute(insert(links).values(row))
    return token


def look_at_link(connection: Connection, token: Token, kind: TokenKind, *, now_ns: int) -> Link:
    """What the link is good for, without using it; LinkInvalid."""
    wanted = select(links.c.account_id, links.c.browser_key, links.c.address, links.c.details)
    row = connection.execute(wanted.where(_usable(token, kind, now_ns))).one_or_none()
    if row is None:
        raise LinkInvalid
    return Link(*row)


def take_link(connection: Connection, token: Token, kind: TokenKind, *, now_ns: int) -> Link:
    """Uses the link up; LinkInvalid for a second time."""
    taken = update(links).where(_usable(token, kind, now_ns)).values(used_at_ns=now_ns)
    columns = (links.c.account_id, links.c.browser_key, links.c.address, links.c.details)
    row = connection.execute(taken.returning(*columns)).one_or_none()
    if row is None:
        raise LinkInvalid
    return Link(*row)


def count_attempt(connection: Connection, token: Token, kind: TokenKind, *, now_ns: int) -> None:
    """One try in vain; after ATTEMPTS_MAX of them the link is void."""
    tried = update(links).where(_usable(token, kind, now_ns)).values(attempts=links.c.attempts + 1)
    connection.execute(tried)


def void_links(connection: Connection, account_id: AccountId, *, now_ns: int) -> None:
    """Every link of the account stops working: whoever asked for them may not be its owner."""
    open_ones = update(links).where(links.c.account_id == account_id, links.c.used_at_ns.is_(None))
    connection.execute(open_ones.values(used_at_ns=now_ns))


def _usable(token: Token, kind: TokenKind, now_ns: int) -> ColumnElement[bool]:
    return and_(
        links.c.digest == token.digest,
        links.c.kind == kind.value,
        links.c.used_at_ns.is_(None),
        links.c.expires_at_ns > now_ns,
        links.c.attempts < ATTEMPTS_MAX,
    )


def _drop_oldest(connection: Connection, kind: TokenKind, account_id: AccountId) -> None:
    owned = (links.c.account_id == account_id, links.c.kind == kind.value, links.c.used_at_ns.is_(None))
    newest = select(links.c.digest).where(*owned).order_by(links.c.created_at_ns.desc())
    kept = list(connection.execute(newest.limit(LINKS_PER_ACCOUNT_MAX - 1)).scalars())
    connection.execute(delete(links).where(*owned, links.c.digest.not_in(kept)))
