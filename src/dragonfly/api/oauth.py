"""Signing in with Google or Discord, and connecting them, without a cookie of ours.

The page asks for the provider's address, goes there, and comes back to its own page /auth/callback/<provider>, which
hands code and state over. The state is good for the browser whose key began, so that nobody can make somebody else
arrive in a stranger's account.
"""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request

from dragonfly.accounts.identities import (
    IdentityTaken,
    Journey,
    Purpose,
    Vouched,
    arrive,
    begin_journey,
    connect,
    disconnect,
    end_journey,
    identities_of,
)
from dragonfly.accounts.oauth import Provider, ProviderRefused, ProviderUnknown
from dragonfly.accounts.sessions import Browser, Tokens, require_fresh
from dragonfly.accounts.sign_in import Ticket, sign_in
from dragonfly.api.identity import (
    Body,
    Done,
    Identity,
    SecondFactorNeeded,
    SignedIn,
    Token,
    settle_ownership,
    signed_in,
)
from dragonfly.api.principal import Principal, customer
from dragonfly.api.registration import ConsentBody
from dragonfly.catalog.quotes import moment_text
from dragonfly.core import credentials
from dragonfly.core.credentials import TokenKind
from dragonfly.mail.rules import mail_language

Me = Annotated[Principal, Depends(customer)]


class Providers(BaseModel):
    """What a sign-in page offers, and what one accepts when registering."""

    providers: list[str]
    registration: bool
    terms_version: str
    policy_version: str


class BeginBody(Body):
    consent: ConsentBody | None = None
    """Needed for a new account."""
    language: Annotated[str, Field(max_length=20)] = "en"


class Journeyed(BaseModel):
    """Where to send the browser."""

    url: str


class FinishBody(Body):
    """What stands in the address of the page that the provider sent the browser back to."""

    code: Annotated[str, Field(max_length=2_000)]
    state: Token
    iss: Annotated[str, Field(max_length=300)] | None = None


class Connected(BaseModel):
    """The provider is connected with this account now."""

    status: str = "connected"


class IdentityShown(BaseModel):
    provider: str
    email: str
    connected_at: str


class Identities(BaseModel):
    data: list[IdentityShown]


def oauth_routes(identity: Identity, providers: dict[str, Provider]) -> APIRouter:
    """Signing in elsewhere; without `providers` there is none to choose."""
    desk = _OAuth(identity, providers)
    routes = APIRouter(prefix="/api", tags=["sign-in"])
    routes.add_api_route("/auth/providers", desk.providers, methods=["GET"], operation_id="providers")
    routes.add_api_route("/auth/{provider}/begin", desk.begin, methods=["POST"], operation_id="begin_oauth")
    routes.add_api_route("/auth/{provider}/finish", desk.finish, methods=["POST"], operation_id="finish_oauth")
    routes.add_api_route("/me/identities", desk.identities, methods=["GET"], operation_id="identities")
    routes.add_api_route("/me/identities/{provider}", desk.connect, methods=["POST"], operation_id="connect_identity")
    routes.add_api_route(
        "/me/identities/{provider}", desk.disconnect, methods=["DELETE"], operation_id="disconnect_identity"
    )
    return routes


class _OAuth:
    def __init__(self, identity: Identity, providers: dict[str, Provider]) -> None:
        self._identity = identity
        self._providers = providers

    async def providers(self, request: Request) -> Providers:
        """Who one can sign in with, and the versions of terms and policy."""
        self._identity.moderate(request)
        settings = self._identity.tools.settings
        return Providers(
            providers=sorted(self._providers),
            registration=settings.registration,
            terms_version=settings.terms_version,
            policy_version=settings.policy_version,
        )

    async def begin(self, provider: str, request: Request, body: BeginBody) -> Journeyed:
        """Begin to sign in with a provider. A new account needs `consent`."""
        browser = await self._identity.browser(request, self._identity.moderate(request))
        consent = body.consent.consent() if body.consent else None
        journey = Journey(provider, Purpose.SIGN_IN, None, consent, mail_language(body.language))
        return await self._begin(journey, browser.key)

    async def connect(self, provider: str, principal: Me) -> Journeyed:
        """Begin to connect a provider with one's account; wants a recent sign-in."""
        identity = self._identity
        browser_key = await identity.read(
            lambda connection, now_ns: require_fresh(connection, principal.session_id, now_ns=now_ns)
        )
        journey = Journey(provider, Purpose.CONNECT, principal.account_id, None, "en")
        return await self._begin(journey, browser_key)

    async def _begin(self, journey: Journey, browser_key: str) -> Journeyed:
        identity, way = self._identity, self._provider(journey.provider)
        state = await identity.write(
            lambda connection, now_ns: begin_journey(connection, identity.tools, journey, browser_key, now_ns=now_ns)
        )
        return Journeyed(url=await way.address(state.reveal(), identity.tools.seal))

    async def finish(
        self, provider: str, request: Request, body: FinishBody
    ) -> SignedIn | SecondFactorNeeded | Connected:
        """Come back from a provider, in the browser that began: signed in, or connected."""
        identity = self._identity
        caller = identity.moderate(request)
        way = self._provider(provider)
        state = identity.tools.seal.read(TokenKind.STATE, body.state)
        if state is None:
            raise ProviderRefused
        browser = await identity.browser(request, caller)
        journey = await self._end(state, browser.key)
        if journey is None or journey.provider != provider:
            raise ProviderRefused
        vouched = await way.vouch(body.code, body.state, body.iss, identity.tools.seal)
        if journey.purpose is Purpose.CONNECT:
            await self._connect(journey, vouched)
            return Connected()
        return signed_in(await self._arrive(vouched, journey, browser))

    async def _end(self, state: credentials.Token, browser_key: str) -> Journey | None:
        return await self._identity.write(
            lambda connection, now_ns: end_journey(connection, state, browser_key, now_ns=now_ns)
        )

    async def _connect(self, journey: Journey, vouched: Vouched) -> None:
        account_id = journey.account_id
        assert account_id is not None, "only somebody who is signed in connects"
        try:
            await self._identity.write(
                lambda connection, now_ns: connect(connection, account_id, vouched, now_ns=now_ns)
            )
        except IntegrityError:
            raise IdentityTaken from None

    async def _arrive(self, vouched: Vouched, journey: Journey, browser: Browser) -> Tokens | Ticket:
        tools = self._identity.tools

        def work(connection: Connection, now_ns: int) -> Tokens | Ticket:
            arrived = arrive(connection, tools, vouched, journey, browser, now_ns=now_ns)
            if arrived.is_proven_now:
                settle_ownership(connection, tools, arrived.account_id, is_claimed=arrived.is_claimed, now_ns=now_ns)
            return sign_in(connection, tools, arrived.account_id, browser, now_ns=now_ns)

        try:
            return await self._identity.write(work)
        except IntegrityError:
            return await self._identity.write(work)  # the other half of a double click was faster

    async def identities(self, principal: Me) -> Identities:
        """Providers that one's account is connected with."""
        found = await self._identity.read(lambda connection, _: identities_of(connection, principal.account_id))
        return Identities(
            data=[
                IdentityShown(provider=one.provider, email=one.address, connected_at=moment_text(one.created_at_ns))
                for one in found
            ]
        )

    async def disconnect(self, provider: str, principal: Me) -> Done:
        """A provider lets nobody in any more; wants a recent sign-in and another way in."""

        def work(connection: Connection, now_ns: int) -> None:
            require_fresh(connection, principal.session_id, now_ns=now_ns)
            disconnect(connection, principal.account_id, provider)

        await self._identity.write(work)
        return Done()

    def _provider(self, name: str) -> Provider:
        found = self._providers.get(name)
        if found is None:
            raise ProviderUnknown
        return found
