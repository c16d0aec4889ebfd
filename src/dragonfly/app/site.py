"""Puts the pages together."""

from functools import cache

from fastapi import APIRouter

from dragonfly.api.desk import Desk
from dragonfly.app.setup import Configured
from dragonfly.keys.rules import Peppers
from dragonfly.privacy.policy import load_manifest
from dragonfly.privacy.signing import public_key_of, signing_key
from dragonfly.settings import Settings
from dragonfly.web.dashboard import dashboard_routes
from dragonfly.web.operator import operator_routes
from dragonfly.web.pages import Pages
from dragonfly.web.people import Welcome, people_routes
from dragonfly.web.privacy import Running, web_routes
from dragonfly.web.statistics import statistics_routes


def site_routes(configured: Configured, desk: Desk, peppers: Peppers) -> APIRouter:
    """Every page, with style sheet and scripts."""
    running = Running(
        settings=configured.settings,
        manifest=load_manifest(),
        providers=configured.catalog.providers(),
        lockdown=configured.lockdown,
        # When it is asked for: its library takes a process 8 MiB.
        find_public_key=cache(lambda: public_key_of(signing_key(peppers))),
    )
    pages = Pages(configured.settings.mail.from_name, configured.settings.server.public_url)
    routes = web_routes(pages, running, desk.engine, desk.threads, desk.clock.now_ns)
    routes.include_router(statistics_routes(pages, desk.engine, desk.threads, desk.clock.now_ns))
    welcome = _welcome(configured.settings)
    routes.include_router(people_routes(pages, welcome))
    routes.include_router(dashboard_routes(pages, welcome.providers))
    routes.include_router(operator_routes(pages))
    return routes


def _welcome(settings: Settings) -> Welcome:
    accounts = settings.accounts
    ids = {"discord": accounts.discord_client_id, "google": accounts.google_client_id}
    return Welcome(
        providers=tuple(name for name, client_id in ids.items() if client_id),
        registration=accounts.registration,
        terms_version=accounts.terms_version,
        terms_url=accounts.terms_url,
        policy_version=accounts.policy_version,
    )
