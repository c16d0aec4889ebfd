"""Sessions: a short access token, a refresh token that changes each time, both worthless without the browser's key.

A refresh token names its session, and its signature proves that it was issued here. One that is neither the current
nor, for some seconds, the one before was used already: somebody has a copy, and the session ends. The next pair
follows from the pair before, so that a browser whose answer was lost gets the same pair again.
"""

import enum
import re
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, or_, select, update

from dragonfly.accounts.tables import people, sessions
from dragonfly.core.credentials import Seal, Token, TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.secrets import Secret
from dragonfly.infra.changes import record_change

NS_PER_S = 1_000_000_000
ACCESS_LIFETIME_S = 10 * 60
IDLE_S = 14 * 86_400
"""Without a refresh for so long, a session ends."""
LIFETIME_S = 90 * 86_400
"""Longer than this no session lasts."""
GRACE_S = 10
"""How long the pair before the current one still counts: for requests under way and for an answer that was lost."""
FRESH_S = 15 * 60
"""How long after proving who they are somebody may change how they do so."""
SESSIONS_PER_ACCOUNT_MAX = 50
SESSIONS_SHOWN_MAX = 100
ID_PREFIX = "ses-"
_SESSION_ID = re.compile(rf"{ID_PREFIX}[0-9a-f]{{32}}", re.ASCII)


class EndReason(enum.Enum):
    """Why a session ended before its time; the value is stored."""

    SIGNED_OUT = "signed_out"
    REVOKED = "revoked"
    REUSED = "reused"
    """An old refresh token came back: somebody has a copy."""
    TOO_MANY = "too_many"
    CREDENTIALS_CHANGED = "credentials_changed"
    OWNER_PROVEN = "owner_proven"
    """Somebody proved to own the address; who was signed in before had not."""


class SessionInvalid(DragonflyError):
    """No, malformed, expired, revoked or stolen credentials: one answer for all, so that nothing can be probed."""

    code = "session_invalid"
    status = 401

    def __init__(self) -> None:
        super().__init__("This session is not valid or has ended. Sign in again.")


class SessionNotFound(DragonflyError):
    code = "session_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such session in this account. GET /api/me/sessions lists them.")


class SignInAgain(DragonflyError):
    """For what a stolen, unattended session must not do."""

    code = "sign_in_again"
    status = 403

    def __init__(self) -> None:
        super().__init__(f"Sign in again first: this needs a sign-in of the last {FRESH_S // 60} minutes.")


class Browser(NamedTuple):
    """Where somebody signs in."""

    key: str
    """Fingerprint of the browser's key."""
    device: str
    ip: str


class Tokens(NamedTuple):
    """What a browser is given."""

    session_id: str
    access: Secret
    refresh: Secret
    expires_in_s: int
    """Of the access token."""


class Session(NamedTuple):
    """A session as its requests see it."""

    id: str
    account_id: AccountId
    role: str
    browser_key: str
    has_second_factor: bool
    proven_at_ns: int


class ListedSession(NamedTuple):
    """A session as its owner sees it."""

    id: str
    device: str
    ip: str
    has_second_factor: bool
    created_at_ns: int
    refreshed_at_ns: int


def begin_session(
    connection: Connection,
    seal: Seal,
    ids: IdSource,
    account_id: AccountId,
    browser: Browser,
    *,
    has_second_factor: bool,
    now_ns: int,
) -> Tokens:
    """Signs a browser in. Of too many sessions the oldest ends."""
    _end_oldest(connection, account_id, now_ns)
    session_id = ids.new(ID_PREFIX, now_ns)
    refresh = seal.new_token(TokenKind.REFRESH, session_id.removeprefix(ID_PREFIX))
    tokens, row = _pair(seal, session_id, refresh, now_ns)
    row |= {
        "id": session_id,
        "account_id": account_id,
        "browser_key": browser.key,
        "has_second_factor": int(has_second_factor),
        "proven_at_ns": now_ns,
        "expires_at_ns": now_ns + LIFETIME_S * NS_PER_S,
        "ends_at_ns": now_ns + IDLE_S * NS_PER_S,
        "device": browser.device,
        "ip": browser.ip,
        "created_at_ns": now_ns,
    }
    connection.execute(insert(sessions).values(row))
    return tokens


def refresh_session(
    connection: Connection, seal: Seal, secret: str, browser_key: str, *, now_ns: int
) -> Tokens | None:
    """The next pair. None: refused; commit nevertheless, because a copied token has just ended its session."""
    token = seal.read(TokenKind.REFRESH, secret)
    if token is None:
        return None
    session_id = ID_PREFIX + token.handle
    # Locked, so that of two requests at once the second one sees what the first one did.
    wanted = select(sessions).where(sessions.c.id == session_id).with_for_update()
    row = connection.execute(wanted).one_or_none()
    if row is None or row.browser_key != browser_key or row.ends_at_ns <= now_ns:
        return None
    following = seal.derived_token(TokenKind.REFRESH, secret, token.version, token.handle)
    if token.digest == row.previous_refresh_digest and now_ns < row.refreshed_at_ns + GRACE_S * NS_PER_S:
        return _pair(seal, session_id, following, now_ns)[0]
    if token.digest != row.refresh_digest:
        _end(connection, sessions.c.id == session_id, EndReason.REUSED, now_ns)
        return None
    return _rotate(connection, seal, row, following, now_ns)


def _rotate(
    connection: Connection, seal: Seal, row: "Row[tuple[object, ...]]", following: Secret, now_ns: int
) -> Tokens:
    """Makes the next pair the current one."""
    tokens, values = _pair(seal, row.id, following, now_ns)
    values |= {
        "previous_access_digest": row.access_digest,
        "previous_refresh_digest": row.refresh_digest,
        "ends_at_ns": min(row.expires_at_ns, now_ns + IDLE_S * NS_PER_S),
    }
    connection.execute(update(sessions).where(sessions.c.id == row.id).values(values))
    return tokens


def _pair(seal: Seal, session_id: str, refresh: Secret, now_ns: int) -> tuple[Tokens, dict[str, object]]:
    """Both tokens of a session, and the columns that recognise them."""
    read = seal.read(TokenKind.REFRESH, refresh.reveal())
    assert read is not None, "a seal reads what it made"
    access = seal.derived_token(TokenKind.ACCESS, refresh.reveal(), read.version)
    read_access = seal.read(TokenKind.ACCESS, access.reveal())
    assert read_access is not None, "a seal reads what it made"
    columns: dict[str, object] = {
        "access_digest": read_access.digest,
        "access_expires_at_ns": now_ns + ACCESS_LIFETIME_S * NS_PER_S,
        "refresh_digest": read.digest,
        "refreshed_at_ns": now_ns,
    }
    return Tokens(session_id, access, refresh, ACCESS_LIFETIME_S), columns


def session_by_access(connection: Connection, token: Token, *, now_ns: int) -> Session | None:
    """The session whose access token this is, or None when there is none or it is over."""
    is_current = and_(sessions.c.access_digest == token.digest, sessions.c.access_expires_at_ns > now_ns)
    is_previous = and_(
        sessions.c.previous_access_digest == token.digest,
        sessions.c.refreshed_at_ns > now_ns - GRACE_S * NS_PER_S,
    )
    columns = (
        sessions.c.id,
        sessions.c.account_id,
        people.c.role,
        sessions.c.browser_key,
        sessions.c.has_second_factor,
        sessions.c.proven_at_ns,
    )
    joined = sessions.join(people, people.c.account_id == sessions.c.account_id)
    wanted = select(*columns).select_from(joined).where(or_(is_current, is_previous), sessions.c.ends_at_ns > now_ns)
    row = connection.execute(wanted).first()
    return None if row is None else Session(*row)._replace(has_second_factor=bool(row.has_second_factor))


def require_fresh(connection: Connection, session_id: str | None, *, now_ns: int) -> str:
    """The fingerprint of the browser's key; SignInAgain unless the person has proven lately who they are."""
    wanted = select(sessions.c.browser_key).where(
        sessions.c.id == session_id,
        sessions.c.ends_at_ns > now_ns,
        sessions.c.proven_at_ns > now_ns - FRESH_S * NS_PER_S,
    )
    browser_key = connection.execute(wanted).scalar_one_or_none()
    if browser_key is None:
        raise SignInAgain
    return str(browser_key)


def raise_session(connection: Connection, session_id: str, *, now_ns: int) -> None:
    """A second factor was shown in this session."""
    shown = update(sessions).where(sessions.c.id == session_id)
    connection.execute(shown.values(has_second_factor=1, proven_at_ns=now_ns))


def sessions_of(connection: Connection, account_id: AccountId, *, now_ns: int) -> list[ListedSession]:
    """The account's open sessions, the newest first."""
    columns = (
        sessions.c.id,
        sessions.c.device,
        sessions.c.ip,
        sessions.c.has_second_factor,
        sessions.c.created_at_ns,
        sessions.c.refreshed_at_ns,
    )
    wanted = select(*columns).where(_open(account_id, now_ns)).order_by(sessions.c.created_at_ns.desc())
    rows = connection.execute(wanted.limit(SESSIONS_SHOWN_MAX))
    return [ListedSession(*row)._replace(has_second_factor=bool(row.has_second_factor)) for row in rows]


def knows_browser(connection: Connection, account_id: AccountId, browser_key: str) -> bool:
    """True when this browser has been signed in to the account before, as long as that is remembered."""
    wanted = select(sessions.c.id).where(sessions.c.account_id == account_id, sessions.c.browser_key == browser_key)
    return connection.execute(wanted.limit(1)).first() is not None


def has_signed_in(connection: Connection, account_id: AccountId) -> bool:
    """True when anybody has, as long as that is remembered."""
    return (
        connection.execute(select(sessions.c.id).where(sessions.c.account_id == account_id).limit(1)).first()
        is not None
    )


def end_session(
    connection: Connection, session_id: str, *, account_id: AccountId, reason: EndReason, now_ns: int
) -> None:
    """Ends one session of the account; SessionNotFound when it is not there or over already."""
    if _SESSION_ID.fullmatch(session_id) is None:
        raise SessionNotFound
    wanted = and_(sessions.c.id == session_id, sessions.c.account_id == account_id)
    if not _end(connection, wanted, reason, now_ns):
        raise SessionNotFound


def end_sessions(
    connection: Connection, account_id: AccountId, reason: EndReason, *, except_id: str = "", now_ns: int
) -> int:
    """Ends all sessions of the account but one; how many. No worker takes their tokens any more."""
    return _end(connection, and_(sessions.c.account_id == account_id, sessions.c.id != except_id), reason, now_ns)


def _end(connection: Connection, which: ColumnElement[bool], reason: EndReason, now_ns: int) -> int:
    ended = update(sessions).where(which, sessions.c.ends_at_ns > now_ns)
    rows = connection.execute(
        ended.values(ends_at_ns=now_ns, end_reason=reason.value).returning(sessions.c.id)
    ).scalars()
    found = list(rows)
    for session_id in found:
        record_change(connection, f"session/{session_id}")
    return len(found)


def _end_oldest(connection: Connection, account_id: AccountId, now_ns: int) -> None:
    kept = select(sessions.c.id).where(_open(account_id, now_ns)).order_by(sessions.c.created_at_ns.desc())
    ids = list(connection.execute(kept.limit(SESSIONS_PER_ACCOUNT_MAX - 1)).scalars())
    _end(connection, and_(sessions.c.account_id == account_id, sessions.c.id.not_in(ids)), EndReason.TOO_MANY, now_ns)


def _open(account_id: AccountId, now_ns: int) -> ColumnElement[bool]:
    return and_(sessions.c.account_id == account_id, sessions.c.ends_at_ns > now_ns)
