"""Puts the public pages together."""

from fastapi import APIRouter

from dragonfly.api.desk import Desk
from dragonfly.app.setup import Configured
from dragonfly.keys.rules import Peppers
from dragonfly.privacy.policy import load_manifest
from dragonfly.privacy.signing import public_key_of, signing_key
from dragonfly.web.pages import Pages
from dragonfly.web.privacy import Running, web_routes
from dragonfly.web.statistics import statistics_routes


def site_routes(configured: Configured, desk: Desk, peppers: Peppers) -> APIRouter:
    """/privacy with its proofs, /stats and the style sheet."""
    running = Running(
        settings=configured.settings,
        manifest=load_manifest(),
        providers=configured.catalog.providers(),
        lockdown=configured.lockdown,
        public_key=public_key_of(signing_key(peppers)),
    )
    pages = Pages(configured.settings.mail.from_name)
    routes = web_routes(pages, running, desk.engine, desk.threads, desk.clock.now_ns)
    routes.include_router(statistics_routes(pages, desk.engine, desk.threads, desk.clock.now_ns))
    return routes
