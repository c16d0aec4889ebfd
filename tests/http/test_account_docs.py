"""docs/use/account-api.md says what the account API does: its table is the document's, its examples work."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dragonfly.keys.management import Scope
from tests.factories import make_database
from tests.http.test_route_table import EVERYBODY, FOR_OPERATORS, SCOPED, listed
from tests.http.whole import Route, WholeOffice

PAGE = (Path(__file__).resolve().parents[2] / "docs/use/account-api.md").read_text()
EXAMPLES = re.findall(r"^(POST) (/api/\S+)\n\n```json\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[WholeOffice]:
    made = WholeOffice(make_database(tmp_path), tmp_path)
    yield made
    made.threads.close()
    await made.served.stops[-1].run()


def who_may(route: Route) -> str:
    if route in listed(EVERYBODY):
        return "everybody"
    if route in FOR_OPERATORS:
        return "operators"
    return f"people, `{SCOPED[route].value}`" if route in SCOPED else "people"


def table_of(office: WholeOffice) -> list[str]:
    """The rows that the page should have."""
    rows = []
    for path, operations in office.document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/api/"):
                route = Route(method.upper(), path)
                rows.append(f"| `{route}` | {who_may(route)} | {operation['summary']} |")
    return sorted(rows, key=lambda row: row.split("`")[1].split()[::-1])


async def test_the_table_of_routes_is_what_the_document_says(office: WholeOffice) -> None:
    shown = [line for line in PAGE.split("## All routes")[1].splitlines() if line.startswith("| `")]
    assert shown == table_of(office)


@pytest.mark.parametrize(("method", "path", "body"), EXAMPLES)
async def test_the_examples_of_the_page_work(office: WholeOffice, method: str, path: str, body: str) -> None:
    got = await office.ask("alice", method, path, json.loads(body))
    assert got.status_code == 201


def test_the_page_names_every_scope_and_has_examples() -> None:
    assert len(EXAMPLES) == 3
    assert all(f"`{scope.value}`" in PAGE for scope in Scope)


async def test_every_operation_says_what_it_is_for_and_how_it_fails(office: WholeOffice) -> None:
    for path, operations in office.document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], f"{method} {path}"
            assert "HTTPValidationError" not in json.dumps(operation)
            if path.startswith("/api/"):
                error = operation["responses"]["default"]["content"]["application/json"]["schema"]
                assert error == {"$ref": "#/components/schemas/Error"}
            names = [parameter["name"] for parameter in operation.get("parameters", ())]
            assert ("Idempotency-Key" in names) == (method == "post" and path.startswith("/api/"))


async def test_every_list_comes_in_pages_of_a_bounded_length(office: WholeOffice) -> None:
    schemas = office.document["components"]["schemas"]
    for path, operations in office.document["paths"].items():
        answer = json.dumps(operations.get("get", {}).get("responses", {}).get("200", {}))
        for name in re.findall(r"#/components/schemas/(Page_\w+)", answer):
            assert set(schemas[name]["properties"]) == {"data", "next_cursor"}
            bounds = {parameter["name"]: parameter["schema"] for parameter in operations["get"].get("parameters", ())}
            assert bounds["limit"]["maximum"] <= 100, path
            assert "cursor" in bounds, path
