"""Sign-in, second factor, refresh, sign-out under /api/auth; one's sessions under /api/me/sessions."""

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request

from dragonfly.accounts.links import LinkInvalid, look_at_link, void_links
from dragonfly.accounts.people import Person, person_by_address, rehash_password
from dragonfly.accounts.second_factors import SecondFactorRefused
from dragonfly.accounts.sessions import (
    Browser,
    EndReason,
    SessionInvalid,
    Tokens,
    end_session,
    end_sessions,
    knows_browser,
    refresh_session,
    sessions_of,
)
from dragonfly.accounts.sign_in import SignInRefused, Ticket, show_ticket, sign_in_by_password
from dragonfly.accounts.throttles import Rate
from dragonfly.accounts.watch import Attempt
from dragonfly.api.identity import (
    GUESS_STRANGERS,
    Address,
    Body,
    Done,
    Identity,
    Password,
    SecondFactorNeeded,
    SignedIn,
    Token,
    signed_in,
)
from dragonfly.api.principal import Principal, customer
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import AccountId

CODES = Rate("codes", 10, 900)
"""Wrong codes of one account, from people who had the first factor right."""

Me = Annotated[Principal, Depends(customer)]
Code = Annotated[str, Field(max_length=40)]


class SignInBody(Body):
    email: Address
    password: Password


class SecondFactorBody(Body):
    ticket: Token
    code: Code
    """Six digits, or a recovery code."""


class RefreshBody(Body):
    refresh_token: Token


class SessionShown(BaseModel):
    """A browser that is signed in."""

    id: str
    device: str
    ip: str
    second_factor: bool
    created_at: str
    refreshed_at: str
    current: bool
    """The one that asks."""


class Sessions(BaseModel):
    data: list[SessionShown]


class Ended(BaseModel):
    """How many sessions ended."""

    ended: int


class _Known(NamedTuple):
    person: Person | None
    is_known_browser: bool


def session_routes(identity: Identity) -> APIRouter:
    """Everything about being signed in."""
    desk = _Sessions(identity)
    routes = APIRouter(prefix="/api", tags=["sign-in"])
    routes.add_api_route("/auth/sign-in", desk.sign_in, methods=["POST"], operation_id="sign_in")
    routes.add_api_route(
        "/auth/second-factor", desk.second_factor, methods=["POST"], operation_id="show_second_factor"
    )
    routes.add_api_route("/auth/refresh", desk.refresh, methods=["POST"], operation_id="refresh")
    routes.add_api_route("/auth/sign-out", desk.sign_out, methods=["POST"], operation_id="sign_out")
    routes.add_api_route("/me/sessions", desk.sessions, methods=["GET"], operation_id="sessions")
    routes.add_api_route("/me/sessions", desk.end_all, methods=["DELETE"], operation_id="sign_out_everywhere")
    routes.add_api_route("/me/sessions/{session_id}", desk.end, methods=["DELETE"], operation_id="end_session")
    return routes


class _Sessions:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def sign_in(self, request: Request, body: SignInBody) -> SignedIn | SecondFactorNeeded:
        """Sign in with address and password. The same answer and the same work for unknown addresses."""
        identity = self._identity
        caller = identity.moderate(request)
        browser = await identity.browser(request, caller)

        def find(connection: Connection, now_ns: int) -> _Known:
            person = person_by_address(connection, body.email)
            account_id = AccountId("") if person is None else person.account_id
            return _Known(person, knows_browser(connection, account_id, browser.key))

        known = await identity.read(find)
        of_strangers = () if known.is_known_browser else (Attempt(GUESS_STRANGERS, body.email.lower()),)
        is_right = await identity.check_password(caller, known.person, body.email, body.password, *of_strangers)
        if not is_right or known.person is None:
            raise SignInRefused
        return signed_in(await self._let_in(known.person, browser, body.password))

    async def _let_in(self, person: Person, browser: Browser, password: str) -> Tokens | Ticket:
        identity, stored = self._identity, person.password_hash
        assert stored is not None, "a password was found right"
        rehashed = await identity.passwords.hash(password) if identity.passwords.needs_rehash(stored) else None

        def work(connection: Connection, now_ns: int) -> Tokens | Ticket:
            outcome = sign_in_by_password(connection, identity.tools, person, browser, now_ns=now_ns)
            if rehashed is not None:
                rehash_password(connection, person.account_id, old_hash=stored, new_hash=rehashed)
            return outcome

        return await identity.write(work)

    async def second_factor(self, request: Request, body: SecondFactorBody) -> SignedIn:
        """Finish a sign-in with a code of the second factor, or a recovery code."""
        identity = self._identity
        caller = identity.moderate(request)
        ticket = identity.tools.seal.read(TokenKind.TICKET, body.ticket)
        if ticket is None:
            raise LinkInvalid
        browser = await identity.browser(request, caller)
        link = await identity.read(
            lambda connection, now_ns: look_at_link(connection, ticket, TokenKind.TICKET, now_ns=now_ns)
        )
        guess = Attempt(CODES, str(link.account_id))
        await identity.watch.admit(guess)
        tokens = await identity.write(
            lambda connection, now_ns: show_ticket(
                connection, identity.tools, ticket, body.code, browser, now_ns=now_ns
            )
        )
        if tokens is None:
            raise SecondFactorRefused
        await identity.watch.give_back(guess)
        shown = signed_in(tokens)
        assert isinstance(shown, SignedIn), "tokens are shown as a session"
        return shown

    async def refresh(self, request: Request, body: RefreshBody) -> SignedIn:
        """The next pair of tokens. A refresh token works once; an older one ends the session."""
        identity = self._identity
        caller = identity.moderate(request)
        if identity.tools.seal.read(TokenKind.REFRESH, body.refresh_token) is None:
            raise SessionInvalid
        browser = await identity.browser(request, caller)
        tokens = await identity.write(
            lambda connection, now_ns: refresh_session(
                connection, identity.tools.seal, body.refresh_token, browser.key, now_ns=now_ns
            )
        )
        if tokens is None:
            raise SessionInvalid
        shown = signed_in(tokens)
        assert isinstance(shown, SignedIn), "tokens are shown as a session"
        return shown

    async def sign_out(self, principal: Me) -> Done:
        """End this session."""
        await self._end(principal, principal.session_id or "", EndReason.SIGNED_OUT)
        return Done()

    async def sessions(self, principal: Me) -> Sessions:
        """Where one is signed in, the newest first; never more than a hundred."""
        found = await self._identity.read(
            lambda connection, now_ns: sessions_of(connection, principal.account_id, now_ns=now_ns)
        )
        return Sessions(
            data=[
                SessionShown(
                    id=one.id,
                    device=one.device,
                    ip=one.ip,
                    second_factor=one.has_second_factor,
                    created_at=moment_text(one.created_at_ns),
                    refreshed_at=moment_text(one.refreshed_at_ns),
                    current=one.id == principal.session_id,
                )
                for one in found
            ]
        )

    async def end(self, session_id: str, principal: Me) -> Done:
        """End one session."""
        await self._end(principal, session_id, EndReason.REVOKED)
        return Done()

    async def _end(self, principal: Principal, session_id: str, reason: EndReason) -> None:
        await self._identity.write(
            lambda connection, now_ns: end_session(
                connection, session_id, account_id=principal.account_id, reason=reason, now_ns=now_ns
            )
        )

    async def end_all(self, principal: Me) -> Ended:
        """Sign out everywhere, here too; open links in mails stop working."""

        def work(connection: Connection, now_ns: int) -> int:
            void_links(connection, principal.account_id, now_ns=now_ns)
            return end_sessions(connection, principal.account_id, EndReason.REVOKED, now_ns=now_ns)

        return Ended(ended=await self._identity.write(work))
