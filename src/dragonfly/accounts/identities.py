"""Accounts elsewhere: who they belong to here, and when one may be linked.

An identity is (provider, subject), never an address: addresses are given to other people. A new identity may make an
account, or take one over whose address nobody has proven yet. An account that somebody owns is linked only from
within, by its owner, and only to an identity with the account's own, verified address.
"""

import enum
import json
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select

from dragonfly.accounts.letters import Tools
from dragonfly.accounts.links import Link, make_link, take_link
from dragonfly.accounts.people import IDENTITIES_MAX, claim_account, person_by_address, person_of
from dragonfly.accounts.registration import Consent, ConsentNeeded, NewPerson, check_consent, create_person
from dragonfly.accounts.rules import folded_address, is_address
from dragonfly.accounts.sessions import Browser
from dragonfly.accounts.tables import identities
from dragonfly.core.credentials import Token, TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret

PROVIDERS = ("google", "discord")
"""Whose identities there may be, also when they are not configured any more."""


class IdentityUnverified(DragonflyError):
    """The provider does not say that the address belongs to its owner."""

    code = "identity_unverified"
    status = 403

    def __init__(self) -> None:
        super().__init__("That provider has not verified your address. Verify it there first, or use a password.")


class LinkFromWithin(DragonflyError):
    """An account with that address exists and is somebody's."""

    code = "identity_not_linked"
    status = 403

    def __init__(self) -> None:
        super().__init__("Sign in to your account as usual first, then connect this provider in its settings.")


class IdentityTaken(DragonflyError):
    """Linked to another account, or of another address."""

    code = "identity_taken"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            "Connect a provider's account that has the address of this account and is not connected yet."
        )


class IdentityNotFound(DragonflyError):
    code = "identity_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__(
            "This account is not connected with that provider. GET /api/me/identities lists those it is."
        )


class LastWayIn(DragonflyError):
    code = "last_way_in"
    status = 409

    def __init__(self) -> None:
        super().__init__("Choose a password first: without this provider nobody could sign in to the account.")


class Purpose(enum.Enum):
    """Why somebody was sent to a provider."""

    SIGN_IN = "sign_in"
    CONNECT = "connect"


class Vouched(NamedTuple):
    """What a provider says about somebody who signed in there."""

    provider: str
    subject: str
    address: str
    is_verified: bool
    name: str


class Journey(NamedTuple):
    """What was written down before somebody went to a provider."""

    provider: str
    purpose: Purpose
    account_id: AccountId | None
    consent: Consent | None
    language: str


class Arrived(NamedTuple):
    """Whose account it is, and what happened on the way."""

    account_id: AccountId
    is_proven_now: bool
    """The address had not been proven before: the account is new or was claimed."""
    is_claimed: bool
    """It had been made by somebody who did not own the address."""


class ListedIdentity(NamedTuple):
    """A connected provider as its owner sees it."""

    provider: str
    address: str
    created_at_ns: int


def begin_journey(connection: Connection, tools: Tools, journey: Journey, browser_key: str, *, now_ns: int) -> Secret:
    """The state that goes to the provider and comes back, bound to this browser."""
    details = {
        "provider": journey.provider,
        "purpose": journey.purpose.value,
        "language": journey.language,
        "consent": journey.consent,
    }
    link = Link(journey.account_id, browser_key, None, json.dumps(details))
    return make_link(connection, tools.seal, TokenKind.STATE, link, now_ns=now_ns)


def end_journey(connection: Connection, token: Token, browser_key: str, *, now_ns: int) -> Journey | None:
    """What was written down, once; None for another browser's: commit nevertheless, it is used up. LinkInvalid."""
    link = take_link(connection, token, TokenKind.STATE, now_ns=now_ns)
    if link.browser_key != browser_key or link.details is None:
        return None
    details = json.loads(link.details)
    consent = Consent(*details["consent"]) if details["consent"] else None
    return Journey(details["provider"], Purpose(details["purpose"]), link.account_id, consent, details["language"])


def arrive(
    connection: Connection, tools: Tools, vouched: Vouched, journey: Journey, browser: Browser, *, now_ns: int
) -> Arrived:
    """The account that a sign-in elsewhere leads to.

    IdentityUnverified, LinkFromWithin, ConsentNeeded, RegistrationClosed.
    """
    linked = _linked(connection, vouched)
    if linked is not None:
        return Arrived(linked, is_proven_now=False, is_claimed=False)
    if not vouched.is_verified or not is_address(vouched.address):
        raise IdentityUnverified
    existing = person_by_address(connection, vouched.address)
    if existing is not None and existing.verified_at_ns is not None:
        raise LinkFromWithin
    if existing is not None:
        claim_account(connection, existing.account_id, now_ns=now_ns)
        _link(connection, existing.account_id, vouched, now_ns)
        return Arrived(existing.account_id, is_proven_now=True, is_claimed=True)
    if journey.consent is None:
        raise ConsentNeeded
    new = NewPerson(
        vouched.address, vouched.name, journey.language, check_consent(tools, journey.consent), password_hash=None
    )
    account_id = create_person(connection, tools, new, browser, verified_at_ns=now_ns, now_ns=now_ns)
    _link(connection, account_id, vouched, now_ns)
    return Arrived(account_id, is_proven_now=True, is_claimed=False)


def connect(connection: Connection, account_id: AccountId, vouched: Vouched, *, now_ns: int) -> None:
    """Links an identity to the account of somebody who is signed in. IdentityUnverified, IdentityTaken."""
    if not vouched.is_verified:
        raise IdentityUnverified
    person = person_of(connection, account_id)
    is_own = person is not None and folded_address(person.address) == folded_address(vouched.address)
    if person is None or person.verified_at_ns is None or not is_own or _linked(connection, vouched) is not None:
        raise IdentityTaken
    _link(connection, account_id, vouched, now_ns)


def disconnect(connection: Connection, account_id: AccountId, provider: str) -> None:
    """The provider lets nobody into this account any more. IdentityNotFound, LastWayIn."""
    if provider not in PROVIDERS:
        raise IdentityNotFound
    own = identities.c.account_id == account_id
    others = select(func.count()).where(own, identities.c.provider != provider)
    person = person_of(connection, account_id)
    if person is None or (person.password_hash is None and not connection.execute(others).scalar_one()):
        raise LastWayIn
    if not connection.execute(delete(identities).where(own, identities.c.provider == provider)).rowcount:
        raise IdentityNotFound


def identities_of(connection: Connection, account_id: AccountId) -> list[ListedIdentity]:
    """Providers that the account is connected with."""
    columns = (identities.c.provider, identities.c.address, identities.c.created_at_ns)
    wanted = select(*columns).where(identities.c.account_id == account_id).order_by(identities.c.provider)
    return [ListedIdentity(*row) for row in connection.execute(wanted.limit(IDENTITIES_MAX))]


def _linked(connection: Connection, vouched: Vouched) -> AccountId | None:
    wanted = select(identities.c.account_id).where(
        identities.c.provider == vouched.provider, identities.c.subject == vouched.subject
    )
    found = connection.execute(wanted).scalar_one_or_none()
    return None if found is None else AccountId(found)


def _link(connection: Connection, account_id: AccountId, vouched: Vouched, now_ns: int) -> None:
    row = {
        "provider": vouched.provider,
        "subject": vouched.subject,
        "account_id": account_id,
        "address": vouched.address,
        "created_at_ns": now_ns,
    }
    connection.execute(insert(identities).values(row))
