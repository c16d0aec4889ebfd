"""The whole surface as a serving process builds it, with people told apart by a header instead of sessions."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from starlette.routing import BaseRoute

from dragonfly.api.management_keys import with_management_keys
from dragonfly.api.surface import Envelope
from dragonfly.app.build import build
from dragonfly.app.setup import Configured, seal_of
from dragonfly.core.clock import SystemClock
from dragonfly.infra.logging import EventLog
from dragonfly.settings import Settings
from tests.factories import PEPPER, make_peppers
from tests.http.account import CATALOG, Office


class Route(NamedTuple):
    """One thing that can be asked for."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class WholeOffice(Office):
    """Alice, Bob and Charlie in front of everything that is served beside the data plane."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__(engine)
        self.log = io.BytesIO()
        settings = Settings(data_dir=folder, key_pepper=PEPPER.decode())  # type: ignore[arg-type]
        self.seal = seal_of(settings)
        clock = SystemClock()
        self.served = build(Configured(settings, CATALOG), engine, EventLog(self.log, clock), clock)
        self.app = self.served.app
        self.inner = inner_of(self.app)
        self.inner.state.authenticate = with_management_keys(self._sessions, self.desk, make_peppers())

    @property
    def routes(self) -> set[Route]:
        """Everything that answers, described or not; HEAD and what the framework serves itself apart."""
        return {
            Route(method, route.path)
            for route in _routes(self.inner.routes)
            if isinstance(route, APIRoute)
            for method in (route.methods or set()) - {"HEAD"}
        }

    @property
    def document(self) -> Any:
        return json.loads(json.dumps(self.inner.openapi()))

    def surprises(self) -> list[dict[str, Any]]:
        """Log lines about exceptions that nobody expected."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == "surface_failed"]


def inner_of(app: object) -> FastAPI:
    """The application inside its wrappers."""
    assert isinstance(app, Envelope)
    while not isinstance(app, FastAPI):
        app = getattr(app, "_inner", None) or getattr(app, "_api", None)
    return app


def _routes(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _routes(inner.routes)
        else:
            yield route
