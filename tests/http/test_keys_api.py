"""/api/keys, /api/management-keys and /api/routing/profiles as a program sees them."""

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, select

from dragonfly.accounts.actions import freeze_account
from dragonfly.core.ids import KeyId
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import pause_key
from dragonfly.keys.management import MANAGEMENT_KEYS_PER_ACCOUNT_MAX
from dragonfly.keys.queries import key_by_digest
from dragonfly.keys.tables import management_keys
from dragonfly.mail.tables import mail_outbox
from tests.factories import START_NS, make_account, make_peppers
from tests.http.account import Office

PROFILE = {
    "name": "private",
    "rules": {"only": ["acme"], "sort": "latency", "max_price": {"prompt": "0.5"}, "data_collection": "deny"},
}


@pytest.fixture
def office(engine: Engine) -> Iterator[Office]:
    made = Office(engine)
    yield made
    made.threads.close()


async def test_its_owner_is_told_of_a_new_key_and_of_a_new_secret(office: Office) -> None:
    key = (await office.ask("alice", "POST", "/api/keys", {"name": "laptop"})).json()["id"]
    office.clock.move(1)
    turned = (await office.ask("alice", "POST", f"/api/keys/{key}/rotate", {"grace_s": 60})).json()
    office.clock.move(1)
    again = (await office.ask("alice", "POST", f"/api/keys/{key}/rotate", {"grace_s": 60})).json()
    with read(office.engine) as connection:
        rows = connection.execute(select(mail_outbox).order_by(mail_outbox.c.id)).all()
    assert [(row.kind, row.address) for row in rows] == [
        ("key_created", "alice@example.com"),
        ("key_changed", "alice@example.com"),
        ("key_changed", "alice@example.com"),
    ]
    told = [json.loads(row.details) for row in rows[1:]]
    assert [(one["name"], one["change"]) for one in told] == [("laptop", "rotated")] * 2
    assert [one["hint"] for one in told] == [turned["hint"], again["hint"]]
    assert all(turned["key"] not in row.details and again["key"] not in row.details for row in rows)


async def test_a_key_is_made_shown_once_used_and_listed(office: Office) -> None:
    wanted = {"name": "laptop", "key_group": "team-a", "limits": {"spend_usd": "5", "models": ["b/b", "a/a"]}}
    made = await office.ask("alice", "POST", "/api/keys", {**wanted, "expires_at": "2027-01-31T00:00:00+08:00"})
    assert made.status_code == 201
    shown = made.json()
    secret = shown.pop("key")
    with read(office.engine) as connection:
        stored = key_by_digest(connection, make_peppers(), secret.encode())
    assert stored is not None
    assert (stored.account_id, stored.name, stored.limits.spend_limit_nusd) == (office.alice, "laptop", 5 * 10**9)
    assert shown["id"] == secret[6:16]
    assert (shown["status"], shown["key_group"], shown["expires_at"]) == ("active", "team-a", "2027-01-30T16:00:00Z")
    assert shown["limits"] == {
        **shown["limits"],
        "spend_usd": "5",
        "spend_left_usd": "5",
        "models": ["a/a", "b/b"],
        "requests_per_minute": None,
    }
    assert shown["last_used_on"] is None
    office.use(office.alice, shown["id"])
    listed = (await office.ask("alice", "GET", "/api/keys")).json()
    assert [key["id"] for key in listed["data"]] == [shown["id"]]
    assert listed["data"][0]["last_used_on"] == "2026-11-18"
    assert listed["data"][0]["spend"]["today_usd"] == listed["data"][0]["spend"]["month_usd"] == "0.00005"
    assert secret[16:59] not in json.dumps(listed)


async def test_a_key_without_any_wish_gets_the_defaults(office: Office) -> None:
    made = await office.ask("alice", "POST", "/api/keys", {})
    assert (made.status_code, made.json()["name"], made.json()["key_group"]) == (201, "default", "")


async def test_a_key_is_changed_field_by_field(office: Office) -> None:
    key = (await office.ask("alice", "POST", "/api/keys", {"limits": {"requests_per_minute": 5}})).json()["id"]
    path = f"/api/keys/{key}"
    changed = (await office.ask("alice", "PATCH", path, {"limits": {"spend_usd": 0.25}, "name": "new"})).json()
    assert (changed["name"], changed["limits"]["spend_usd"]) == ("new", "0.25")
    assert changed["limits"]["requests_per_minute"] == 5
    changed = (await office.ask("alice", "PATCH", path, {"limits": {"spend_usd": None}})).json()
    assert changed["limits"]["spend_usd"] is None
    assert (await office.ask("alice", "PATCH", path, {"disabled": True})).json()["status"] == "disabled"
    assert (await office.ask("alice", "PATCH", path, {"disabled": False})).json()["status"] == "active"
    soon = (await office.ask("alice", "PATCH", path, {"expires_at": "2026-11-20T00:00:00Z"})).json()
    assert (soon["status"], soon["expires_at"]) == ("active", "2026-11-20T00:00:00Z")
    office.clock.move(10 * 86_400)
    assert (await office.ask("alice", "GET", path)).json()["status"] == "expired"
    revoked = await office.ask("alice", "DELETE", path)
    assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")
    assert (await office.ask("alice", "DELETE", path)).status_code == 200, "a second time changes nothing"
    again = await office.ask("alice", "PATCH", path, {"disabled": False})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "key_revoked")


async def test_every_limit_can_be_set_shown_and_lifted(office: Office) -> None:
    wanted = {
        "spend_usd": "5",
        "spend_daily_usd": "1",
        "spend_weekly_usd": "2.5",
        "spend_monthly_usd": "4",
        "requests_per_minute": 60,
        "tokens_per_minute": 10_000,
        "concurrency": 3,
        "models": ["a/a"],
        "networks": ["192.0.2.0/24"],
    }
    key = (await office.ask("alice", "POST", "/api/keys", {"limits": wanted})).json()
    assert {**key["limits"], "spend_left_usd": None} == {**wanted, "spend_left_usd": None}
    path = f"/api/keys/{key['id']}"
    for name in wanted:
        lifted = (await office.ask("alice", "PATCH", path, {"limits": {name: None}})).json()["limits"]
        assert lifted[name] is None
    assert set(lifted.values()) == {None}
    got = await office.ask("alice", "PATCH", path, {"limits": {"networks": ["everywhere"]}})
    assert (got.status_code, got.json()["error"]["code"]) == (422, "key_invalid")


async def test_a_paused_key_says_so_and_its_owner_lets_it_go_on(office: Office) -> None:
    key = (await office.ask("alice", "POST", "/api/keys", {})).json()["id"]
    with write(office.engine) as connection:
        assert pause_key(connection, KeyId(key), now_ns=START_NS)
    assert (await office.ask("alice", "GET", f"/api/keys/{key}")).json()["status"] == "paused"
    resumed = await office.ask("alice", "PATCH", f"/api/keys/{key}", {"disabled": False})
    assert resumed.json()["status"] == "active"


async def test_a_rotated_key_has_another_secret_and_the_same_id(office: Office) -> None:
    made = (await office.ask("alice", "POST", "/api/keys", {})).json()
    turned = (await office.ask("alice", "POST", f"/api/keys/{made['id']}/rotate", {"grace_s": 60})).json()
    assert turned["id"] == made["id"]
    assert turned["key"] != made["key"]
    with read(office.engine) as connection:
        older = key_by_digest(connection, make_peppers(), made["key"].encode())
        newer = key_by_digest(connection, make_peppers(), turned["key"].encode())
    assert older is not None
    assert older.secret_until_ns == START_NS + 60 * 10**9
    assert newer is not None
    assert newer.secret_until_ns is None


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "a\u0000b"},
        {"name": 5},
        {"key_group": "Team"},
        {"limits": {"spend_usd": "-1"}},
        {"limits": {"spend_usd": True}},
        {"limits": {"spend_usd": "1e3"}},
        {"limits": {"spend_usd": "1.0000000001"}},
        {"limits": {"requests_per_minute": "5"}},
        {"limits": {"requests_per_minute": -1}},
        {"limits": {"models": []}},
        {"expires_at": "tomorrow"},
        {"expires_at": "2027-01-31T00:00:00"},
        {"is_admin": True},
        {"account_id": "acc-other"},
        [],
        "text",
    ],
)
async def test_a_wrong_wish_is_refused_without_repeating_it(office: Office, body: object) -> None:
    got = await office.ask("alice", "POST", "/api/keys", body)
    assert got.status_code == 422
    assert got.json()["error"]["code"] in ("invalid_parameter", "key_invalid")


async def test_only_a_verified_account_that_is_not_frozen_gets_keys(office: Office) -> None:
    office.alice = make_account(office.engine, is_verified=False)
    for path, body in (("/api/keys", {}), ("/api/management-keys", {"name": "a", "scopes": ["keys:read"]})):
        got = await office.ask("alice", "POST", path, body)
        assert (got.status_code, got.json()["error"]["code"]) == (403, "account_unverified")
    with write(office.engine) as connection:
        freeze_account(connection, office.bob, is_frozen=True, now_ns=START_NS)
    got = await office.ask("bob", "POST", "/api/keys", {})
    assert (got.status_code, got.json()["error"]["code"]) == (403, "account_frozen")


async def test_lists_come_in_pages_that_hold_everything_once(office: Office) -> None:
    made = {(await office.ask("alice", "POST", "/api/keys", {"name": f"key {n}"})).json()["id"] for n in range(5)}
    await office.ask("bob", "POST", "/api/keys", {})
    found: list[str] = []
    cursor = ""
    while True:
        page = (await office.ask("alice", "GET", f"/api/keys?limit=2{cursor}")).json()
        assert len(page["data"]) <= 2
        found += [key["id"] for key in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(found) == 5
    assert set(found) == made


@pytest.mark.parametrize("cursor", ["a", "WyJrZXlzIl0", "WyJwcm9maWxlcyIsIngiXQ", "%00", "=" * 400, "WyJrZXlzIiwxXQ"])
async def test_a_cursor_that_is_not_of_this_list_is_refused(office: Office, cursor: str) -> None:
    got = await office.ask("alice", "GET", f"/api/keys?cursor={cursor}")
    assert got.status_code in (400, 422)


async def test_a_management_key_does_what_its_scopes_name_and_nothing_else(office: Office) -> None:
    wanted = {"name": "ci", "scopes": ["keys:read", "keys:write"]}
    made = (await office.ask("alice", "POST", "/api/management-keys", wanted)).json()
    secret = made["key"]
    assert secret.startswith("mk-df-")
    assert made["last_used_on"] is None
    own = await office.ask(secret, "POST", "/api/keys", {"name": "by a program"})
    assert own.status_code == 201
    mine = (await office.ask("alice", "GET", "/api/keys")).json()
    assert [key["name"] for key in mine["data"]] == ["by a program"]
    for method, path in (
        ("GET", "/api/usage"),
        ("GET", "/api/routing/profiles"),
        ("GET", "/api/management-keys"),
        ("POST", "/api/management-keys"),
    ):
        got = await office.ask(secret, method, path, wanted if method == "POST" else None)
        assert (got.status_code, got.json()["error"]["code"]) == (403, "forbidden"), path
    shown = (await office.ask("alice", "GET", f"/api/management-keys/{made['id']}")).json()
    assert shown["last_used_on"] == "2026-11-18"
    assert "key" not in shown
    assert (await office.ask("alice", "DELETE", f"/api/management-keys/{made['id']}")).json()["status"] == "revoked"
    assert (await office.ask(secret, "GET", "/api/keys")).status_code == 401


async def test_a_management_key_ends_on_time_and_with_its_frozen_account(office: Office) -> None:
    wanted = {"name": "ci", "scopes": ["keys:read"], "expires_at": "2026-11-20T00:00:00Z"}
    secret = (await office.ask("alice", "POST", "/api/management-keys", wanted)).json()["key"]
    assert (await office.ask(secret, "GET", "/api/keys")).status_code == 200
    for is_frozen, status in ((True, 401), (False, 200)):
        with write(office.engine) as connection:
            freeze_account(connection, office.alice, is_frozen=is_frozen, now_ns=START_NS)
        assert (await office.ask(secret, "GET", "/api/keys")).status_code == status
    office.clock.move(3 * 86_400)
    assert (await office.ask(secret, "GET", "/api/keys")).status_code == 401


async def test_a_malformed_management_key_costs_no_query(office: Office) -> None:
    made = (await office.ask("alice", "POST", "/api/management-keys", {"name": "a", "scopes": ["keys:read"]})).json()
    secret = made["key"]
    sessions = office.asked
    asked: list[str] = []
    event.listen(office.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    flipped = "b" if secret[20] == "a" else "a"
    for broken in (secret[:-1], secret[:20] + flipped + secret[21:], secret + " ", "mk-df-", "mk-df-' OR 1=1 --"):
        got = await office.ask(broken, "GET", "/api/keys")
        assert (got.status_code, got.json()["error"]["code"]) == (401, "session_invalid")
    assert not asked
    assert office.asked == sessions, "no session is looked for either"


async def test_an_api_key_opens_nothing_here_and_a_management_key_of_nobody_neither(office: Office) -> None:
    made = (await office.ask("alice", "POST", "/api/keys", {})).json()
    async with office.client(authorization=f"Bearer {made['key']}") as client:
        assert (await client.get("/api/keys")).status_code == 401
        assert (await client.get("/api/usage")).status_code == 401


async def test_the_database_holds_no_management_key(office: Office) -> None:
    made = (await office.ask("alice", "POST", "/api/management-keys", {"name": "a", "scopes": ["keys:read"]})).json()
    with read(office.engine) as connection:
        row = connection.execute(select(management_keys)).mappings().one()
    assert not any(made["key"][16:59].encode() in str(value).encode() for value in row.values())


async def test_management_keys_are_bounded(office: Office) -> None:
    wanted = {"name": "a", "scopes": ["keys:read"]}
    for _ in range(MANAGEMENT_KEYS_PER_ACCOUNT_MAX):
        assert (await office.ask("alice", "POST", "/api/management-keys", wanted)).status_code == 201
    got = await office.ask("alice", "POST", "/api/management-keys", wanted)
    assert (got.status_code, got.json()["error"]["code"]) == (409, "too_many_management_keys")


async def test_a_profile_is_made_bound_replaced_and_deleted(office: Office) -> None:
    made = await office.ask("alice", "POST", "/api/routing/profiles", PROFILE)
    assert made.status_code == 201
    profile = made.json()
    assert profile["rules"] == {
        "order": [],
        "only": ["acme"],
        "ignore": [],
        "allow_fallbacks": True,
        "sort": "latency",
        "max_price": {"prompt": "0.5", "completion": None},
        "data_collection": "deny",
        "zdr": False,
    }
    key = (await office.ask("alice", "POST", "/api/keys", {"routing_profile_id": profile["id"]})).json()
    assert key["routing_profile_id"] == profile["id"]
    path = f"/api/routing/profiles/{profile['id']}"
    bound = await office.ask("alice", "DELETE", path)
    assert (bound.status_code, bound.json()["error"]["code"]) == (409, "routing_profile_in_use")
    replaced = (await office.ask("alice", "PUT", path, {"name": "any"})).json()
    assert (replaced["name"], replaced["rules"]["only"]) == ("any", [])
    await office.ask("alice", "PATCH", f"/api/keys/{key['id']}", {"routing_profile_id": None})
    assert (await office.ask("alice", "DELETE", path)).json() == {"id": profile["id"], "deleted": True}
    assert (await office.ask("alice", "GET", path)).status_code == 404
    assert (await office.ask("alice", "GET", "/api/routing/profiles")).json() == {"data": [], "next_cursor": None}


async def test_nobody_sees_or_touches_what_belongs_to_somebody_else(office: Office) -> None:
    key = (await office.ask("alice", "POST", "/api/keys", {})).json()["id"]
    profile = (await office.ask("alice", "POST", "/api/routing/profiles", PROFILE)).json()["id"]
    for method, path, body in (
        ("GET", f"/api/keys/{key}", None),
        ("PATCH", f"/api/keys/{key}", {"name": "mine"}),
        ("DELETE", f"/api/keys/{key}", None),
        ("POST", f"/api/keys/{key}/rotate", {}),
        ("POST", "/api/keys", {"routing_profile_id": profile}),
        ("GET", f"/api/routing/profiles/{profile}", None),
        ("PUT", f"/api/routing/profiles/{profile}", PROFILE),
        ("DELETE", f"/api/routing/profiles/{profile}", None),
    ):
        got = await office.ask("bob", method, path, body)
        assert got.status_code == 404, path
        assert got.json()["error"]["code"] in ("key_not_found", "routing_profile_not_found")
    assert (await office.ask("bob", "GET", "/api/keys")).json()["data"] == []
