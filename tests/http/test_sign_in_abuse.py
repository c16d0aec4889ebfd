"""Guessing passwords is slow, and nobody can use that to keep an owner out; addresses cannot be told apart."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, func, select

from dragonfly.accounts.passwords import Passwords, SignInBusy
from dragonfly.accounts.tables import people
from dragonfly.core.credentials import Seal
from dragonfly.infra.database import read
from dragonfly.mail.tables import mail_outbox
from tests.factories import PEPPER, MovableClock, make_database
from tests.http.people import CONSENT, PASSWORD, Site, settings_for, site_on
from tests.http.test_sessions import counted_statements

ALICE, NOBODY = "alice@example.com", "nobody@example.com"
WRONG = "not the passphrase"


@pytest.fixture
async def site(tmp_path: Path, clock: MovableClock) -> AsyncIterator[Site]:
    """On SQLite: budgets are in memory."""
    engine = make_database(tmp_path)
    async with site_on(engine, clock) as made:
        yield made
    engine.dispose()


@pytest.fixture
async def any_site(engine: Engine, clock: MovableClock) -> AsyncIterator[Site]:
    """On either database."""
    async with site_on(engine, clock) as made:
        yield made


async def test_a_network_guesses_ten_times_and_waits(site: Site) -> None:
    await site.browser().join(ALICE)
    thief = site.browser("198.51.100.66")
    answers = [await thief.sign_in(ALICE, WRONG) for _ in range(11)]
    assert [one.status_code for one in answers] == [401] * 10 + [429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 90
    site.clock.move(90)
    assert (await thief.sign_in(ALICE, WRONG)).status_code == 401


async def test_guesses_for_unknown_addresses_are_counted_alike(site: Site) -> None:
    thief = site.browser("198.51.100.66")
    assert [(await thief.sign_in(NOBODY, WRONG)).status_code for _ in range(11)] == [401] * 10 + [429]


async def test_a_network_that_guesses_at_many_addresses_waits_too(site: Site) -> None:
    thief = site.browser("2001:db8::1")
    statuses = []
    for number in range(70):
        thief.ip = f"2001:db8::{number:x}"
        site.clock.move(0.9)
        statuses.append((await thief.sign_in(f"person{number}@example.com", WRONG)).status_code)
    assert statuses[:60] == [401] * 60
    assert 429 in statuses


async def test_the_owner_signs_in_while_others_guess(site: Site) -> None:
    alice = await site.browser("203.0.113.7").join(ALICE)
    for network in range(11):
        thief = site.browser(f"198.51.100.{network}")
        for _ in range(10):
            await thief.sign_in(ALICE, WRONG)
    assert (await site.browser("198.51.100.99").sign_in(ALICE, WRONG)).status_code == 429
    assert (await alice.sign_in(ALICE)).status_code == 200
    telephone = site.browser("203.0.113.8")
    assert (await telephone.sign_in(ALICE)).status_code == 429
    await telephone.post("/api/auth/password-reset", email=ALICE)
    reset = await telephone.post("/api/auth/password-reset/confirm", token=site.link_to(ALICE), password=PASSWORD)
    assert telephone.keep(reset).status_code == 200
    assert (await telephone.get("/api/me")).status_code == 200


async def test_the_right_password_uses_nothing_up(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    for _ in range(25):
        assert (await alice.sign_in(ALICE)).status_code == 200


async def test_unknown_and_known_addresses_cost_the_same_queries_and_one_hash_each(any_site: Site) -> None:
    await any_site.browser().join(ALICE)
    thief = any_site.browser("198.51.100.66")
    hashed: list[str | None] = []
    verify = any_site.parts.passwords._verify

    def counting(stored: str, password: str) -> bool:
        hashed.append(stored)
        return verify(stored, password)

    any_site.parts.passwords._verify = counting  # type: ignore[method-assign]
    sent = {}
    for address in (ALICE, NOBODY):
        with counted_statements(any_site.engine) as statements:
            assert (await thief.sign_in(address, WRONG)).status_code == 401
        sent[address] = list(statements)
    assert sent[ALICE] == sent[NOBODY]
    assert len(hashed) == 2
    parameters = {stored.partition("$")[2].rsplit("$", 2)[0] for stored in hashed if stored}
    assert len(parameters) == 1, "the hash that nobody has costs what others cost"


async def test_every_anonymous_route_has_a_limit(site: Site) -> None:
    described = (await site.browser("203.0.113.99").get("/openapi.json")).json()
    anonymous = [
        (method.upper(), path)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
        if path.startswith("/api/auth/") and not operation.get("security")
    ]
    assert len(anonymous) >= 10
    for number, (method, path) in enumerate(anonymous):
        browser = site.browser(f"198.51.100.{number}")
        body = {"email": "x", "token": "x", "ticket": "x", "code": "x", "state": "x", "refresh_token": "x"}
        wanted = fields_of(described, described["paths"][path][method.lower()])
        sent = {name: {**body, **CONSENT, "password": PASSWORD}[name] for name in wanted}
        answers = [
            await browser.send(method, path.replace("{provider}", "google"), sent if method == "POST" else None)
            for _ in range(61)
        ]
        assert answers[-1].status_code == 429, f"{method} {path}"
        assert answers[-1].json()["error"]["code"] == "too_many_attempts"


def fields_of(described: dict[str, object], operation: dict[str, object]) -> list[str]:
    """The required fields of an operation's body."""
    body = operation.get("requestBody")
    if not isinstance(body, dict):
        return []
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    components = described["components"]
    assert isinstance(components, dict)
    return list(components["schemas"][name].get("required", []))


async def test_headers_of_strangers_do_not_give_them_another_address(site: Site) -> None:
    thief = site.browser("198.51.100.66")
    statuses = []
    for number in range(11):
        thief.ip = f"203.0.113.{number}, 198.51.100.66"
        answer = await thief.send(
            "POST",
            "/api/auth/sign-in",
            {"email": ALICE, "password": WRONG},
            **{"CF-Connecting-IP": f"203.0.113.{number}"},
        )
        statuses.append(answer.status_code)
    assert statuses == [401] * 10 + [429]


@pytest.mark.parametrize(
    "address",
    [
        "ALICE@EXAMPLE.COM",
        "Alice@example.Com",
        "alice@example.com ",
        " alice@example.com",
        "alice@example.com\u200b",
        "alice@example.com.",
        "\uff41lice@example.com",
        "alice@ex\u00e4mple.com",
        "al\u0131ce@example.com",
        "alice@example\u3002com",
        "alice@\u212aexample.com",
        "alice@example.com\x00",
        "alice@example.com,bob@example.com",
        "Alice <alice@example.com>",
        '"alice"@example.com',
        "alice(comment)@example.com",
        "alice@[192.0.2.1]",
        "alice%40example.com@example.org\r\nBcc: bob@example.com",
    ],
)
async def test_other_spellings_of_an_address_give_no_second_account_and_no_mail_elsewhere(
    site: Site, address: str
) -> None:
    await site.browser().join(ALICE)
    answer = await site.browser("198.51.100.66").register(address)
    if address.lower() == ALICE:
        assert answer.status_code == 202
        assert site.mails(ALICE)[-1]["kind"] == "account_exists"
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "registration_invalid")
    with read(site.engine) as connection:
        assert connection.execute(select(func.count()).select_from(people)).scalar_one() == 1
        addresses = set(connection.execute(select(mail_outbox.c.address)).scalars())
    assert addresses == {ALICE}
    signed_in = await site.browser("198.51.100.67").sign_in(address)
    assert (signed_in.status_code == 200) == (address.lower() == ALICE)


async def test_answers_that_could_tell_by_their_time_come_at_whole_steps(engine: Engine, clock: MovableClock) -> None:
    settings = settings_for()
    even = settings.accounts.model_copy(update={"even_answers_ms": 50})
    async with site_on(engine, clock, settings.model_copy(update={"accounts": even})) as made:
        await made.browser().join(ALICE)
        for path in ("password-reset", "verification"):
            for address in (ALICE, NOBODY):
                assert (await made.browser().post(f"/api/auth/{path}", email=address)).status_code == 202


async def test_two_registrations_at_once_make_one_account(any_site: Site) -> None:
    browsers = [any_site.browser(f"203.0.113.{number}") for number in range(4)]
    answers = await asyncio.gather(*(browser.register(ALICE) for browser in browsers))
    assert {one.status_code for one in answers} == {202}
    with read(any_site.engine) as connection:
        assert connection.execute(select(func.count()).select_from(people)).scalar_one() == 1


async def test_two_refreshes_at_once_give_one_pair(any_site: Site) -> None:
    alice = await any_site.browser().join(ALICE)
    token = alice.tokens["refresh_token"]

    async def refreshed() -> httpx.Response:
        return await alice.send("POST", "/api/auth/refresh", {"refresh_token": token})

    answers = await asyncio.gather(*(refreshed() for _ in range(4)))
    good = [one.json()["refresh_token"] for one in answers if one.status_code == 200]
    assert len(set(good)) == 1
    assert len(good) == 4, "a double click does not end a session"


async def test_passwords_are_checked_by_few_threads_with_a_bounded_queue() -> None:
    passwords = Passwords(Seal({1: PEPPER}), memory_kib=8_192, threads=1, waiting_max=3)
    waiting = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(SignInBusy):
        await passwords.hash(PASSWORD)
    hashes = await asyncio.gather(*waiting)
    assert len(set(hashes)) == 3
    assert await passwords.verify(hashes[0], PASSWORD)
    assert not await passwords.verify(hashes[0], WRONG)
    assert not await passwords.verify(None, PASSWORD)
    assert not await passwords.verify("2$argon2id$nonsense", PASSWORD)
    assert not passwords.needs_rehash(hashes[0])
    dearer = Passwords(Seal({1: PEPPER, 2: PEPPER[::-1]}), memory_kib=16_384)
    assert await dearer.verify(hashes[0], PASSWORD)
    assert dearer.needs_rehash(hashes[0])
    for one in (passwords, dearer):
        one.close()
