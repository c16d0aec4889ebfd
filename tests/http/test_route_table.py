"""Every route, who may use it, and that nobody else can. A route that is not in the table fails."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dragonfly.keys.management import Scope
from tests.factories import make_database
from tests.http.whole import Route, WholeOffice

EVERYBODY = """
GET /healthz
GET /readyz
GET /api/announcements
GET /api/auth/providers
POST /api/auth/email/confirm
POST /api/auth/keys
POST /api/auth/password-reset
POST /api/auth/password-reset/confirm
POST /api/auth/refresh
POST /api/auth/register
POST /api/auth/second-factor
POST /api/auth/set-up
POST /api/auth/sign-in
POST /api/auth/verification
POST /api/auth/verify
POST /api/auth/{provider}/begin
POST /api/auth/{provider}/finish
GET /api/mail/unsubscribe
POST /api/mail/unsubscribe
POST /api/support
GET /api/data-requests/download
POST /api/data-requests/keep
"""
"""Needs no session. Whatever is secret behind these needs a proof of its own in the request."""

PAGES = """
GET /
GET /assets/{version}/{name}
GET /auth
GET /auth/callback/{provider}
GET /confirm-email
GET /dashboard
GET /dashboard/keys
GET /dashboard/privacy
GET /dashboard/settings
GET /dashboard/support
GET /dashboard/usage
GET /dashboard/wallet
GET /keep-account
GET /operator
GET /operator/data-requests
GET /operator/tickets
GET /privacy
GET /privacy/status
GET /privacy/audit
GET /reset-password
GET /set-up
GET /sign-in
GET /sign-out
GET /sign-up
GET /stats
GET /support
GET /terms
GET /verify-email
GET /wallet/receipts/{topup_id}
GET /wallet/topups/{topup_id}
"""
"""For browsers; the OpenAPI document does not tell of them."""

PEOPLE = """
POST /api/auth/sign-out
GET /api/auth/app
POST /api/auth/keys/code
GET /api/data-requests
POST /api/data-requests
GET /api/data-requests/{request_id}
POST /api/data-requests/{request_id}/cancel
POST /api/data-requests/{request_id}/link
GET /api/management-keys
POST /api/management-keys
GET /api/management-keys/{key_id}
DELETE /api/management-keys/{key_id}
GET /api/me
PATCH /api/me
POST /api/me/email
GET /api/me/identities
POST /api/me/identities/{provider}
DELETE /api/me/identities/{provider}
POST /api/me/password
POST /api/me/second-factor
POST /api/me/second-factor/confirm
POST /api/me/second-factor/remove
GET /api/me/sessions
DELETE /api/me/sessions
DELETE /api/me/sessions/{session_id}
PUT /api/limits
GET /api/preferences
PATCH /api/preferences
GET /api/support/tickets
POST /api/support/tickets
GET /api/support/tickets/{ticket_id}
POST /api/support/tickets/{ticket_id}/messages
POST /api/support/tickets/{ticket_id}/close
POST /api/wallet/codes
POST /api/wallet/topups
POST /api/wallet/topups/{topup_id}/check
POST /api/wallet/topups/{topup_id}/receipt-link
GET /api/wallet/billing
PUT /api/wallet/billing
GET /api/wallet/refunds
POST /api/wallet/refunds
GET /api/wallet/auto-recharge
PUT /api/wallet/auto-recharge
DELETE /api/wallet/auto-recharge
"""
"""Needs a person who is signed in; management keys are refused."""

KEYS_TOO = {
    Scope.KEYS_READ: """
GET /api/keys
GET /api/keys/{key_id}
""",
    Scope.KEYS_WRITE: """
POST /api/keys
PATCH /api/keys/{key_id}
DELETE /api/keys/{key_id}
POST /api/keys/{key_id}/rotate
""",
    Scope.ROUTING_READ: """
GET /api/routing/profiles
GET /api/routing/profiles/{profile_id}
""",
    Scope.ROUTING_WRITE: """
POST /api/routing/profiles
PUT /api/routing/profiles/{profile_id}
DELETE /api/routing/profiles/{profile_id}
""",
    Scope.USAGE_READ: """
GET /api/usage
GET /api/usage/totals
GET /api/usage/export.csv
GET /api/activity
""",
    Scope.WALLET_READ: """
GET /api/limits
GET /api/statements
GET /api/statements/{month}
GET /api/statements/{month}.csv
GET /api/wallet
GET /api/wallet/lots
GET /api/wallet/transactions
GET /api/wallet/topups
GET /api/wallet/topups/{topup_id}
GET /api/wallet/topups/{topup_id}/receipt
GET /api/wallet/topups/{topup_id}/receipt.html
""",
}
"""Needs a person, or a management key with this scope."""

OPERATORS = """
GET /api/admin/accounts
GET /api/admin/accounts/{account_id}
GET /api/admin/accounts/{account_id}/keys
GET /api/admin/accounts/{account_id}/limits
PUT /api/admin/accounts/{account_id}/limits
POST /api/admin/accounts/{account_id}/credit
POST /api/admin/accounts/{account_id}/freeze
POST /api/admin/accounts/{account_id}/unfreeze
GET /api/admin/audit
GET /api/admin/audit/proof
GET /api/admin/channels
POST /api/admin/channels/pause
POST /api/admin/channels/resume
GET /api/admin/keys/{key_id}
POST /api/admin/keys/{key_id}/disable
POST /api/admin/keys/{key_id}/enable
POST /api/admin/keys/{key_id}/revoke
GET /api/admin/statistics
GET /api/admin/tickets
GET /api/admin/tickets/{ticket_id}
POST /api/admin/tickets/{ticket_id}/replies
POST /api/admin/tickets/{ticket_id}/close
GET /api/admin/data-requests
POST /api/admin/data-requests
GET /api/admin/data-requests/{request_id}
POST /api/admin/data-requests/{request_id}/approve
POST /api/admin/data-requests/{request_id}/refuse
POST /api/admin/data-requests/{request_id}/cancel
POST /api/admin/data-requests/{request_id}/give-up-balance
POST /api/admin/data-requests/{request_id}/note
POST /api/admin/announcements
POST /api/admin/announcements/{announcement_id}/withdraw
GET /api/admin/payments/topups
GET /api/admin/payments/refunds
POST /api/admin/payments/refunds/{refund_id}
GET /api/admin/payments/disputes
POST /api/admin/payments/accounts/{account_id}/unfreeze/{cause}
GET /api/admin/payments/events
POST /api/admin/payments/events/{event_id}/resend
POST /api/admin/payments/codes
GET /api/admin/payments/codes
DELETE /api/admin/payments/codes/{batch_id}
POST /api/admin/payments/grants
GET /api/admin/payments/comparison
POST /api/admin/payments/repair
GET /api/admin/payments/margins
"""
"""Needs an operator whose session has a second factor."""


def listed(table: str) -> set[Route]:
    return {Route(*line.split()) for line in table.splitlines() if line}


SCOPED = {route: scope for scope, table in KEYS_TOO.items() for route in listed(table)}
FOR_OPERATORS = listed(OPERATORS)
FOR_PEOPLE = listed(PEOPLE) | set(SCOPED) | FOR_OPERATORS
ALL = listed(EVERYBODY) | FOR_PEOPLE


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[WholeOffice]:
    engine: Engine = make_database(tmp_path)
    made = WholeOffice(engine, tmp_path)
    yield made
    made.threads.close()
    await made.served.stops[-1].run()


async def status_of(office: WholeOffice, who: str, route: Route) -> int:
    return (await answer_of(office, who, route)).status_code


async def answer_of(office: WholeOffice, who: str, route: Route) -> httpx.Response:
    path = route.path
    more = ("topup_id", "refund_id", "cause", "event_id", "batch_id", "month")
    for name in (
        "key_id",
        "profile_id",
        "session_id",
        "account_id",
        "announcement_id",
        "ticket_id",
        "request_id",
        "provider",
        *more,
    ):
        path = path.replace(f"{{{name}}}", "none")
    assert "{" not in path, "a parameter of a path that this test does not know"
    body = None if route.method in ("GET", "DELETE") else {}
    async with office.client(**_proof(who)) as client:
        return await client.request(route.method, path, json=body)


def _proof(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {who}"} if who.startswith(("mk-df-", "sk-df-")) else {"x-person": who}


async def test_every_route_is_in_the_table_and_none_is_left_over(office: WholeOffice) -> None:
    assert office.routes - ALL == listed(PAGES)
    assert office.routes > ALL
    described = {
        Route(method.upper(), path)
        for path, operations in office.document["paths"].items()
        if not path.startswith("/v1/")
        for method in operations
    }
    assert described == ALL, "and all of it is described"


ASSET = re.compile(r"/(assets|static)/")
TRICKS = ("/api/me/a.css", "/api/me;a.js", "/api/me%2fa.png", "//api/me", "/api/me/..%2fassets", "/assets/none.css")
"""Paths with which a CDN could be made to take a private answer for a file."""


@pytest.mark.parametrize("who", ["nobody", "alice", "charlie"])
async def test_no_cache_may_keep_an_answer_of_any_route_and_none_sets_a_cookie(office: WholeOffice, who: str) -> None:
    routes = sorted(route for route in office.routes if not ASSET.match(route.path))
    assert len(routes) > len(ALL)
    for route in [*routes, *(Route("GET", path) for path in TRICKS)]:
        got = await answer_of(office, who, route)
        assert "no-store" in got.headers["cache-control"], route
        assert "set-cookie" not in got.headers, route


async def test_strangers_are_sent_away_from_all_that_needs_a_session(office: WholeOffice) -> None:
    found = {route: await status_of(office, "nobody", route) for route in FOR_PEOPLE}
    assert {str(route): status for route, status in found.items() if status != 401} == {}


async def test_nobody_needs_a_session_for_what_is_open_to_everybody(office: WholeOffice) -> None:
    for route in listed(EVERYBODY):
        async with office.client() as client:
            path = route.path.replace("{provider}", "none")
            got = await client.request(route.method, path, json=None if route.method == "GET" else {})
        assert "session_invalid" not in got.text, route
        assert got.status_code != 500, route


@pytest.mark.parametrize("who", ["alice", "charlie without a second factor"])
async def test_only_operators_with_a_second_factor_get_to_their_routes(office: WholeOffice, who: str) -> None:
    found = {route: await status_of(office, who, route) for route in FOR_OPERATORS}
    assert {str(route): status for route, status in found.items() if status != 403} == {}
    reached = {route: await status_of(office, "charlie", route) for route in FOR_OPERATORS}
    assert not {str(route) for route, status in reached.items() if status in (401, 403, 500)}


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_management_key_gets_to_the_routes_of_its_scope_only(office: WholeOffice, scope: Scope) -> None:
    made = await office.ask("alice", "POST", "/api/management-keys", {"name": "a", "scopes": [scope.value]})
    secret = made.json()["key"]
    for route in sorted(FOR_PEOPLE):
        status = await status_of(office, secret, route)
        if SCOPED.get(route) is scope:
            assert status not in (401, 403, 500), route
        else:
            assert status == 403, route


async def test_the_key_of_an_app_calls_models_and_gets_to_nothing_under_api(office: WholeOffice) -> None:
    secret = (await office.ask("alice", "POST", "/api/keys", {"key_group": "apps"})).json()["key"]
    found = {route: await status_of(office, secret, route) for route in sorted(FOR_PEOPLE)}
    assert {str(route): status for route, status in found.items() if status != 401} == {}
