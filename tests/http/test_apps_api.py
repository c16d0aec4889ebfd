"""Apps of others: a person lets one have a key with a cap and an end, by PKCE as OpenRouter does it."""

import base64
import hashlib
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Engine, event, select

from dragonfly.infra.database import read
from dragonfly.keys.codes import CODE_LIFETIME_S, CODES_PER_ACCOUNT_MAX, is_callback
from dragonfly.keys.queries import key_by_digest
from dragonfly.keys.tables import key_codes
from dragonfly.privacy.retention import run_retention
from tests.factories import START_NS, make_account, make_peppers
from tests.http.account import Office

VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = "https://app.example.com/done?next=1"
YES = {
    "callback_url": CALLBACK,
    "code_challenge": CHALLENGE,
    "limit": "3.5",
    "expires_at": "2027-02-01T00:00:00Z",
    "key_label": "My app",
}


@pytest.fixture
def office(engine: Engine) -> Iterator[Office]:
    made = Office(engine)
    yield made
    made.threads.close()


async def code_of(office: Office, who: str = "alice") -> str:
    got = await office.ask(who, "POST", "/api/auth/keys/code", YES)
    assert got.status_code == 201
    return str(got.json()["data"]["code"])


async def exchange(office: Office, code: str, verifier: str = VERIFIER, **more: str) -> tuple[int, str]:
    body = {"code": code, "code_verifier": verifier, **more}
    got = await office.ask("nobody", "POST", "/api/auth/keys", body)
    shown = got.json()
    return got.status_code, shown["key"] if got.status_code == 200 else shown["error"]["code"]


async def test_an_app_gets_a_key_with_the_cap_and_the_end_that_the_person_chose(office: Office) -> None:
    query = f"callback_url={CALLBACK}&code_challenge={CHALLENGE}&code_challenge_method=S256"
    asked = (await office.ask("alice", "GET", f"/api/auth/app?{query.replace('?next=1', '')}")).json()
    assert (asked["host"], asked["key_label"], asked["limit_usd_suggested"]) == ("app.example.com",) * 2 + ("5",)
    made = (await office.ask("alice", "POST", "/api/auth/keys/code", YES)).json()["data"]
    redirect = urlsplit(made["redirect_url"])
    assert redirect.netloc == "app.example.com"
    assert parse_qs(redirect.query) == {"next": ["1"], "code": [made["code"]]}
    got = await office.ask("nobody", "POST", "/api/auth/keys", {"code": made["code"], "code_verifier": VERIFIER})
    assert (got.status_code, got.json()["user_id"]) == (200, office.alice)
    with read(office.engine) as connection:
        stored = key_by_digest(connection, make_peppers(), got.json()["key"].encode())
    assert stored is not None
    assert (stored.name, stored.key_group, stored.limits.spend_limit_nusd) == ("My app", "apps", 3_500_000_000)
    shown = (await office.ask("alice", "GET", f"/api/keys/{stored.id}")).json()
    assert shown["expires_at"] == "2027-02-01T00:00:00Z"


async def test_a_code_works_once(office: Office) -> None:
    code = await code_of(office)
    assert (await exchange(office, code))[0] == 200
    assert await exchange(office, code) == (403, "code_invalid")


async def test_a_wrong_verifier_uses_the_code_up(office: Office) -> None:
    code = await code_of(office)
    assert await exchange(office, code, "w" * 64) == (403, "code_invalid")
    assert await exchange(office, code) == (403, "code_invalid")


async def test_a_code_ends_after_ten_minutes(office: Office) -> None:
    early, late = await code_of(office), await code_of(office)
    office.clock.move(CODE_LIFETIME_S - 1)
    assert (await exchange(office, early))[0] == 200
    office.clock.move(1)
    assert await exchange(office, late) == (403, "code_invalid")


async def test_malformed_codes_cost_no_query_and_unknown_ones_look_the_same(office: Office) -> None:
    assert await exchange(office, "A" * 43) == (403, "code_invalid")
    statements: list[str] = []
    event.listen(office.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for code, verifier in (("short", VERIFIER), ("A" * 43, "short"), ("' OR 1=1 --", VERIFIER), ("A" * 43, "é" * 64)):
        assert await exchange(office, code, verifier) == (403, "code_invalid")
    assert not statements


@pytest.mark.parametrize("method", ["plain", "s256", ""])
async def test_only_s256_is_taken(office: Office, method: str) -> None:
    wanted = {**YES, "code_challenge_method": method}
    got = await office.ask("alice", "POST", "/api/auth/keys/code", wanted)
    assert (got.status_code, got.json()["error"]["code"]) == (400, "challenge_method_invalid")
    code = await code_of(office)
    assert await exchange(office, code, code_challenge_method=method) == (400, "challenge_method_invalid")
    assert (await exchange(office, code))[0] == 200, "nothing was used up"


@pytest.mark.parametrize(
    "change",
    [
        {"code_challenge": "short"},
        {"code_challenge": "!" * 43},
        {"limit": "0"},
        {"limit": None},
        {"expires_at": None},
        {"expires_at": "2026-11-01T00:00:00Z"},
        {"expires_at": "2028-02-01T00:00:00Z"},
        {"callback_url": "http://app.example.com/"},
        {"callback_url": "javascript:alert(1)"},
        {"key_label": "a\nb"},
    ],
)
async def test_what_an_app_may_not_ask_for_is_refused(office: Office, change: dict[str, object]) -> None:
    got = await office.ask("alice", "POST", "/api/auth/keys/code", {**YES, **change})
    assert (got.status_code, got.json()["error"]["code"]) in (
        (422, "app_request_invalid"),
        (422, "invalid_parameter"),
    )


@pytest.mark.parametrize(
    ("url", "is_right"),
    [
        ("https://app.example.com/cb", True),
        ("https://app.example.com:8443/cb?x=1", True),
        ("http://localhost:3000/cb", True),
        ("http://127.0.0.1:3000/", True),
        ("http://[::1]:3000/", True),
        ("http://app.example.com/", False),
        ("http://localhost.evil.example/", False),
        ("https://user@app.example.com/", False),
        ("https://app.example.com/#code", False),
        ("https:///cb", False),
        ("https://app.example.com:99999/", False),
        ("https://app.example.com\\@evil.example/", False),
        ("https://app.example.com/a b", False),
        ("https://app.example.com/\r\nx", False),
        ("//app.example.com/", False),
        ("data:text/html,x", False),
    ],
)
def test_a_callback_is_https_or_this_machine(url: str, is_right: bool) -> None:
    assert is_callback(url) is is_right


async def test_without_a_callback_the_person_carries_the_code(office: Office) -> None:
    got = await office.ask("alice", "POST", "/api/auth/keys/code", {**YES, "callback_url": ""})
    assert got.json()["data"]["redirect_url"] is None
    assert (await exchange(office, got.json()["data"]["code"]))[0] == 200


async def test_an_unverified_account_lets_no_app_in(office: Office) -> None:
    office.alice = make_account(office.engine, is_verified=False)
    got = await office.ask("alice", "POST", "/api/auth/keys/code", YES)
    assert (got.status_code, got.json()["error"]["code"]) == (403, "account_unverified")


async def test_open_codes_are_bounded_digests_that_go_away(office: Office) -> None:
    codes = [await code_of(office) for _ in range(CODES_PER_ACCOUNT_MAX)]
    got = await office.ask("alice", "POST", "/api/auth/keys/code", YES)
    assert (got.status_code, got.headers["retry-after"]) == (429, "600")
    with read(office.engine) as connection:
        stored = str(connection.execute(select(key_codes)).all())
    assert not any(code in stored for code in codes)
    await code_of(office, "bob")
    expired_ns = START_NS + CODE_LIFETIME_S * 10**9
    assert "key_codes" not in run_retention(office.engine, now_ns=expired_ns).deleted
    later_ns = expired_ns + CODE_LIFETIME_S * 10**9 + 1
    assert run_retention(office.engine, now_ns=later_ns).deleted["key_codes"] == CODES_PER_ACCOUNT_MAX + 1


async def test_a_repeat_of_the_yes_shows_no_code_again(office: Office) -> None:
    headers = {"idempotency-key": "one"}
    first = await office.ask("alice", "POST", "/api/auth/keys/code", YES, **headers)
    again = await office.ask("alice", "POST", "/api/auth/keys/code", YES, **headers)
    assert first.json()["data"]["code"]
    assert (again.status_code, again.json()) == (201, {"data": None})
