"""GET /metrics: numbers for the operator in Prometheus' text form (version 0.0.4), behind a token."""

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from fastapi import APIRouter
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from dragonfly.core.errors import DragonflyError

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATH = "/metrics"


class Sample(NamedTuple):
    """One number. `suffix` is for parts of histograms, such as "_sum"."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


class Family(NamedTuple):
    """Numbers of one name. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


class MetricsRefused(DragonflyError):
    code = "metrics_token_wrong"
    status = 401

    def __init__(self) -> None:
        super().__init__("Send the setting metrics_token as `Authorization: Bearer …`.")


def metrics_routes(token: SecretStr, read: Callable[[], Iterable[Family]]) -> APIRouter:
    """The page, for whoever sends the token."""
    routes = APIRouter(include_in_schema=False)
    assert token.get_secret_value(), "an empty token would let everybody in"
    wanted = b"Bearer " + token.get_secret_value().encode()

    @routes.get(PATH)
    async def metrics(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), wanted):
            raise MetricsRefused
        return Response(exposition(read()), media_type=MEDIA_TYPE)

    return routes


def exposition(families: Iterable[Family]) -> str:
    """The text form."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for sample in family.samples:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
        yield f"{family.name}{sample.suffix}{{{labels}}} {sample.value:.15g}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
