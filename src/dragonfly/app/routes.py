"""Puts the routes of the account API together."""

from dataclasses import dataclass

from fastapi import APIRouter
from starlette.types import ASGIApp

from dragonfly.api.admin_people import admin_key_routes, admin_people_routes
from dragonfly.api.admin_service import admin_service_routes, announcement_routes
from dragonfly.api.admin_statistics import admin_statistics_routes
from dragonfly.api.apps import app_routes
from dragonfly.api.desk import Desk, Moderate, RepeatStore
from dragonfly.api.guard import BodyRules
from dragonfly.api.health import Readiness
from dragonfly.api.keys import key_routes
from dragonfly.api.limits import admin_limit_routes, limit_routes
from dragonfly.api.management_keys import management_key_routes, with_management_keys
from dragonfly.api.principal import Authenticate
from dragonfly.api.routing_profiles import routing_profile_routes
from dragonfly.api.statements import statement_routes
from dragonfly.api.surface import FailureSink, build_surface
from dragonfly.api.usage import usage_routes
from dragonfly.app.people import PeoplesParts
from dragonfly.catalog.catalog import Catalog
from dragonfly.keys.rules import Peppers
from dragonfly.mail.sending import UNSUBSCRIBE_PATH


@dataclass(frozen=True, slots=True)
class AccountApi:
    """What `build_surface` needs of the account API."""

    routers: tuple[APIRouter, ...]
    authenticate: Authenticate
    repeats: RepeatStore


def account_api(
    desk: Desk, peppers: Peppers, catalog: Catalog, sessions: Authenticate, moderate: Moderate
) -> AccountApi:
    """Keys, routing, usage, apps and the operators' routes, for those whom `sessions` or a management key proves."""

    def seal(text: bytes) -> bytes:
        digest = peppers.digest(peppers.current, text)
        assert digest is not None, "the current pepper is there"
        return digest

    return AccountApi(
        routers=(
            key_routes(desk, peppers),
            management_key_routes(desk, peppers),
            routing_profile_routes(desk),
            usage_routes(desk),
            statement_routes(desk),
            limit_routes(desk),
            app_routes(desk, peppers, moderate),
            announcement_routes(desk, moderate),
            admin_people_routes(desk),
            admin_key_routes(desk),
            admin_limit_routes(desk),
            admin_service_routes(desk, catalog),
            admin_statistics_routes(desk),
        ),
        authenticate=with_management_keys(sessions, desk, peppers),
        repeats=RepeatStore(desk, seal),
    )


def account_surface(
    desk: Desk,
    peppers: Peppers,
    catalog: Catalog,
    people: PeoplesParts,
    readiness: Readiness,
    failed: FailureSink,
    routers: tuple[APIRouter, ...] = (),
) -> ASGIApp:
    """Everything that is not the data plane, as a serving process offers it; `routers` are those of features that
    are put together elsewhere."""
    account = account_api(desk, peppers, catalog, people.authenticate, people.identity.moderate)
    return build_surface(
        readiness=readiness,
        clock=desk.clock,
        ids=desk.ids,
        failed=failed,
        routers=(*people.routers, *account.routers, *routers),
        authenticate=account.authenticate,
        bodies=BodyRules(form_paths=(UNSUBSCRIBE_PATH,), repeats=account.repeats),
    )
