"""Two accounts: Bob asks for everything that is Alice's, by its id, on every route, and finds what is not there."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from dragonfly.accounts.sessions import Browser, begin_session
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.core.money import NUSD_PER_USD
from dragonfly.infra.database import write
from dragonfly.keys.management import Scope
from dragonfly.payments.tables import topups
from dragonfly.rights.actions import approve, open_request
from dragonfly.rights.rules import Origin, RequestKind
from tests.factories import make_database
from tests.http.test_route_table import FOR_OPERATORS, FOR_PEOPLE, SCOPED
from tests.http.whole import Route, WholeOffice
from tests.store.callers import make_rights_tools

PROFILE = {"name": "work", "rules": {"only": ["acme"]}}
BODIES: dict[str, Any] = {
    "PATCH /api/keys/{key_id}": {"name": "mine now"},
    "POST /api/keys/{key_id}/rotate": {"grace_s": 0},
    "PUT /api/routing/profiles/{profile_id}": PROFILE,
    "POST /api/support/tickets/{ticket_id}/messages": {"text": "It is mine."},
}
UNKNOWN = {
    "ticket_id": "tkt-" + "0" * 32,
    "key_id": "0000000000",
    "profile_id": "rtp-" + "0" * 32,
    "session_id": "ses-" + "0" * 32,
    "topup_id": "top-" + "0" * 32,
    "request_id": "drq-" + "0" * 32,
}
NEEDS_STRIPE = {"POST /api/wallet/topups/{topup_id}/check"}
"""Nobody can do these without Stripe's keys, and everybody is told so; test_wallet_api.py asks with a stand-in."""
NEEDS_SIGN_IN = {"POST /api/data-requests/{request_id}/link"}
"""Of these people a sign-in is not kept; test_data_requests.py asks with one."""
NOT_AN_ID = {"provider", "month"}
"""Parameters that name something of the installation, not of an account."""

Maker = Callable[[WholeOffice], Awaitable[str]]


async def a_key(office: WholeOffice) -> str:
    return str((await office.ask("alice", "POST", "/api/keys", {"name": "alice's"})).json()["id"])


async def a_management_key(office: WholeOffice) -> str:
    wanted = {"name": "alice's", "scopes": ["keys:read"]}
    return str((await office.ask("alice", "POST", "/api/management-keys", wanted)).json()["id"])


async def a_profile(office: WholeOffice) -> str:
    return str((await office.ask("alice", "POST", "/api/routing/profiles", PROFILE)).json()["id"])


async def a_ticket(office: WholeOffice) -> str:
    wanted = {"kind": "question", "text": "Where is it?"}
    return str((await office.ask("alice", "POST", "/api/support/tickets", wanted)).json()["id"])


async def a_data_request(office: WholeOffice) -> str:
    """An approved one, as if she had asked for a copy after a sign-in."""
    tools, now_ns = make_rights_tools(), SystemClock().now_ns()
    with write(office.engine) as connection:
        request = open_request(
            connection,
            tools,
            account_id=office.alice,
            kind=RequestKind.EXPORT,
            origin=Origin.DASHBOARD,
            ticket_id=None,
            gives_up_balance=False,
            now_ns=now_ns,
        )
        approve(connection, tools, request.id, reviewed_by=office.charlie, now_ns=now_ns)
    return request.id


async def a_session(office: WholeOffice) -> str:
    """As if Alice had signed in on another browser."""
    browser, now_ns = Browser("fingerprint", "Firefox", "192.0.2.7"), SystemClock().now_ns()
    with write(office.engine) as connection:
        tokens = begin_session(
            connection, office.seal, IdSource(), office.alice, browser, has_second_factor=False, now_ns=now_ns
        )
    return tokens.session_id


async def a_topup(office: WholeOffice) -> str:
    """A payment of an installation whose Stripe keys have been taken out since."""
    topup_id, now_ns = IdSource().new("top-", SystemClock().now_ns()), SystemClock().now_ns()
    row = {"id": topup_id, "account_id": office.alice, "kind": "checkout", "state": "paid", "currency": "usd"}
    row |= {
        "amount_cents": 500,
        "tax_cents": 0,
        "total_cents": 500,
        "credit_nusd": 5 * NUSD_PER_USD,
        "language": "en",
    }
    row |= {"created_at_ns": now_ns, "paid_at_ns": now_ns, "checked_at_ns": now_ns}
    with write(office.engine) as connection:
        connection.execute(insert(topups).values(row))
    return topup_id


MAKERS: dict[str, Maker] = {
    "/api/data-requests/": a_data_request,
    "/api/keys/": a_key,
    "/api/management-keys/": a_management_key,
    "/api/routing/profiles/": a_profile,
    "/api/me/sessions/": a_session,
    "/api/support/tickets/": a_ticket,
    "/api/wallet/topups/": a_topup,
}
"""How Alice gets one of what a path names."""


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[WholeOffice]:
    made = WholeOffice(make_database(tmp_path), tmp_path)
    yield made
    made.threads.close()
    await made.served.stops[-1].run()


def with_ids() -> list[Route]:
    """The customers' routes whose path names something of an account."""
    return sorted(
        route for route in FOR_PEOPLE - FOR_OPERATORS if set(re.findall(r"{(\w+)}", route.path)) - NOT_AN_ID
    )


def maker_of(route: Route) -> Maker:
    found = [maker for prefix, maker in MAKERS.items() if route.path.startswith(prefix)]
    assert len(found) == 1, f"{route}: say how Alice gets one of these"
    return found[0]


@pytest.mark.parametrize("route", with_ids(), ids=str)
async def test_somebody_elses_thing_is_as_unknown_as_one_that_never_was(office: WholeOffice, route: Route) -> None:
    made = await maker_of(route)(office)
    (name,) = re.findall(r"{(\w+)}", route.path)
    before = await everything(office, "alice")
    body = BODIES.get(str(route), {} if route.method in ("POST", "PUT", "PATCH") else None)
    theirs = await office.ask("bob", route.method, route.path.replace(f"{{{name}}}", made), body)
    nobodys = await office.ask("bob", route.method, route.path.replace(f"{{{name}}}", UNKNOWN[name]), body)
    refused = 409 if str(route) in NEEDS_STRIPE else 404
    assert theirs.status_code == nobodys.status_code == refused
    assert without_id(theirs.json()) == without_id(nobodys.json())
    assert await everything(office, "alice") == before, "and nothing of hers has changed"
    own = await office.ask("alice", route.method, route.path.replace(f"{{{name}}}", made), body)
    expected = (409,) if str(route) in NEEDS_STRIPE else (403,) if str(route) in NEEDS_SIGN_IN else (200, 201)
    assert own.status_code in expected, "while she herself can"


async def test_a_management_key_of_somebody_else_finds_nothing_either(office: WholeOffice) -> None:
    wanted = {"name": "bob's", "scopes": [scope.value for scope in Scope]}
    secret = (await office.ask("bob", "POST", "/api/management-keys", wanted)).json()["key"]
    routes = [route for route in with_ids() if route in SCOPED]
    assert len(routes) >= 8
    for route in routes:
        made = await maker_of(route)(office)
        (name,) = re.findall(r"{(\w+)}", route.path)
        before = await everything(office, "alice")
        body = BODIES.get(str(route), {} if route.method in ("POST", "PUT", "PATCH") else None)
        answers = []
        async with office.client(authorization=f"Bearer {secret}") as client:
            for one in (made, UNKNOWN[name]):
                answers.append(await client.request(route.method, route.path.replace(f"{{{name}}}", one), json=body))
        assert [answer.status_code for answer in answers] == [404, 404], route
        assert without_id(answers[0].json()) == without_id(answers[1].json())
        assert await everything(office, "alice") == before


async def test_no_list_shows_anything_of_somebody_else(office: WholeOffice) -> None:
    key = await a_key(office)
    ids = {key, await a_management_key(office), await a_profile(office), await a_ticket(office), office.alice}
    ids |= {await a_data_request(office)}
    office.use(office.alice, key)
    hers = json.dumps(await everything(office, "alice"))
    assert all(one in hers for one in ids - {office.alice})
    his = json.dumps(await everything(office, "bob"))
    assert not any(one in his for one in ids)
    assert not re.search(r"gen-[0-9a-f]{32}", his)


async def everything(office: WholeOffice, who: str) -> dict[str, Any]:
    """The answer of every GET without an id, except what moves by itself."""
    found = {}
    for route in sorted(FOR_PEOPLE - FOR_OPERATORS):
        if route.method == "GET" and "{" not in route.path:
            got = await office.ask(who, "GET", route.path)
            found[route.path] = without_id(got.json() if "json" in got.headers["content-type"] else got.text)
    return found


def without_id(answer: Any) -> Any:
    """An answer without the id of its request."""
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        return {**answer, "error": {**answer["error"], "request_id": ""}}
    return answer
