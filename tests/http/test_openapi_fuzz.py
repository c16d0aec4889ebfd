"""Schemathesis over the whole OpenAPI document: no 5xx, and no answer that the document does not tell of."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dragonfly.keys.management import Scope
from tests.factories import make_database
from tests.http.test_owner_crawl import a_data_request, a_key, a_management_key, a_profile, a_ticket
from tests.http.whole import WholeOffice

EXAMPLES = {GenerationMode.POSITIVE: 4, GenerationMode.NEGATIVE: 2}
"""For each operation; with all operations and people about a thousand requests."""
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
"""For longer runs: so many times as many requests."""
A_PROGRAM = "a management key"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
UNHEALTHY = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
ANSWERS_FOR_THE_PROCESS = "^(/v1/|/readyz$)"
"""The data plane has tests of its own, and /readyz rightly says 503 here: nothing beats in this office."""


@pytest.fixture
def office(tmp_path: Path) -> Iterator[WholeOffice]:
    async def make() -> WholeOffice:
        return WholeOffice(make_database(tmp_path), tmp_path)

    made = asyncio.run(make())
    yield made
    made.threads.close()
    asyncio.run(made.served.stops[-1].run())


def known_ids(office: WholeOffice) -> dict[str, dict[str, str]]:
    """Things of Alice's that exist, by the beginning of the path that names them."""

    async def make() -> dict[str, dict[str, str]]:
        key, ticket = await a_key(office), await a_ticket(office)
        request = await a_data_request(office)
        office.use(office.alice, key)
        return {
            "/api/keys/": {"key_id": key},
            "/api/admin/keys/": {"key_id": key},
            "/api/admin/accounts/": {"account_id": office.alice},
            "/api/data-requests/": {"request_id": request},
            "/api/admin/data-requests/": {"request_id": request},
            "/api/management-keys/": {"key_id": await a_management_key(office)},
            "/api/routing/profiles/": {"profile_id": await a_profile(office)},
            "/api/support/tickets/": {"ticket_id": ticket},
            "/api/admin/tickets/": {"ticket_id": ticket},
        }

    return asyncio.run(make())


def violations(office: WholeOffice, who: str, mode: GenerationMode, ids: dict[str, dict[str, str]]) -> dict[str, str]:
    """What is wrong with each operation, in the words of the tool."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", office.app)
    found: dict[str, str] = {}
    headers = asyncio.run(headers_of(office, who))
    for result in schema.exclude(path_regex=ANSWERS_FOR_THE_PROCESS).get_all_operations():
        operation = result.ok()
        described = operation.definition.raw
        if mode is GenerationMode.NEGATIVE and takes_nothing(described):
            continue
        if who == A_PROGRAM and "management_key" not in str(described.get("security")):
            continue  # refused alike everywhere else: see test_route_table
        known = next((names for start, names in ids.items() if operation.path.startswith(start)), {})
        try:
            ask(operation.as_strategy(generation_mode=mode), headers, known, EXAMPLES[mode] * TIMES)
        except BaseExceptionGroup as failures:
            found[operation.label] = "; ".join(str(failure) for failure in failures.exceptions)
    return found


async def headers_of(office: WholeOffice, who: str) -> dict[str, str]:
    """By which somebody is known; a program has a management key of Alice's with every scope."""
    if who != A_PROGRAM:
        return {"x-person": who}
    wanted = {"name": "all", "scopes": [scope.value for scope in Scope]}
    made = await office.ask("alice", "POST", "/api/management-keys", wanted)
    return {"authorization": f"Bearer {made.json()['key']}"}


def takes_nothing(operation: Mapping[str, Any]) -> bool:
    """Nothing can be wrong with a request that has neither parameters nor a body."""
    return not operation.get("parameters") and not operation.get("requestBody")


def ask(cases: SearchStrategy[Case], headers: dict[str, str], known: dict[str, str], examples: int) -> None:
    """A few requests to one operation; raises what is wrong with their answers."""
    asked = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=UNHEALTHY,
        phases=[Phase.generate],
    )
    @given(case=cases)
    def run(case: Case) -> None:
        nonlocal asked
        asked += 1
        if case.path_parameters and known:
            case.path_parameters.update(known)
        case.call_and_validate(headers=headers, checks=CHECKS)

    run()
    assert asked


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("who", "mode", "with_ids"),
    [
        ("alice", GenerationMode.POSITIVE, True),
        ("charlie", GenerationMode.POSITIVE, True),
        ("charlie", GenerationMode.NEGATIVE, True),
        ("nobody", GenerationMode.POSITIVE, False),
        (A_PROGRAM, GenerationMode.POSITIVE, True),
    ],
)
def test_no_answer_is_a_5xx_or_undocumented(
    office: WholeOffice, who: str, mode: GenerationMode, with_ids: bool
) -> None:
    ids: dict[str, Any] = known_ids(office) if with_ids else {}
    assert violations(office, who, mode, ids) == {}
    assert office.surprises() == []
