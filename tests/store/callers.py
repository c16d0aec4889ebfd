"""The ASGI side on a real database, with callers who say who they are."""

from collections.abc import Sequence
from typing import Any

import httpx
from fastapi import APIRouter
from pydantic import SecretStr
from sqlalchemy import Engine
from starlette.requests import Request

from dragonfly.accounts.actions import create_account
from dragonfly.accounts.people import add_person
from dragonfly.api.desk import Desk
from dragonfly.api.guard import BodyRules
from dragonfly.api.health import Readiness
from dragonfly.api.principal import Principal, Role, SessionInvalid
from dragonfly.api.surface import build_surface
from dragonfly.app.rights import rights_tools
from dragonfly.core.clock import Clock
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import DatabaseThreads, write
from dragonfly.mail.sending import UNSUBSCRIBE_PATH
from dragonfly.rights.actions import RightsTools
from dragonfly.settings import MailSettings, PrivacySettings, ServerSettings, Settings
from tests.factories import PEPPER, START_NS, make_peppers

CALLER = "caller"


async def authenticate(request: Request) -> Principal:
    """The header `caller` holds an account's id; `operator:` before it makes it an operator's."""
    said = request.headers.get(CALLER, "")
    if not said:
        raise SessionInvalid
    role = Role.OPERATOR if said.startswith("operator:") else Role.CUSTOMER
    return Principal(AccountId(said.removeprefix("operator:")), role, "ses-1", None, role is Role.OPERATOR)


def make_person(
    engine: Engine, *, name: str = "Alice", address: str = "alice@example.com", language: str = "en"
) -> AccountId:
    """An account that somebody signs in to."""
    with write(engine) as connection:
        account_id = create_account(
            connection, IdSource(), name=name, email=address, verified_at_ns=START_NS, now_ns=START_NS
        )
        add_person(connection, account_id, address, role="customer", language=language)
    return account_id


def make_desk(engine: Engine, clock: Clock, threads: DatabaseThreads) -> Desk:
    return Desk(engine, threads, clock, IdSource())


def make_rights_tools(operator_address: str = "", **privacy: Any) -> RightsTools:
    """What requests about data work with, on https://dragonfly.example."""
    settings = Settings(
        key_pepper=SecretStr(PEPPER.decode()),
        server=ServerSettings(public_url="https://dragonfly.example"),
        mail=MailSettings(operator_address=operator_address),
        privacy=PrivacySettings(**privacy),
    )
    return rights_tools(settings, make_peppers(), IdSource())


class Api:
    """Asks the routes over ASGI. Exceptions that nobody expected are raised."""

    def __init__(self, routers: Sequence[APIRouter], clock: Clock) -> None:
        self.app = build_surface(
            readiness=Readiness({}, clock),
            clock=clock,
            ids=IdSource(),
            failed=self._failed,
            routers=routers,
            authenticate=authenticate,
            bodies=BodyRules(form_paths=(UNSUBSCRIBE_PATH,)),
        )

    def _failed(self, failure: BaseException) -> None:
        raise failure

    async def send(self, method: str, path: str, caller: str = "", **options: Any) -> httpx.Response:
        headers = {CALLER: caller} if caller else {}
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, headers={**headers, **options.pop("headers", {})}, **options)
