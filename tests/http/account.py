"""The account API on a real database, asked by people whose names stand in a header."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter
from sqlalchemy import Engine, insert, update
from starlette.requests import Request
from starlette.types import ASGIApp

from dragonfly.accounts.people import add_person
from dragonfly.accounts.tables import accounts
from dragonfly.api.desk import Desk
from dragonfly.api.guard import BodyRules
from dragonfly.api.health import Readiness
from dragonfly.api.principal import Principal, Role, SessionInvalid
from dragonfly.api.surface import build_surface
from dragonfly.app.routes import account_api
from dragonfly.catalog.build import build_catalog
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import DatabaseThreads, write
from dragonfly.settings import CatalogSettings
from dragonfly.usage.queries import day_of
from dragonfly.usage.tables import usage, usage_days
from tests.factories import MovableClock, make_account, make_peppers

CATALOG = build_catalog(
    CatalogSettings(builtin=False),
    tomllib.loads("""
        [providers.acme]
        base_url = "http://127.0.0.1:9/v1"
        api_key = ""
        [[models]]
        id = "acme/chat"
        context_tokens = 1_000
        channels = [{ provider = "acme", model = "m", prices = [{ prompt = "1", completion = "2" }] }]
        [[models]]
        id = "acme/old"
        context_tokens = 1_000
        channels = [{ provider = "acme", model = "o", prices = [] }]
    """),
    {},
)


class Office:
    """Alice and Bob with their accounts, Charlie the operator, and a client for each."""

    def __init__(self, engine: Engine, *, more: tuple[APIRouter, ...] = ()) -> None:
        self.engine = engine
        self.clock = MovableClock()
        self.threads = DatabaseThreads()
        self.failures: list[BaseException] = []
        self.alice = make_account(engine, name="Alice")
        self.bob = make_account(engine, name="Bob")
        self.charlie = make_account(engine, name="Charlie")
        for name, account_id in (("alice", self.alice), ("bob", self.bob), ("charlie", self.charlie)):
            with write(engine) as connection:
                owned = update(accounts).where(accounts.c.id == account_id)
                connection.execute(owned.values(email=f"{name}@example.com"))
                role = "operator" if name == "charlie" else "customer"
                add_person(connection, account_id, f"{name}@example.com", role=role, language="en")
        self.moderated: list[Request] = []
        """Requests whose network was asked to be moderate."""
        self.asked = 0
        """How often a session was looked up."""
        self.desk = Desk(engine, self.threads, self.clock, IdSource())
        self.api = account_api(self.desk, make_peppers(), CATALOG, self._sessions, self.moderated.append)
        self.app: ASGIApp = build_surface(
            readiness=Readiness({}, self.clock),
            clock=self.clock,
            ids=IdSource(),
            failed=self.failures.append,
            routers=(*self.api.routers, *more),
            authenticate=self.api.authenticate,
            bodies=BodyRules(repeats=self.api.repeats),
        )

    async def _sessions(self, request: Request) -> Principal:
        self.asked += 1
        name = request.headers.get("x-person", "")
        people = {
            "alice": (self.alice, Role.CUSTOMER, False),
            "bob": (self.bob, Role.CUSTOMER, False),
            "charlie": (self.charlie, Role.OPERATOR, True),
            "charlie without a second factor": (self.charlie, Role.OPERATOR, False),
        }
        if name not in people:
            raise SessionInvalid
        account_id, role, second_factor = people[name]
        return Principal(account_id, role, f"ses-{name}", None, second_factor=second_factor)

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as made:
            yield made

    async def ask(self, who: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request; `who` is a person's name, or a management key."""
        proof = {"authorization": f"Bearer {who}"} if who.startswith("mk-df-") else {"x-person": who}
        async with self.client(**proof, **headers) as client:
            got = await client.request(method, path, json=body)
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["x-request-id"].startswith("req-")
        assert not self.failures, "nothing unexpected"
        return got

    def use(
        self, account_id: AccountId, key_id: str, *, model: str = "acme/chat", cost_nusd: int = 50_000, count: int = 1
    ) -> None:
        """Requests that were made now, the first of this key and model on this day."""
        now_ns = self.clock.now_ns()
        counts = {"prompt_tokens": 30, "completion_tokens": 10, "cached_tokens": 5, "reasoning_tokens": 2}
        common = {"account_id": account_id, "key_id": key_id, "model": model, "provider": "acme", **counts}
        row = {
            **common,
            "channel_id": f"{model}@acme",
            "cache_write_tokens": 0,
            "basis": "upstream",
            "price_version_id": "v1",
            "hold_nusd": cost_nusd,
            "cost_nusd": cost_nusd,
            "prompt_cost_nusd": 0,
            "upstream_nusd": cost_nusd,
            "absorbed_nusd": 0,
            "outcome": "complete",
            "finish_reason": "stop",
            "is_streamed": 1,
            "attempts": 1,
            "upstream_status": 200,
            "ttft_us": 120_000,
            "duration_us": 900_000,
            "day": day_of(now_ns),
            "created_at_ns": now_ns,
        }
        total = {**common, "day": day_of(now_ns), "requests": count, "cost_nusd": count * cost_nusd}
        with write(self.engine) as connection:
            ids = IdSource()
            connection.execute(insert(usage), [{**row, "request_id": ids.request(now_ns)} for _ in range(count)])
            connection.execute(insert(usage_days).values(total))
