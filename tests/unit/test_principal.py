"""Who may use a route under /api, how refusals look, and what every body must be."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dragonfly.api.guard import BodyRules
from dragonfly.api.health import Readiness
from dragonfly.api.principal import Principal, Role, SessionInvalid, customer, operator, requires
from dragonfly.api.surface import build_surface
from dragonfly.core.clock import SystemClock
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import DatabaseAway

ALICE = Principal(AccountId("acc-alice"), Role.CUSTOMER, "ses-1", None, second_factor=False)
CALLERS = {
    "alice": ALICE,
    "bob the operator": Principal(AccountId("acc-bob"), Role.OPERATOR, "ses-2", None, second_factor=True),
    "bob without his second factor": Principal(
        AccountId("acc-bob"), Role.OPERATOR, "ses-3", None, second_factor=False
    ),
    "a key that reads": Principal(AccountId("acc-alice"), Role.CUSTOMER, None, frozenset({"keys:read"}), False),
    "a key that cannot": Principal(AccountId("acc-alice"), Role.CUSTOMER, None, frozenset(), False),
}
BODY_BYTES_MAX = 1_000


class Busy(DragonflyError):
    code = "busy"

    def __init__(self) -> None:
        super().__init__("Wait.")
        self.status = 429  # of the object, so that the table of documented errors does not want it
        self.retry_after_s = 1.2


class Plain(DragonflyError):
    code = "plain"


class Order(BaseModel):
    count: int


async def authenticate(request: Request) -> Principal:
    found = CALLERS.get(request.headers.get("caller", ""))
    if found is None:
        raise SessionInvalid
    return found


def routes() -> APIRouter:
    made = APIRouter()

    @made.get("/api/mine")
    async def mine(principal: Annotated[Principal, Depends(customer)]) -> str:
        return principal.account_id

    @made.get("/api/admin/all")
    async def everything(principal: Annotated[Principal, Depends(operator)]) -> str:
        return principal.account_id

    @made.get("/api/keys")
    async def keys(principal: Annotated[Principal, Depends(requires("keys:read"))], response: Response) -> str:
        response.headers["Cache-Control"] = "public, max-age=60"
        return principal.account_id

    @made.get("/api/busy")
    async def busy() -> None:
        raise Busy

    @made.get("/api/away")
    async def away() -> None:
        raise DatabaseAway

    @made.get("/api/plain")
    async def plain() -> None:
        raise Plain("A sentence.")

    @made.post("/api/orders")
    async def orders(order: Order) -> int:
        return order.count

    @made.post("/api/forms/one")
    async def forms(request: Request) -> int:
        return len(await request.body())

    @made.get("/page")
    async def page(response: Response) -> str:
        response.headers["Cache-Control"] = "public, max-age=60"
        return ""

    return made


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    clock = SystemClock()
    app = build_surface(
        readiness=Readiness({}, clock),
        clock=clock,
        ids=IdSource(),
        failed=lambda failure: None,
        routers=[routes()],
        authenticate=authenticate,
        bodies=BodyRules(BODY_BYTES_MAX, ("/api/forms/",)),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as made:
        yield made


@pytest.mark.parametrize(
    ("path", "caller", "status"),
    [
        ("/api/mine", "", 401),
        ("/api/mine", "alice", 200),
        ("/api/mine", "bob the operator", 200),
        ("/api/mine", "a key that reads", 403),
        ("/api/admin/all", "", 401),
        ("/api/admin/all", "alice", 403),
        ("/api/admin/all", "bob without his second factor", 403),
        ("/api/admin/all", "bob the operator", 200),
        ("/api/admin/all", "a key that reads", 403),
        ("/api/keys", "", 401),
        ("/api/keys", "alice", 200),
        ("/api/keys", "a key that reads", 200),
        ("/api/keys", "a key that cannot", 403),
    ],
)
async def test_a_route_lets_in_whom_it_names(client: httpx.AsyncClient, path: str, caller: str, status: int) -> None:
    answer = await client.get(path, headers={"caller": caller})
    assert answer.status_code == status
    if status != 200:
        code, kind = {401: ("session_invalid", "authentication_error"), 403: ("forbidden", "permission_error")}[
            status
        ]
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == (code, kind)


async def test_an_expected_error_has_its_status_code_id_and_time_to_wait(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/busy")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (429, "busy", "2")
    assert error["request_id"] == answer.headers["x-request-id"]
    away = await client.get("/api/away")
    assert (away.status_code, away.json()["error"]["code"]) == (503, "store_unavailable")
    assert away.headers["retry-after"] == "2"
    assert (await client.get("/api/plain")).status_code == 400


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"count": 3}', "application/json", 200),
        (b'{"count": 3}', "application/json; charset=utf-8", 200),
        (b'{"count": 3}', "text/plain", 415),
        (b"count=3", "application/x-www-form-urlencoded", 415),
        (b'{"count": 3}', "", 415),
        (b"{", "application/json", 400),
        (b"[" * 900, "application/json", 400),
        (b'{"count": "CANARY"}', "application/json", 422),
        (b"", "application/json", 422),
        (b'{"count": 3, "pad": "' + b"x" * BODY_BYTES_MAX + b'"}', "application/json", 413),
    ],
)
async def test_a_body_is_json_and_bounded(client: httpx.AsyncClient, body: bytes, kind: str, status: int) -> None:
    answer = await client.post("/api/orders", content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == status
    assert "CANARY" not in answer.text


async def test_a_body_that_comes_in_pieces_is_bounded_too(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    answer = await client.post("/api/orders", content=pieces(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_an_encoded_body_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert (await client.post("/api/orders", content=b'{"count": 3}', headers=headers)).status_code == 415


async def test_a_path_for_forms_takes_a_form(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/forms/one", data={"List-Unsubscribe": "One-Click"})
    assert (answer.status_code, answer.json()) == (200, len("List-Unsubscribe=One-Click"))


async def test_nothing_under_api_is_cached_and_a_page_may_be(client: httpx.AsyncClient) -> None:
    for path in ("/api/keys", "/api/mine", "/api/nothing"):
        answer = await client.get(path, headers={"caller": "alice"})
        assert answer.headers.get_list("cache-control") == ["no-store"]
    assert (await client.get("/page")).headers.get_list("cache-control") == ["public, max-age=60"]


async def test_the_description_names_what_each_route_wants(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    wanted = {
        path: json.dumps(described["paths"][path]["get"].get("security")) for path in ("/api/mine", "/api/keys")
    }
    assert wanted["/api/mine"] == '[{"session": []}]'
    assert sorted(wanted["/api/keys"].split("}, {")) == ['"management_key": []}]', '[{"session": []']
    assert {"session", "management_key", "key"} <= set(described["components"]["securitySchemes"])


async def test_a_surface_without_authentication_refuses_everybody() -> None:
    clock = SystemClock()
    app = build_surface(
        readiness=Readiness({}, clock), clock=clock, ids=IdSource(), failed=lambda failure: None, routers=[routes()]
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client:
        assert (await client.get("/api/mine", headers={"caller": "alice"})).status_code == 401
