"""Registration: a person, what they accepted, the proof of their address, and the credit to try things with."""

import json
from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from dragonfly.accounts.actions import verify_account
from dragonfly.accounts.letters import Recipient, Tools, recipient_of, send_link, tell_account_exists
from dragonfly.accounts.links import Link, LinkInvalid, make_link, take_link
from dragonfly.accounts.people import Person, person_by_address, person_of
from dragonfly.accounts.rules import RiskReason, SignUp, canonical_address, folded_address, is_disposable, risk_of
from dragonfly.accounts.sessions import Browser
from dragonfly.accounts.tables import accounts, consents, people, sign_ups, trial_persons
from dragonfly.core.addresses import network_of
from dragonfly.core.credentials import Token, TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.changes import lock_changes
from dragonfly.infra.database import insert_missing

NS_PER_DAY = 86_400_000_000_000
COUNTED_MAX = 1_000


class RegistrationInvalid(DragonflyError):
    """What somebody typed cannot be taken as it is."""

    code = "registration_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__(
            "An address such as alice@example.com and a name of at most 100 printable characters, please."
        )


class PasswordWeak(DragonflyError):
    code = "password_weak"
    status = 400

    def __init__(self) -> None:
        super().__init__(
            "Choose another password: at least 10 characters, not your address, and none that everybody uses."
        )


class ConsentNeeded(DragonflyError):
    """The terms and policy in force, and being 18 or older, must be confirmed."""

    code = "consent_needed"
    status = 403

    def __init__(self) -> None:
        super().__init__("Confirm that you are 18 or older and accept the current terms and privacy policy.")


class RegistrationClosed(DragonflyError):
    code = "registration_closed"
    status = 403

    def __init__(self) -> None:
        super().__init__("This installation takes no new accounts. Ask its operator.")


class ProveWithPassword(DragonflyError):
    """The link is right, and was opened in another browser than the one that registered.

    Whoever registers with somebody else's address must gain nothing when its owner clicks.
    """

    code = "password_needed"
    status = 403

    def __init__(self) -> None:
        super().__init__("Open the link in the browser that you registered with, or give the password you chose.")


class Consent(NamedTuple):
    """What somebody confirmed."""

    is_adult: bool
    terms_version: str
    policy_version: str


class NewPerson(NamedTuple):
    """A registration whose parts were checked."""

    address: str
    name: str
    language: str
    consent: Consent
    password_hash: str | None
    """None: another provider vouches for them."""


def check_consent(tools: Tools, consent: Consent | None) -> Consent:
    """The consent when it is to what is in force; ConsentNeeded. RegistrationClosed when nobody may register."""
    if not tools.settings.registration:
        raise RegistrationClosed
    settings = tools.settings
    if consent != Consent(True, settings.terms_version, settings.policy_version):
        raise ConsentNeeded
    return consent


def register(connection: Connection, tools: Tools, new: NewPerson, browser: Browser, *, now_ns: int) -> None:
    """A new, unverified person with a link in the mail; who has an account already is told so by mail.

    The caller learns neither, and answers the same.
    """
    existing = person_by_address(connection, new.address)
    if existing is not None:
        to = Recipient(existing.account_id, existing.address, existing.language)
        tell_account_exists(connection, tools, to, now_ns=now_ns)
        return
    account_id = create_person(connection, tools, new, browser, verified_at_ns=None, now_ns=now_ns)
    _send_verification(connection, tools, account_id, now_ns)


def create_person(
    connection: Connection,
    tools: Tools,
    new: NewPerson,
    browser: Browser,
    *,
    verified_at_ns: int | None,
    now_ns: int,
) -> AccountId:
    """An account with a person who may sign in, and the traces of the sign-up."""
    account_id = AccountId(tools.ids.new("acc-", now_ns))
    row = {"id": account_id, "name": new.name, "email": new.address, "verified_at_ns": verified_at_ns}
    connection.execute(insert(accounts).values(created_at_ns=now_ns, **row))
    person = {
        "account_id": account_id,
        "address_folded": folded_address(new.address),
        "role": "customer",
        "language": new.language,
        "password_hash": new.password_hash,
        "password_set_at_ns": None if new.password_hash is None else now_ns,
        "browser_key": browser.key,
    }
    connection.execute(insert(people).values(person))
    accepted = {**new.consent._asdict(), "is_adult": 1, "account_id": account_id, "accepted_at_ns": now_ns}
    connection.execute(insert(consents).values(accepted))
    _note_sign_up(connection, tools, account_id, new.address, browser, now_ns)
    return account_id


def resend_verification(connection: Connection, tools: Tools, address: str, *, now_ns: int) -> None:
    """Another link to who registered and has not opened one yet; nothing to anybody else."""
    person = person_by_address(connection, address)
    if person is not None and person.verified_at_ns is None:
        _send_verification(connection, tools, person.account_id, now_ns)


def verify_address(
    connection: Connection, tools: Tools, token: Token, browser_key: str, *, proven_hash: str | None, now_ns: int
) -> AccountId:
    """Uses the link of a verification. `proven_hash`: that of a password which was just found right.

    LinkInvalid; ProveWithPassword for another browser without the password.
    """
    link = take_link(connection, token, TokenKind.VERIFY, now_ns=now_ns)
    person = None if link.account_id is None else person_of(connection, link.account_id)
    if person is None or link.address != folded_address(person.address):
        raise LinkInvalid
    if not is_registrant(person, browser_key, proven_hash):
        raise ProveWithPassword
    mark_verified(connection, person.account_id, now_ns=now_ns)
    return person.account_id


def is_registrant(person: Person, browser_key: str, proven_hash: str | None) -> bool:
    """True for the browser that registered, or who knows the password that was chosen then."""
    has_password = proven_hash is not None and proven_hash == person.password_hash
    return has_password or (person.browser_key is not None and person.browser_key == browser_key)


def mark_verified(connection: Connection, account_id: AccountId, *, now_ns: int) -> None:
    """The person owns the address; the browser that registered means nothing any more."""
    verify_account(connection, account_id, now_ns=now_ns)
    connection.execute(update(people).where(people.c.account_id == account_id).values(browser_key=None))


def take_trial(connection: Connection, tools: Tools, account_id: AccountId, *, now_ns: int) -> int:
    """How much trial credit the caller shall grant, in nano-USD; 0 when this person, network or day had its share.

    Such transactions queue behind each other, so that two of them cannot both be the last one.
    """
    lock_changes(connection)
    settings, to = tools.settings, recipient_of(connection, account_id)
    own = connection.execute(select(sign_ups).where(sign_ups.c.account_id == account_id)).one_or_none()
    if to is None or own is None or own.trial_at_ns is not None or settings.trial_nusd == 0:
        return 0
    if is_disposable(to.address, settings.disposable_domains):
        return 0
    if _had_trial(connection, tools, to.address):
        _add_reason(connection, account_id, RiskReason.SAME_PERSON)
        return 0
    day_ago = sign_ups.c.trial_at_ns > now_ns - NS_PER_DAY
    near = select(func.count()).where(day_ago, sign_ups.c.network_digest == own.network_digest)
    if connection.execute(near).scalar_one() >= settings.trial_network_day_max:
        _add_reason(connection, account_id, RiskReason.BUSY_NETWORK)
        return 0
    given = connection.execute(select(func.coalesce(func.sum(sign_ups.c.trial_nusd), 0)).where(day_ago)).scalar_one()
    if int(given) + settings.trial_nusd > settings.trial_day_nusd_max:
        return 0
    person = tools.seal.digest("person", canonical_address(to.address))
    if not insert_missing(connection, trial_persons, {"person_digest": person, "granted_at_ns": now_ns}):
        return 0
    granted = update(sign_ups).where(sign_ups.c.account_id == account_id)
    connection.execute(granted.values(trial_nusd=settings.trial_nusd, trial_at_ns=now_ns))
    return settings.trial_nusd


def _send_verification(connection: Connection, tools: Tools, account_id: AccountId, now_ns: int) -> None:
    to = recipient_of(connection, account_id)
    assert to is not None, "the account has a person"
    link = Link(account_id, None, folded_address(to.address), None)
    token = make_link(connection, tools.seal, TokenKind.VERIFY, link, now_ns=now_ns)
    send_link(connection, tools, TokenKind.VERIFY, token, to, now_ns=now_ns)


def _note_sign_up(
    connection: Connection, tools: Tools, account_id: AccountId, address: str, browser: Browser, now_ns: int
) -> None:
    network = tools.seal.digest("network", network_of(browser.ip))
    lately = select(func.count()).where(
        sign_ups.c.network_digest == network, sign_ups.c.created_at_ns > now_ns - NS_PER_DAY
    )
    sign_up = SignUp(
        address=address,
        device=browser.device,
        network_sign_ups=connection.execute(lately).scalar_one(),
        is_same_person=_had_trial(connection, tools, address),
        disposable_domains=tools.settings.disposable_domains,
    )
    risk = risk_of(sign_up)
    row = {
        "account_id": account_id,
        "network_digest": network,
        "risk_score": risk.score,
        "risk_reasons": json.dumps([reason.value for reason in risk.reasons]),
        "trial_nusd": 0,
        "created_at_ns": now_ns,
    }
    connection.execute(insert(sign_ups).values(row))


def _had_trial(connection: Connection, tools: Tools, address: str) -> bool:
    digests = tools.seal.digests("person", canonical_address(address))
    found = select(trial_persons.c.person_digest).where(trial_persons.c.person_digest.in_(digests))
    return connection.execute(found.limit(1)).first() is not None


def _add_reason(connection: Connection, account_id: AccountId, reason: RiskReason) -> None:
    stored = select(sign_ups.c.risk_reasons).where(sign_ups.c.account_id == account_id)
    reasons = [*json.loads(connection.execute(stored).scalar_one()), reason.value]
    values = {"risk_reasons": json.dumps(sorted(set(reasons)))}
    connection.execute(update(sign_ups).where(sign_ups.c.account_id == account_id).values(values))
