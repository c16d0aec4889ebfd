"""GET /healthz: the process answers. GET /readyz: it can serve. Neither needs a key nor tells a secret."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from dragonfly.core.clock import Clock

CHECK_S_MAX = 2.0
REMEMBERED_S = 1.0

Check = Callable[[], Awaitable[bool]]


class Health(BaseModel):
    """The answer of /healthz."""

    status: str = "ok"


class Ready(BaseModel):
    """The answer of /readyz."""

    status: str
    """"ready" or "not_ready"."""
    checks: dict[str, str]
    """Name of each check: "ok" or "failed"."""


class Readiness:
    """Runs the checks, at most once per REMEMBERED_S, so that asking costs the database nothing to speak of."""

    def __init__(self, checks: Mapping[str, Check], clock: Clock, *, check_s_max: float = CHECK_S_MAX) -> None:
        self._checks = checks
        self._clock = clock
        self._check_s_max = check_s_max
        self._running: asyncio.Task[dict[str, str]] | None = None
        self._until_s = 0.0
        self.draining = False

    async def ask(self) -> Ready:
        """What each check says; a check that raises or takes longer than `check_s_max` has failed."""
        now_s = self._clock.monotonic_s()
        if self._running is None or (self._running.done() and now_s >= self._until_s):
            self._until_s = now_s + REMEMBERED_S
            self._running = asyncio.get_running_loop().create_task(self._run())
        found = dict(await asyncio.shield(self._running))
        if self.draining:
            found["accepting"] = "failed"
        ready = all(state == "ok" for state in found.values())
        return Ready(status="ready" if ready else "not_ready", checks=found)

    async def _run(self) -> dict[str, str]:
        names = list(self._checks)
        states = await asyncio.gather(*(_state_of(self._checks[name], self._check_s_max) for name in names))
        return dict(zip(names, states, strict=True))


def health_routes(readiness: Readiness) -> APIRouter:
    """The two paths that supervisors and proxies ask."""
    routes = APIRouter(tags=["health"])

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz", operation_id="healthz")
    async def healthz() -> Health:
        """Answers as long as the process does."""
        return Health()

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", operation_id="readyz", responses={503: {"model": Ready}})
    async def readyz(response: Response) -> Ready:
        """200 when requests can be served and billed, else 503 with the check that failed."""
        ready = await readiness.ask()
        response.status_code = 200 if ready.status == "ready" else 503
        return ready

    return routes


async def _state_of(check: Check, check_s_max: float) -> str:
    try:
        async with asyncio.timeout(check_s_max):
            return "ok" if await check() else "failed"
    except Exception:
        return "failed"
