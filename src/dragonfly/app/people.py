"""Puts together what people need to register and sign in."""

from typing import TYPE_CHECKING, NamedTuple

from fastapi import APIRouter
from sqlalchemy import Engine

from dragonfly.accounts.letters import Tools
from dragonfly.accounts.oauth import Client, Provider
from dragonfly.accounts.passwords import Passwords
from dragonfly.accounts.proofs import ProofReader
from dragonfly.accounts.throttles import Throttle
from dragonfly.accounts.watch import Watch
from dragonfly.api.identity import Identity, authenticator
from dragonfly.api.me import me_routes
from dragonfly.api.oauth import oauth_routes
from dragonfly.api.principal import Authenticate
from dragonfly.api.recovery import recovery_routes
from dragonfly.api.registration import registration_routes
from dragonfly.api.sessions import session_routes
from dragonfly.app.setup import seal_of
from dragonfly.core.addresses import ClientAddresses, parse_networks
from dragonfly.core.clock import Clock
from dragonfly.core.ids import IdSource
from dragonfly.core.lazily import Lazily
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import DatabaseThreads
from dragonfly.settings import ServerSettings, Settings

if TYPE_CHECKING:
    from dragonfly.accounts import oauth_providers
else:
    oauth_providers = Lazily("dragonfly.accounts.oauth_providers")


class PeoplesParts(NamedTuple):
    """What the surface serves for people."""

    routers: tuple[APIRouter, ...]
    identity: Identity
    authenticate: Authenticate
    passwords: Passwords
    """To be closed at the end."""


def people_parts(
    settings: Settings, engine: Engine, threads: DatabaseThreads, clock: Clock, ids: IdSource
) -> PeoplesParts:
    """The routes of people, and who recognises their sessions."""
    tools = tools_of(settings, ids)
    passwords = Passwords(tools.seal, memory_kib=settings.accounts.password_memory_kib)
    identity = Identity(
        tools=tools,
        engine=engine,
        threads=threads,
        clock=clock,
        passwords=passwords,
        proofs=ProofReader(clock, public_url=settings.server.public_url),
        throttle=Throttle(clock),
        watch=Watch(engine, threads, clock, tools.seal),
        addresses=addresses_of(settings.server),
    )
    routers = (
        registration_routes(identity),
        session_routes(identity),
        recovery_routes(identity),
        oauth_routes(identity, providers_of(settings, clock)),
        me_routes(identity),
    )
    return PeoplesParts(routers, identity, authenticator(identity), passwords)


def tools_of(settings: Settings, ids: IdSource) -> Tools:
    """What the actions of people work with."""
    return Tools(seal=seal_of(settings), ids=ids, settings=settings.accounts, site_url=site_url(settings.server))


def site_url(server: ServerSettings) -> str:
    """Where the pages are, for links in mails; without `server.public_url` this machine."""
    return server.public_url.rstrip("/") or f"http://{server.host}:{server.port}"


def addresses_of(server: ServerSettings) -> ClientAddresses:
    """Whose headers about the client's address are believed."""
    return ClientAddresses(parse_networks(server.proxies), parse_networks(server.cdn))


def providers_of(settings: Settings, clock: Clock) -> dict[str, Provider]:
    """The providers that are configured, by name."""
    accounts, found = settings.accounts, dict[str, Provider]()
    if accounts.google_client_id:
        client = _client(settings, oauth_providers.Google.name, accounts.google_client_id)
        found[oauth_providers.Google.name] = oauth_providers.Google(client, accounts.google_issuer, clock)
    if accounts.discord_client_id:
        client = _client(settings, oauth_providers.Discord.name, accounts.discord_client_id)
        found[oauth_providers.Discord.name] = oauth_providers.Discord(client, accounts.discord_url)
    return found


def _client(settings: Settings, name: str, client_id: str) -> Client:
    secrets = {"google": settings.accounts.google_client_secret, "discord": settings.accounts.discord_client_secret}
    callback = f"{site_url(settings.server)}/auth/callback/{name}"
    return Client(client_id, Secret(secrets[name].get_secret_value()), callback)
