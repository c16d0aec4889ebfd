"""Links in mails under /api/auth: a new password, another address, an operator's first sign-in."""

from collections.abc import Callable

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request

from dragonfly.accounts.letters import Tools
from dragonfly.accounts.links import LinkInvalid, look_at_link
from dragonfly.accounts.recovery import ask_for_reset, change_address, reset_password, set_up_operator
from dragonfly.accounts.registration import PasswordWeak
from dragonfly.accounts.rules import is_address, is_good_password
from dragonfly.accounts.sessions import Browser, Tokens
from dragonfly.accounts.sign_in import Ticket, sign_in
from dragonfly.api.identity import (
    Body,
    Done,
    Identity,
    Password,
    SecondFactorNeeded,
    SignedIn,
    Token,
    settle_ownership,
    signed_in,
)
from dragonfly.api.registration import AddressBody, may_send
from dragonfly.core import credentials
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import AccountId

Use = Callable[[Connection, Tools, credentials.Token, str, int], AccountId]
"""Uses a link with the hash of a new password."""


class TokenBody(Body):
    token: Token


class NewPasswordBody(TokenBody):
    password: Password


def recovery_routes(identity: Identity) -> APIRouter:
    """What links in mails lead to."""
    desk = _Recovery(identity)
    routes = APIRouter(prefix="/api/auth", tags=["sign-in"])
    routes.add_api_route(
        "/password-reset", desk.ask, methods=["POST"], status_code=202, operation_id="ask_for_password_reset"
    )
    routes.add_api_route("/password-reset/confirm", desk.reset, methods=["POST"], operation_id="reset_password")
    routes.add_api_route("/email/confirm", desk.change_address, methods=["POST"], operation_id="confirm_email")
    routes.add_api_route("/set-up", desk.set_up, methods=["POST"], operation_id="set_up_operator")
    return routes


class _Recovery:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def ask(self, request: Request, body: AddressBody) -> Done:
        """Have a link for a new password sent, if somebody signs in with that address."""
        identity = self._identity
        await identity.anonymous(identity.moderate(request))
        async with identity.evenly():
            if is_address(body.email) and await may_send(identity, body.email):
                await identity.write(
                    lambda connection, now_ns: ask_for_reset(connection, identity.tools, body.email, now_ns=now_ns)
                )
        return Done()

    async def reset(self, request: Request, body: NewPasswordBody) -> SignedIn | SecondFactorNeeded:
        """Choose a new password with the link from the mail, and be signed in. Every other session ends."""
        return await self._use(request, TokenKind.RESET, body, _reset)

    async def set_up(self, request: Request, body: NewPasswordBody) -> SignedIn | SecondFactorNeeded:
        """An operator's first password, with the link that `dragonfly operator add` printed."""
        return await self._use(request, TokenKind.SETUP, body, _set_up)

    async def change_address(self, request: Request, body: TokenBody) -> Done:
        """Confirm another address with the link that went there."""
        identity = self._identity
        caller = identity.moderate(request)
        token = identity.tools.seal.read(TokenKind.EMAIL, body.token)
        if token is None:
            raise LinkInvalid
        await identity.anonymous(caller)
        await identity.write(
            lambda connection, now_ns: change_address(connection, identity.tools, token, now_ns=now_ns)
        )
        return Done()

    async def _use(
        self, request: Request, kind: TokenKind, body: NewPasswordBody, use: Use
    ) -> SignedIn | SecondFactorNeeded:
        identity = self._identity
        caller = identity.moderate(request)
        token = identity.tools.seal.read(kind, body.token)
        if token is None:
            raise LinkInvalid
        browser = await identity.browser(request, caller)
        # Looked at first: a hash costs too much to make one for every token that somebody sends.
        link = await identity.read(lambda connection, now_ns: look_at_link(connection, token, kind, now_ns=now_ns))
        if not is_good_password(body.password, link.address or ""):
            raise PasswordWeak
        hashed = await identity.passwords.hash(body.password)
        return signed_in(await self._sign_in(token, use, hashed, browser))

    async def _sign_in(self, token: credentials.Token, use: Use, hashed: str, browser: Browser) -> Tokens | Ticket:
        def work(connection: Connection, now_ns: int) -> Tokens | Ticket:
            account_id = use(connection, self._identity.tools, token, hashed, now_ns)
            return sign_in(connection, self._identity.tools, account_id, browser, now_ns=now_ns)

        return await self._identity.write(work)


def _reset(connection: Connection, tools: Tools, token: credentials.Token, hashed: str, now_ns: int) -> AccountId:
    account_id, is_claimed = reset_password(connection, tools, token, hashed, now_ns=now_ns)
    if is_claimed:
        settle_ownership(connection, tools, account_id, is_claimed=True, now_ns=now_ns)
    return account_id


def _set_up(connection: Connection, tools: Tools, token: credentials.Token, hashed: str, now_ns: int) -> AccountId:
    return set_up_operator(connection, tools, token, hashed, now_ns=now_ns)
