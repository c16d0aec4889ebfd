"""From a form to a verified address with trial credit; what strangers can and cannot learn or do on the way."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Engine, select

from dragonfly.accounts.people import sign_up_risk
from dragonfly.accounts.rules import RiskReason
from dragonfly.accounts.tables import consents
from dragonfly.infra.database import read
from tests.factories import MovableClock
from tests.http.people import CONSENT, PASSWORD, Site, settings_for, site_on

ALICE, BOB = "alice@example.com", "bob@example.com"
TRIAL_NUSD = 100_000_000


@pytest.fixture
async def site(engine: Engine, clock: MovableClock) -> AsyncIterator[Site]:
    async with site_on(engine, clock) as made:
        yield made


async def test_alice_registers_verifies_and_has_her_trial_credit(site: Site) -> None:
    browser = site.browser()
    assert (await browser.register("Alice@Example.com", name="Alice", language="zh-CN")).status_code == 202
    assert site.account_of(ALICE).verified_at_ns is None
    verified = await browser.post("/api/auth/verify", token=site.link_to("Alice@Example.com"))
    assert (verified.status_code, verified.json()) == (200, {"status": "ok"})
    assert site.account_of(ALICE).verified_at_ns == site.clock.now_ns()
    assert site.credit_of(ALICE) == TRIAL_NUSD
    assert (await browser.sign_in("aLICE@example.com")).status_code == 200
    me = (await browser.get("/api/me")).json()
    assert (me["email"], me["email_verified"], me["name"]) == ("Alice@Example.com", True, "Alice")
    assert (me["language"], me["role"], me["second_factor"]) == ("zh", "customer", False)


async def test_what_was_accepted_is_written_down(site: Site) -> None:
    await site.browser().register(ALICE)
    with read(site.engine) as connection:
        row = connection.execute(select(consents)).one()
    assert (row.terms_version, row.policy_version, row.is_adult) == ("2026-03-08", "2026-03-08", 1)
    assert row.accepted_at_ns == site.clock.now_ns()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"adult": False}, "consent_needed"),
        ({"terms_version": "2020-01-01"}, "consent_needed"),
        ({"policy_version": "2020-01-01"}, "consent_needed"),
        ({"email": "alice"}, "registration_invalid"),
        ({"email": "alice@example.com\r\nBcc: everybody@example.com"}, "registration_invalid"),
        ({"name": "A\u202elice"}, "registration_invalid"),
        ({"password": "short"}, "password_weak"),
        ({"password": "password123"}, "password_weak"),
        ({"password": "aaaaaaaaaaaaaaaa"}, "password_weak"),
        ({"password": ALICE}, "password_weak"),
        ({"is_admin": True}, "invalid_parameter"),
        ({"adult": "true"}, "invalid_parameter"),
    ],
)
async def test_a_registration_that_is_not_right_is_refused(site: Site, change: dict[str, object], code: str) -> None:
    body = {"email": ALICE, "password": PASSWORD, **CONSENT, **change}
    answer = await site.browser().send("POST", "/api/auth/register", body)
    assert answer.json()["error"]["code"] == code
    assert not site.mails(ALICE)


async def test_nobody_registers_where_registration_is_closed(engine: Engine, clock: MovableClock) -> None:
    async with site_on(engine, clock, settings_for(registration=False)) as site:
        assert (await site.browser().register(ALICE)).json()["error"]["code"] == "registration_closed"


async def test_known_and_unknown_addresses_are_answered_alike_and_the_owner_is_told(site: Site) -> None:
    owner = await site.browser().join(ALICE)
    stranger = site.browser("198.51.100.9")
    known, unknown = await stranger.register(ALICE), await stranger.register(BOB)
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
    assert [mail["kind"] for mail in site.mails(ALICE)] == ["verify_email", "account_exists"]
    for path in ("/api/auth/verification", "/api/auth/password-reset"):
        known, unknown = await stranger.post(path, email=ALICE), await stranger.post(path, email="no@example.com")
        assert (known.status_code, known.json()) == (unknown.status_code, unknown.json()) == (202, {"status": "ok"})
    assert not site.mails("no@example.com")
    refused = [await stranger.sign_in(email, "another passphrase") for email in (ALICE, "no@example.com")]
    assert len({(one.status_code, one.json()["error"]["message"]) for one in refused}) == 1
    assert (await owner.get("/api/me")).status_code == 200


async def test_a_link_works_once_and_for_a_day(site: Site) -> None:
    browser = site.browser()
    await browser.register(ALICE)
    first = site.link_to(ALICE)
    site.clock.move(24 * 3_600)
    late = await browser.post("/api/auth/verify", token=first)
    assert (late.status_code, late.json()["error"]["code"]) == (400, "link_invalid")
    await browser.post("/api/auth/verification", email=ALICE)
    site.clock.move(24 * 3_600 - 1)
    second = site.link_to(ALICE)
    assert (await browser.post("/api/auth/verify", token=second)).status_code == 200
    assert (await browser.post("/api/auth/verify", token=second)).json()["error"]["code"] == "link_invalid"
    assert site.credit_of(ALICE) == TRIAL_NUSD


async def test_a_forged_link_is_refused_without_a_query(site: Site) -> None:
    browser = site.browser()
    await browser.register(ALICE)
    token = site.link_to(ALICE)
    for forged in (token[:-1] + ("0" if token[-1] != "0" else "1"), token.replace("df-ve-", "df-pr-"), "df-ve-", "x"):
        assert (await browser.post("/api/auth/verify", token=forged)).json()["error"]["code"] == "link_invalid"


async def test_in_another_browser_the_link_wants_the_password(site: Site) -> None:
    await site.browser().register(ALICE)
    token, telephone = site.link_to(ALICE), site.browser()
    asked = await telephone.post("/api/auth/verify", token=token)
    assert (asked.status_code, asked.json()["error"]["code"]) == (403, "password_needed")
    wrong = await telephone.post("/api/auth/verify", token=token, password="not the passphrase")
    assert wrong.json()["error"]["code"] == "password_needed"
    assert (await telephone.post("/api/auth/verify", token=token, password=PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("alice@gmail.com", "a.l.i.c.e@gmail.com"),
        ("alice@gmail.com", "alice+again@googlemail.com"),
        ("alice@outlook.com", "alice+2@outlook.com"),
    ],
)
async def test_one_person_has_one_trial_however_the_address_is_spelt(site: Site, first: str, second: str) -> None:
    await site.browser("203.0.113.1").join(first)
    await site.browser("203.0.113.2").join(second)
    assert (site.credit_of(first), site.credit_of(second)) == (TRIAL_NUSD, 0)
    with read(site.engine) as connection:
        risk = sign_up_risk(connection, site.account_of(second).id)
    assert risk is not None
    assert RiskReason.SAME_PERSON in risk.reasons


async def test_different_people_at_one_provider_have_a_trial_each(site: Site) -> None:
    for number, address in enumerate(("a.lice@example.com", "alice@example.com", "alice+x@example.com")):
        await site.browser(f"203.0.113.{number}").join(address)
        assert site.credit_of(address) == TRIAL_NUSD


async def test_throw_away_mailboxes_get_no_trial(engine: Engine, clock: MovableClock) -> None:
    async with site_on(engine, clock, settings_for(disposable_domains=("burner.example",))) as site:
        for address in ("a@mailinator.com", "a@sub.yopmail.com", "a@burner.example"):
            await site.browser().join(address)
            assert site.credit_of(address) == 0


async def test_one_network_gets_few_trials_a_day(site: Site) -> None:
    addresses = [f"person{number}@example.com" for number in range(5)]
    for number, address in enumerate(addresses[:4]):
        await site.browser(f"2001:db8:1:2::{number + 1}").join(address)
    assert [site.credit_of(address) for address in addresses[:4]] == [TRIAL_NUSD] * 3 + [0]
    site.clock.move(86_400)
    await site.browser("2001:db8:1:2::9").join(addresses[4])
    assert site.credit_of(addresses[4]) == TRIAL_NUSD


async def test_all_trials_of_a_day_have_a_budget(engine: Engine, clock: MovableClock) -> None:
    async with site_on(engine, clock, settings_for(trial_day_nusd_max=2 * TRIAL_NUSD)) as site:
        for number in range(3):
            await site.browser(f"203.0.113.{number}").join(f"{'abc'[number]}@example.com")
        assert [site.credit_of(f"{one}@example.com") for one in "abc"] == [TRIAL_NUSD, TRIAL_NUSD, 0]


async def test_a_network_that_registers_again_and_again_has_to_wait(site: Site) -> None:
    browser = site.browser()
    answers = [await browser.register(f"person{number}@example.com") for number in range(11)]
    assert [one.status_code for one in answers] == [202] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) > 60
    assert (await site.browser("198.51.100.1").register("elsewhere@example.com")).status_code == 202


async def test_strangers_cannot_fill_a_mailbox(site: Site) -> None:
    await site.browser().join(ALICE)
    for number in range(20):
        asked = await site.browser(f"198.51.100.{number}").post("/api/auth/password-reset", email=ALICE)
        assert asked.status_code == 202
    assert len(site.mails(ALICE)) <= 5


async def test_a_browser_without_a_proof_or_with_a_wrong_one_is_refused(site: Site) -> None:
    browser = site.browser()
    body = {"email": ALICE, "password": PASSWORD, **CONSENT}
    path = "/api/auth/register"
    proofs = {
        "none": "",
        "another path": browser.proof("POST", "/api/auth/sign-in"),
        "another method": browser.proof("PUT", path),
        "too old": browser.proof("POST", path, iat=site.clock.now_ns() // 10**9 - 61),
        "from the future": browser.proof("POST", path, iat=site.clock.now_ns() // 10**9 + 61),
        "another host": browser.proof("POST", path, htu="http://evil.example" + path),
        "short id": browser.proof("POST", path, jti="1"),
        "signature": browser.proof("POST", path)[:-4] + "AAAA",
    }
    for name, proof in proofs.items():
        answer = await browser.send("POST", path, body, DPoP=proof)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "proof_invalid"), name
    good = browser.proof("POST", path)
    assert (await browser.send("POST", path, body, DPoP=good)).status_code == 202
    assert (await browser.send("POST", path, body, DPoP=good)).status_code == 401
