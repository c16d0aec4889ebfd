"""Records with content show nothing of it, and whatever frameworks say about bad input repeats nothing of it."""

import copy
import dataclasses
import inspect
import logging
import pickle
import typing
import warnings
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from typing import Annotated, Literal

import httpx
import msgspec
import pytest
from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict
from sqlalchemy import Engine, text
from starlette.types import ASGIApp

from dragonfly.api.health import Readiness
from dragonfly.api.principal import refuse_everybody
from dragonfly.api.surface import build_surface
from dragonfly.core.clock import SystemClock
from dragonfly.core.content import holds_content
from dragonfly.core.ids import IdSource
from dragonfly.gateway.wire.chat import read_chat_request
from dragonfly.infra.database import write
from dragonfly.infra.logging import EventLog, describe, tame_libraries
from tests.events import all_modules
from tests.factories import MovableClock, make_database

CANARY = "CANARY9d3e"
CONTENT_FIELDS = {"body", "data", "stray", "message", "fields", "obj"}


def records() -> Iterator[type]:
    """Named tuples, structs and data classes of the data plane."""
    for module in all_modules():
        if module.__name__.startswith(("dragonfly.gateway", "dragonfly.providers.dialects")):
            for value in vars(module).values():
                if inspect.isclass(value) and value.__module__ == module.__name__ and fields_of(value):
                    yield value


def fields_of(record: type) -> dict[str, object]:
    is_record = issubclass(record, tuple | msgspec.Struct) or dataclasses.is_dataclass(record)
    return typing.get_type_hints(record) if is_record else {}


def may_hold_content(record: type) -> bool:
    return any(
        "Raw" in str(kind) or (name in CONTENT_FIELDS and ("bytes" in str(kind) or "str" in str(kind)))
        for name, kind in fields_of(record).items()
    )


@pytest.mark.parametrize(
    "record", [one for one in records() if may_hold_content(one)], ids=lambda one: one.__qualname__
)
def test_every_record_of_the_data_plane_with_content_hides_it(record: type) -> None:
    assert record.__repr__.__qualname__ == "_unshown", f"decorate {record.__qualname__} with holds_content"


def test_a_request_shows_nothing_however_it_is_formatted() -> None:
    body = b'{"model":"a/b","messages":[{"role":"user","content":"CANARY9d3e"}],"stop":["CANARY9d3e"]}'
    request = read_chat_request(body)
    assert CANARY.encode() in bytes(request.fields["messages"])
    for shown in (
        repr(request),
        str(request),
        f"{request}",
        f"{request!r:>80}",
        f"{[request]}",
    ):
        assert CANARY not in shown
        assert "ChatRequest" in shown


def test_a_record_with_content_cannot_be_pickled_or_copied() -> None:
    @holds_content
    class Said(msgspec.Struct):
        text: str

    said = Said(CANARY)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="holds content") as refused:
            attempt(said)
        assert CANARY not in str(refused.value)


def never(_: str) -> str:
    raise ValueError(f"bad value {CANARY}")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    needed: int
    kind: Literal["a", "b"] = "a"
    checked: Annotated[str, AfterValidator(never)] = ""


class Bug(Exception):
    pass


def the_surface(failures: list[BaseException]) -> ASGIApp:
    routes = APIRouter()

    @routes.post("/api/strict")
    async def strict(body: Strict) -> dict[str, int]:
        return {"needed": body.needed}

    @routes.get("/api/bug")
    async def bug(what: str = "") -> None:
        raise Bug(f"{what} {CANARY}") from KeyError(CANARY)

    clock = SystemClock()
    return build_surface(
        readiness=Readiness({}, clock),
        clock=clock,
        ids=IdSource(),
        failed=failures.append,
        routers=(routes,),
        authenticate=refuse_everybody,
    )


Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
JSON = {"content-type": "application/json"}
ASKS: dict[str, Ask] = {
    "a missing field": lambda client: client.post("/api/strict", json={"said": CANARY}),
    "a wrong type": lambda client: client.post("/api/strict", json={"needed": CANARY}),
    "a wrong word": lambda client: client.post("/api/strict", json={"needed": 1, "kind": CANARY}),
    "an unknown name": lambda client: client.post("/api/strict", json={"needed": 1, CANARY: 1}),
    "a validator that talks": lambda client: client.post("/api/strict", json={"needed": 1, "checked": CANARY}),
    "no JSON": lambda client: client.post("/api/strict", content=CANARY.encode(), headers=JSON),
    "no Unicode": lambda client: client.post("/api/strict", content=b"\xff" + CANARY.encode(), headers=JSON),
    "a list": lambda client: client.post("/api/strict", json=[CANARY]),
    "another kind of body": lambda client: client.post("/api/strict", data={"a": CANARY}),
    "an unknown path": lambda client: client.get(f"/api/{CANARY}?{CANARY}"),
    "a wrong method": lambda client: client.request("DELETE", "/api/strict", headers={"x-said": CANARY}),
    "a bug": lambda client: client.get("/api/bug", params={"what": CANARY}),
}


@pytest.mark.parametrize("name", ASKS)
async def test_no_refusal_of_the_framework_repeats_what_it_was_sent(name: str) -> None:
    failures: list[BaseException] = []
    transport = httpx.ASGITransport(app=the_surface(failures), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await ASKS[name](client)
    assert answer.status_code >= 400
    assert CANARY not in answer.text + str(answer.headers)
    for failure in failures:
        assert CANARY not in str(describe(failure))


def test_neither_warnings_nor_libraries_nor_bound_values_reach_the_log(
    clock: MovableClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stream = BytesIO()
    log = EventLog(stream, clock)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        tame_libraries(log)
        logging.getLogger("sqlalchemy.engine").error("params: %r", (CANARY,))
        logging.getLogger("uvicorn.error").error(CANARY, exc_info=ValueError(CANARY))
        logging.getLogger(CANARY.lower()).error("anything")
        warnings.warn(CANARY, ResourceWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
        root.setLevel(level)
    said = stream.getvalue().decode()
    assert "library_error" in said
    assert CANARY not in said
    engine: Engine = make_database(tmp_path_factory.mktemp("database"))
    with pytest.raises(Exception, match="no such table") as failed, write(engine) as connection:
        connection.execute(text("SELECT :said FROM missing_table"), {"said": CANARY})
    engine.dispose()
    assert CANARY not in str(failed.value)
    assert CANARY not in str(describe(failed.value))
