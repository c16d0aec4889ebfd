"""/api/me: one's own account, address, password and second factor."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request

from dragonfly.accounts.letters import Tools, recipient_of, tell
from dragonfly.accounts.people import Person, person_of, rename_person
from dragonfly.accounts.recovery import ask_for_address, change_password
from dragonfly.accounts.registration import PasswordWeak
from dragonfly.accounts.rules import is_good_password
from dragonfly.accounts.second_factors import (
    Enrolment,
    SecondFactorRefused,
    begin_second_factor,
    confirm_second_factor,
    has_second_factor,
    remove_second_factor,
    show_second_factor,
)
from dragonfly.accounts.sessions import raise_session, require_fresh
from dragonfly.accounts.watch import Attempt
from dragonfly.api.identity import Address, Body, Done, Identity, Password
from dragonfly.api.principal import Principal, SessionInvalid, customer
from dragonfly.api.registration import may_send
from dragonfly.api.sessions import CODES, Code
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.mail.kinds import MailKind

Me = Annotated[Principal, Depends(customer)]


class Profile(BaseModel):
    """One's account."""

    id: str
    email: str
    email_verified: bool
    name: str
    language: str
    role: str
    created_at: str
    password: bool
    """One can sign in with a password."""
    second_factor: bool


class ProfileBody(Body):
    """What stays away stays as it is."""

    name: Annotated[str, Field(max_length=100)] | None = None
    language: Literal["en", "zh"] | None = None


class EmailBody(Body):
    email: Address


class PasswordBody(Body):
    password: Password
    """The new one."""


class CodeBody(Body):
    code: Code


class EnrolmentShown(BaseModel):
    """For an authenticator application; shown this once."""

    secret: str
    uri: str


class RecoveryCodes(BaseModel):
    """Each works once, when the authenticator is lost; shown this once."""

    recovery_codes: list[str]


def me_routes(identity: Identity) -> APIRouter:
    """What one sees and changes about oneself."""
    desk = _Me(identity)
    routes = APIRouter(prefix="/api/me", tags=["account"])
    routes.add_api_route("", desk.me, methods=["GET"], operation_id="me")
    routes.add_api_route("", desk.change, methods=["PATCH"], operation_id="change_me")
    routes.add_api_route("/email", desk.email, methods=["POST"], status_code=202, operation_id="change_email")
    routes.add_api_route("/password", desk.password, methods=["POST"], operation_id="change_password")
    routes.add_api_route("/second-factor", desk.begin, methods=["POST"], operation_id="begin_second_factor")
    routes.add_api_route(
        "/second-factor/confirm", desk.confirm, methods=["POST"], operation_id="confirm_second_factor"
    )
    routes.add_api_route("/second-factor/remove", desk.remove, methods=["POST"], operation_id="remove_second_factor")
    return routes


class _Me:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def me(self, principal: Me) -> Profile:
        """One's account."""
        return await self._identity.read(lambda connection, _: _profile(connection, principal.account_id))

    async def change(self, principal: Me, body: ProfileBody) -> Profile:
        """Another name or language."""

        def work(connection: Connection, now_ns: int) -> Profile:
            rename_person(connection, principal.account_id, name=body.name, language=body.language)
            return _profile(connection, principal.account_id)

        return await self._identity.write(work)

    async def email(self, principal: Me, body: EmailBody) -> Done:
        """Another address: a link goes there, and nothing changes before it is opened. Wants a recent sign-in."""
        identity = self._identity
        is_allowed = await may_send(identity, body.email)

        def work(connection: Connection, now_ns: int) -> None:
            require_fresh(connection, principal.session_id, now_ns=now_ns)
            if is_allowed:
                ask_for_address(connection, identity.tools, principal.account_id, body.email, now_ns=now_ns)

        async with identity.evenly():
            await identity.write(work)
        return Done()

    async def password(self, principal: Me, body: PasswordBody) -> Done:
        """Another password, or a first one. Wants a recent sign-in; every other session ends."""
        identity = self._identity

        def look(connection: Connection, now_ns: int) -> Person:
            require_fresh(connection, principal.session_id, now_ns=now_ns)
            return _person(connection, principal.account_id)

        person = await identity.read(look)
        if not is_good_password(body.password, person.address):
            raise PasswordWeak
        hashed = await identity.passwords.hash(body.password)
        await identity.write(
            lambda connection, now_ns: change_password(
                connection,
                identity.tools,
                principal.account_id,
                hashed,
                session_id=principal.session_id,
                now_ns=now_ns,
            )
        )
        return Done()

    async def begin(self, principal: Me) -> EnrolmentShown:
        """A secret for an authenticator application. Wants a recent sign-in."""
        tools = self._identity.tools

        def work(connection: Connection, now_ns: int) -> Enrolment:
            require_fresh(connection, principal.session_id, now_ns=now_ns)
            person = _person(connection, principal.account_id)
            return begin_second_factor(connection, tools.seal, principal.account_id, person.address)

        enrolment = await self._identity.write(work)
        return EnrolmentShown(secret=enrolment.secret.reveal(), uri=enrolment.uri.reveal())

    async def confirm(self, principal: Me, body: CodeBody) -> RecoveryCodes:
        """The first code: from now on sign-ins ask for one, and this session has shown it."""
        tools, session_id = self._identity.tools, principal.session_id
        assert session_id is not None, "only people are customers here"
        await self._identity.watch.admit(Attempt(CODES, principal.account_id))

        def work(connection: Connection, now_ns: int) -> list[Secret]:
            require_fresh(connection, session_id, now_ns=now_ns)
            codes = confirm_second_factor(connection, tools.seal, principal.account_id, body.code, now_ns=now_ns)
            raise_session(connection, session_id, now_ns=now_ns)
            _tell_second_factor(connection, tools, principal.account_id, "on", now_ns)
            return codes

        codes = await self._identity.write(work)
        return RecoveryCodes(recovery_codes=[code.reveal() for code in codes])

    async def remove(self, request: Request, principal: Me, body: CodeBody) -> Done:
        """No second factor any more; wants a code, or a recovery code."""
        tools = self._identity.tools
        await self._identity.watch.admit(Attempt(CODES, principal.account_id))

        def work(connection: Connection, now_ns: int) -> None:
            if not show_second_factor(connection, tools.seal, principal.account_id, body.code, now_ns=now_ns):
                raise SecondFactorRefused
            remove_second_factor(connection, principal.account_id)
            _tell_second_factor(connection, tools, principal.account_id, "off", now_ns)

        await self._identity.write(work)
        return Done()


def _person(connection: Connection, account_id: AccountId) -> Person:
    person = person_of(connection, account_id)
    if person is None:
        raise SessionInvalid  # the account was erased while it asked
    return person


def _profile(connection: Connection, account_id: AccountId) -> Profile:
    person = _person(connection, account_id)
    return Profile(
        id=person.account_id,
        email=person.address,
        email_verified=person.verified_at_ns is not None,
        name=person.name,
        language=person.language,
        role=person.role,
        created_at=moment_text(person.created_at_ns),
        password=person.password_hash is not None,
        second_factor=has_second_factor(connection, account_id),
    )


def _tell_second_factor(connection: Connection, tools: Tools, account_id: AccountId, state: str, now_ns: int) -> None:
    to = recipient_of(connection, account_id)
    if to is not None:
        tell(connection, tools, MailKind.SECOND_FACTOR_CHANGED, to, now_ns=now_ns, state=state)
