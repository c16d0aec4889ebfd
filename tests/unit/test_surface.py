"""The ASGI side: health, readiness, headers on everything, errors in one shape that repeat nothing."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import APIRouter
from fastapi.openapi.models import OpenAPI

from dragonfly.api.health import Readiness
from dragonfly.api.surface import build_surface
from dragonfly.core.ids import IdSource

CANARY = "CANARY8f2e"


class MovedClock:
    def __init__(self) -> None:
        self.at_s = 1_000.0

    def now_ns(self) -> int:
        return int(self.at_s * 1e9)

    def monotonic_s(self) -> float:
        return self.at_s


class Surface:
    """A surface whose one check answers what the test says, and a client for it."""

    def __init__(self, check: Callable[[], Awaitable[bool]] | None = None) -> None:
        self.clock = MovedClock()
        self.asked = 0
        self.healthy = True
        self.failures: list[BaseException] = []
        self.readiness = Readiness({"database": check or self._check}, self.clock, check_s_max=0.2)
        self.serve()

    def serve(self, *routers: APIRouter) -> None:
        """Builds the surface, with further routes."""
        self.app = build_surface(
            readiness=self.readiness,
            clock=self.clock,
            ids=IdSource(),
            failed=self.failures.append,
            routers=routers,
        )

    async def _check(self) -> bool:
        self.asked += 1
        return self.healthy

    async def send(self, method: str, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path)


@pytest.fixture
def surface() -> Surface:
    return Surface()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_healthz_answers(surface: Surface, method: str) -> None:
    answer = await surface.send(method, "/healthz")
    assert answer.status_code == 200
    assert surface.asked == 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/nothing", "/openapi.json"])
async def test_every_answer_has_the_headers_and_an_id(surface: Surface, path: str) -> None:
    headers = (await surface.send("GET", path)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-request-id"].startswith("req-")
    assert headers["content-type"] == "application/json"


async def test_readyz_names_the_check_that_failed_and_recovers(surface: Surface) -> None:
    surface.healthy = False
    answer = await surface.send("GET", "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not_ready", "checks": {"database": "failed"}})
    surface.healthy = True
    surface.clock.at_s += 1.1
    answer = await surface.send("GET", "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "checks": {"database": "ok"}})


async def test_readyz_asks_the_database_at_most_once_a_second(surface: Surface) -> None:
    await asyncio.gather(*(surface.send("GET", "/readyz") for _ in range(20)))
    await surface.send("GET", "/readyz")
    assert surface.asked == 1


async def test_readyz_says_that_the_gateway_is_draining(surface: Surface) -> None:
    surface.readiness.draining = True
    answer = await surface.send("GET", "/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["accepting"] == "failed"


async def test_a_check_that_raises_or_hangs_has_failed() -> None:
    async def raising() -> bool:
        raise OSError(CANARY)

    async def hanging() -> bool:
        await asyncio.Event().wait()
        return True

    for check in (raising, hanging):
        answer = await Surface(check).send("GET", "/readyz")
        assert answer.status_code == 503
        assert CANARY not in answer.text


async def test_unknown_paths_and_methods_get_json_that_repeats_nothing(surface: Surface) -> None:
    missing = await surface.send("GET", f"/{CANARY}?q={CANARY}")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert missing.json()["error"]["request_id"] == missing.headers["x-request-id"]
    wrong = await surface.send("DELETE", "/healthz")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"]
    assert CANARY not in missing.text


async def test_a_bug_and_a_wrong_parameter_are_answered_without_their_words(surface: Surface) -> None:
    routes = APIRouter()

    @routes.get("/bug")
    async def bug() -> None:
        raise ValueError(CANARY)

    @routes.get("/number/{number}")
    async def number(number: int) -> int:
        return number

    surface.serve(routes)
    answer = await surface.send("GET", "/bug")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert [type(failure) for failure in surface.failures] == [ValueError]
    refused = await surface.send("GET", f"/number/{CANARY}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_parameter")
    assert CANARY not in answer.text + refused.text


async def test_the_description_of_the_api_is_valid_and_holds_both_sides(surface: Surface) -> None:
    described = (await surface.send("GET", "/openapi.json")).json()
    OpenAPI.model_validate(described)
    assert {"/healthz", "/readyz", "/v1/chat/completions", "/v1/models"} <= set(described["paths"])
    names = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described))
    assert set(names) <= set(described["components"]["schemas"])
    operations = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert len(set(operations)) == len(operations)
