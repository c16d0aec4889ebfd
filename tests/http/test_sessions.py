"""Sessions: what a stolen token is worth, how long each lives, and how fast it dies everywhere."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event, select

from dragonfly.accounts.sessions import (
    ACCESS_LIFETIME_S,
    GRACE_S,
    IDLE_S,
    LIFETIME_S,
    SESSIONS_PER_ACCOUNT_MAX,
    Browser,
    begin_session,
)
from dragonfly.accounts.tables import sessions
from dragonfly.core.credentials import Seal, TokenKind
from dragonfly.infra.changes import changes_since, current_revision
from dragonfly.infra.database import read, write
from tests.factories import MovableClock
from tests.http.people import PASSWORD, Site, site_on

ALICE, BOB = "alice@example.com", "bob@example.com"


@pytest.fixture
async def site(engine: Engine, clock: MovableClock) -> AsyncIterator[Site]:
    async with site_on(engine, clock) as made:
        yield made


@contextmanager
def counted_statements(engine: Engine) -> Iterator[list[str]]:
    """What is sent to the database inside the block."""
    sent: list[str] = []

    def note(*arguments: object) -> None:
        sent.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_a_token_without_its_browsers_key_is_worth_nothing(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    thief = site.browser()
    thief.tokens = dict(alice.tokens)
    assert (await thief.get("/api/me")).json()["error"]["code"] == "session_invalid"
    stolen = alice.tokens["refresh_token"]
    assert (await thief.refresh(stolen)).status_code == 401
    bearer = {"Authorization": f"Bearer {alice.tokens['access_token']}"}
    assert (await alice.send("GET", "/api/me", **bearer)).status_code == 401
    assert (await alice.get("/api/me")).status_code == 200


async def test_a_proof_is_good_for_one_request_and_for_its_own_token(site: Site) -> None:
    alice, bob = await site.browser().join(ALICE), await site.browser().join(BOB)
    token = alice.tokens["access_token"]
    good = alice.proof("GET", "/api/me", token)
    assert (await alice.send("GET", "/api/me", DPoP=good)).status_code == 200
    wrong = {
        "replayed": good,
        "for another path": alice.proof("GET", "/api/me/sessions", token),
        "for another method": alice.proof("POST", "/api/me", token),
        "for another token": alice.proof("GET", "/api/me", bob.tokens["access_token"]),
        "for no token": alice.proof("GET", "/api/me"),
        "of another key": bob.proof("GET", "/api/me", token),
        "late": alice.proof("GET", "/api/me", token, iat=site.clock.now_ns() // 10**9 - 61),
    }
    for name, proof in wrong.items():
        assert (await alice.send("GET", "/api/me", DPoP=proof)).status_code == 401, name


async def test_what_was_not_issued_here_causes_no_query(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    good = alice.tokens["access_token"]
    forged = Seal({1: b"another pepper, thirty-two bytes at least"}).new_token(TokenKind.ACCESS).reveal()
    tokens = [
        "",
        "x",
        good[:-1],
        good + "x",
        good.swapcase(),
        forged,
        good.replace("df-at-", "df-rt-"),
        alice.tokens["refresh_token"],
        "' OR 1=1 --",
    ]
    with counted_statements(site.engine) as sent:
        for token in tokens:
            proof = alice.proof("GET", "/api/me", token)
            answer = await alice.send("GET", "/api/me", Authorization=f"DPoP {token}".strip(), DPoP=proof)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "session_invalid")
        assert (await alice.send("GET", "/api/me", DPoP="x.y.z")).status_code == 401
        for path, body in {
            "/api/auth/refresh": {"refresh_token": forged},
            "/api/auth/verify": {"token": forged},
            "/api/auth/password-reset/confirm": {"token": forged, "password": PASSWORD},
            "/api/auth/email/confirm": {"token": forged},
            "/api/auth/set-up": {"token": forged, "password": PASSWORD},
            "/api/auth/second-factor": {"ticket": forged, "code": "123456"},
        }.items():
            assert (await alice.send("POST", path, body)).status_code in (400, 401)
    assert not sent


async def test_an_access_token_lives_ten_minutes_and_is_renewed(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    site.clock.move(ACCESS_LIFETIME_S - 1)
    assert (await alice.get("/api/me")).status_code == 200
    site.clock.move(1)
    assert (await alice.get("/api/me")).status_code == 401
    assert (await alice.refresh()).status_code == 200
    assert (await alice.get("/api/me")).status_code == 200


async def test_a_browser_whose_answer_was_lost_gets_the_same_pair_again(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    first = alice.tokens["refresh_token"]
    second = (await alice.refresh(first)).json()
    site.clock.move(GRACE_S - 1)
    again = (await alice.refresh(first)).json()
    assert again == second
    assert (await alice.refresh(second["refresh_token"])).status_code == 200


async def test_an_old_refresh_token_means_a_copy_and_ends_the_session(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    first = alice.tokens["refresh_token"]
    await alice.refresh()
    await alice.refresh()
    current = dict(alice.tokens)
    assert (await alice.refresh(first)).status_code == 401
    alice.tokens = current
    assert (await alice.get("/api/me")).status_code == 401
    assert (await alice.refresh()).status_code == 401
    with read(site.engine) as connection:
        assert connection.execute(select(sessions.c.end_reason)).scalar_one() == "reused"


async def test_the_token_before_serves_requests_under_way_and_no_longer(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    before = alice.tokens["access_token"]
    await alice.refresh()
    alice.tokens["access_token"] = before
    assert (await alice.get("/api/me")).status_code == 200
    site.clock.move(GRACE_S)
    assert (await alice.get("/api/me")).status_code == 401


async def test_a_session_ends_when_it_is_idle_and_after_ninety_days(site: Site) -> None:
    alice, bob = await site.browser().join(ALICE), await site.browser().join(BOB)
    for _ in range(LIFETIME_S // (IDLE_S - 10)):
        site.clock.move(IDLE_S - 10)
        assert (await alice.refresh()).status_code == 200
    assert (await bob.refresh()).status_code == 401
    site.clock.move(IDLE_S - 10)
    assert (await alice.refresh()).status_code == 401


async def test_alice_sees_her_sessions_and_ends_them(site: Site) -> None:
    desk = await site.browser("203.0.113.7").join(ALICE)
    telephone = site.browser("2001:db8::1")
    await telephone.sign_in(ALICE)
    shown = (await desk.get("/api/me/sessions")).json()["data"]
    assert [(one["ip"], one["current"], one["device"]) for one in shown] == [
        ("2001:db8::1", False, "Mozilla/5.0 (Test)"),
        ("203.0.113.7", True, "Mozilla/5.0 (Test)"),
    ]
    bob = await site.browser().join(BOB)
    for browser, status in ((bob, 404), (desk, 200)):
        assert (await browser.send("DELETE", f"/api/me/sessions/{shown[0]['id']}")).status_code == status
    assert (await telephone.get("/api/me")).status_code == 401
    assert (await desk.get("/api/me")).status_code == 200


async def test_signing_out_here_and_everywhere(site: Site) -> None:
    desk = await site.browser().join(ALICE)
    telephone = site.browser()
    await telephone.sign_in(ALICE)
    assert (await telephone.send("POST", "/api/auth/sign-out")).status_code == 200
    assert (await telephone.get("/api/me")).status_code == 401
    await telephone.sign_in(ALICE)
    await desk.post("/api/auth/password-reset", email=ALICE)
    assert (await desk.send("DELETE", "/api/me/sessions")).json() == {"ended": 2}
    for browser in (desk, telephone):
        assert (await browser.get("/api/me")).status_code == 401
        assert (await browser.refresh()).status_code == 401
    reset = await desk.post(
        "/api/auth/password-reset/confirm", token=site.link_to(ALICE), password="a new passphrase"
    )
    assert reset.json()["error"]["code"] == "link_invalid"


async def test_a_session_that_ends_is_refused_by_every_worker_at_once(
    site: Site, engine: Engine, clock: MovableClock
) -> None:
    alice = await site.browser().join(ALICE)
    async with site_on(engine, clock) as another_worker:
        there = another_worker.browser()
        there.key, there.tokens = alice.key, dict(alice.tokens)
        assert (await there.get("/api/me")).status_code == 200
        with read(engine) as connection:
            before = current_revision(connection)
        await alice.send("POST", "/api/auth/sign-out")
        assert (await there.get("/api/me")).status_code == 401
    with read(engine) as connection:
        assert changes_since(connection, before).subjects == (f"session/{alice.tokens['session_id']}",)


async def test_of_too_many_sessions_the_oldest_ends(site: Site) -> None:
    first = await site.browser().join(ALICE)
    account_id, stranger = site.account_of(ALICE).id, Browser("key", "", "203.0.113.9")

    def begin_many(count: int) -> None:
        with write(site.engine) as connection:
            for _ in range(count):
                begin_session(
                    connection,
                    site.tools.seal,
                    site.ids,
                    account_id,
                    stranger,
                    has_second_factor=False,
                    now_ns=site.clock.now_ns() + 1,
                )

    begin_many(SESSIONS_PER_ACCOUNT_MAX - 1)
    assert (await first.get("/api/me")).status_code == 200
    begin_many(1)
    assert (await first.get("/api/me")).status_code == 401


async def test_a_new_browser_is_told_by_mail_and_a_known_one_is_not(site: Site) -> None:
    desk = await site.browser().join(ALICE)
    await desk.sign_in(ALICE)
    assert not site.mails(ALICE, "new_sign_in")
    await site.browser("198.51.100.4").sign_in(ALICE)
    (mail,) = site.mails(ALICE, "new_sign_in")
    assert (mail["ip"], mail["device"]) == ("198.51.100.4", "Mozilla/5.0 (Test)")


async def test_alice_changes_her_name_and_language_and_nothing_else(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    changed = (await alice.send("PATCH", "/api/me", {"name": "Alice B.", "language": "zh"})).json()
    assert (changed["name"], changed["language"], changed["email"]) == ("Alice B.", "zh", ALICE)
    for body in ({"role": "operator"}, {"email": BOB}, {"email_verified": True}, {"language": "fr"}, {"name": 5}):
        assert (await alice.send("PATCH", "/api/me", body)).status_code == 422
    assert (await alice.send("PATCH", "/api/me", {"name": "line\nbreak"})).json()["error"]["code"] == "name_invalid"
    assert (await alice.get("/api/me")).json() == changed


async def test_the_database_holds_nothing_that_could_be_used(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    authenticator = await alice.enrol()
    await alice.refresh()
    ticket = (await site.browser().sign_in(ALICE)).json()["ticket"]
    await alice.post("/api/auth/password-reset", email=ALICE)
    secrets = [
        PASSWORD,
        alice.tokens["access_token"],
        alice.tokens["refresh_token"],
        ticket,
        authenticator.secret,
        *authenticator.recovery_codes,
        *(code.replace("-", "") for code in authenticator.recovery_codes),
    ]
    dump = dump_of(site.engine, without="mail_outbox")
    assert len(dump) > 1_000
    assert not [secret for secret in [*secrets, site.link_to(ALICE)] if secret.encode() in dump]


def dump_of(engine: Engine, *, without: str) -> bytes:
    """Every value of every table but one: that of mails that wait, which is emptied as they are sent."""
    from_tables = sessions.metadata.sorted_tables
    with read(engine) as connection:
        rows = [row for table in from_tables if table.name != without for row in connection.execute(select(table))]
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)
