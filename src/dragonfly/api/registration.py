"""POST /api/auth/register, /api/auth/verification, /api/auth/verify: from a form to a verified address.

The answers are the same for addresses that have an account and for those that have none; what is different comes by
mail, to who owns the address.
"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request

from dragonfly.accounts.links import Link, LinkInvalid, look_at_link
from dragonfly.accounts.people import Person, person_of
from dragonfly.accounts.registration import (
    Consent,
    NewPerson,
    PasswordWeak,
    ProveWithPassword,
    RegistrationInvalid,
    check_consent,
    is_registrant,
    register,
    resend_verification,
    verify_address,
)
from dragonfly.accounts.rules import is_address, is_good_password, is_name
from dragonfly.accounts.sessions import Browser
from dragonfly.accounts.throttles import TooManyAttempts
from dragonfly.accounts.watch import Attempt
from dragonfly.api.identity import (
    MAILS,
    REGISTER,
    Address,
    Body,
    Caller,
    Done,
    Identity,
    Password,
    Token,
    settle_ownership,
)
from dragonfly.core.credentials import TokenKind
from dragonfly.mail.rules import mail_language


class ConsentBody(Body):
    """What one confirms: the versions in force stand in GET /api/auth/providers."""

    adult: bool
    """18 or older."""
    terms_version: Annotated[str, Field(max_length=40)]
    policy_version: Annotated[str, Field(max_length=40)]

    def consent(self) -> Consent:
        return Consent(self.adult, self.terms_version, self.policy_version)


class RegisterBody(ConsentBody):
    """A new account."""

    email: Address
    password: Password
    name: Annotated[str, Field(max_length=100)] = ""
    language: Annotated[str, Field(max_length=20)] = "en"


class AddressBody(Body):
    email: Address


class VerifyBody(Body):
    """The token behind '#' of the link in the mail."""

    token: Token
    password: Password | None = None
    """Needed in another browser than the one that registered."""


def registration_routes(identity: Identity) -> APIRouter:
    """Registration and verification."""
    desk = _Registration(identity)
    routes = APIRouter(prefix="/api/auth", tags=["sign-in"])
    routes.add_api_route("/register", desk.register, methods=["POST"], status_code=202, operation_id="register")
    routes.add_api_route(
        "/verification", desk.verification, methods=["POST"], status_code=202, operation_id="send_verification"
    )
    routes.add_api_route("/verify", desk.verify, methods=["POST"], operation_id="verify_email")
    return routes


class _Registration:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def register(self, request: Request, body: RegisterBody) -> Done:
        """Register. A mail with a link follows, whether or not the address has an account already."""
        identity = self._identity
        browser = await identity.browser(request, identity.moderate(request), REGISTER)
        consent = check_consent(identity.tools, body.consent())
        if not is_address(body.email) or not is_name(body.name):
            raise RegistrationInvalid
        if not is_good_password(body.password, body.email):
            raise PasswordWeak
        async with identity.evenly():
            hashed = await identity.passwords.hash(body.password)
            if await may_send(identity, body.email):
                new = NewPerson(body.email, body.name, mail_language(body.language), consent, hashed)
                await self._register(new, browser)
        return Done()

    async def _register(self, new: NewPerson, browser: Browser) -> None:
        def work(connection: Connection, now_ns: int) -> None:
            register(connection, self._identity.tools, new, browser, now_ns=now_ns)

        try:
            await self._identity.write(work)
        except IntegrityError:
            await self._identity.write(work)  # somebody else was faster: now the address is known

    async def verification(self, request: Request, body: AddressBody) -> Done:
        """Send the link for verification again, if there is anything to verify."""
        identity = self._identity
        await identity.anonymous(identity.moderate(request))
        async with identity.evenly():
            if is_address(body.email) and await may_send(identity, body.email):
                await identity.write(
                    lambda connection, now_ns: resend_verification(
                        connection, identity.tools, body.email, now_ns=now_ns
                    )
                )
        return Done()

    async def verify(self, request: Request, body: VerifyBody) -> Done:
        """Verify the address with the link from the mail. Unlocks keys, and trial credit where there is some."""
        identity = self._identity
        caller = identity.moderate(request)
        token = identity.tools.seal.read(TokenKind.VERIFY, body.token)
        if token is None:
            raise LinkInvalid
        browser = await identity.browser(request, caller)

        def look(connection: Connection, now_ns: int) -> tuple[Link, Person | None]:
            link = look_at_link(connection, token, TokenKind.VERIFY, now_ns=now_ns)
            return link, person_of(connection, link.account_id) if link.account_id else None

        _, person = await identity.read(look)
        proven = await self._proven(caller, person, browser.key, body.password)

        def work(connection: Connection, now_ns: int) -> None:
            account_id = verify_address(
                connection, identity.tools, token, browser.key, proven_hash=proven, now_ns=now_ns
            )
            settle_ownership(connection, identity.tools, account_id, is_claimed=False, now_ns=now_ns)

        await identity.write(work)
        return Done()

    async def _proven(self, caller: Caller, person: Person | None, key: str, password: str | None) -> str | None:
        """The hash of a password that is right; None in the browser that registered. ProveWithPassword."""
        if person is None:
            raise LinkInvalid
        if is_registrant(person, key, None):
            return None
        if password is None or not await self._identity.check_password(caller, person, person.address, password):
            raise ProveWithPassword
        return person.password_hash


async def may_send(identity: Identity, address: str) -> bool:
    """False when strangers have had enough mails sent to this address; nobody is told so."""
    try:
        await identity.watch.admit(Attempt(MAILS, address.lower()))
    except TooManyAttempts:
        return False
    return True
