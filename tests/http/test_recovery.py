"""Lost passwords and other addresses: who can have them changed, what ends then, and who is told."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Engine

from dragonfly.accounts.sessions import FRESH_S
from tests.factories import MovableClock
from tests.http.people import PASSWORD, Site, site_on

ALICE, NEW, BOB = "alice@example.com", "alice@new.example.com", "bob@example.com"
NEW_PASSWORD = "an entirely new passphrase"


@pytest.fixture
async def site(engine: Engine, clock: MovableClock) -> AsyncIterator[Site]:
    async with site_on(engine, clock) as made:
        yield made


async def test_a_new_password_by_mail_signs_in_and_ends_every_other_session(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    telephone = site.browser()
    assert (await telephone.post("/api/auth/password-reset", email="ALICE@example.com")).status_code == 202
    token = site.link_to(ALICE)
    reset = await telephone.post("/api/auth/password-reset/confirm", token=token, password=NEW_PASSWORD)
    assert telephone.keep(reset).json()["status"] == "signed_in"
    assert (await telephone.get("/api/me")).status_code == 200
    assert (await alice.get("/api/me")).status_code == 401
    assert (await alice.sign_in(ALICE, PASSWORD)).status_code == 401
    assert (await alice.sign_in(ALICE, NEW_PASSWORD)).status_code == 200
    assert len(site.mails(ALICE, "password_changed")) == 1
    again = await telephone.post("/api/auth/password-reset/confirm", token=token, password=PASSWORD)
    assert again.json()["error"]["code"] == "link_invalid"


async def test_a_link_for_a_password_lives_half_an_hour(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    await alice.post("/api/auth/password-reset", email=ALICE)
    first = site.link_to(ALICE)
    site.clock.move(1_800)
    late = await alice.post("/api/auth/password-reset/confirm", token=first, password=NEW_PASSWORD)
    assert late.json()["error"]["code"] == "link_invalid"
    await alice.post("/api/auth/password-reset", email=ALICE)
    site.clock.move(1_799)
    weak = await alice.post("/api/auth/password-reset/confirm", token=site.link_to(ALICE), password="short")
    assert weak.json()["error"]["code"] == "password_weak"
    good = await alice.post("/api/auth/password-reset/confirm", token=site.link_to(ALICE), password=NEW_PASSWORD)
    assert good.status_code == 200


async def test_a_new_password_by_mail_does_not_go_around_the_second_factor(site: Site) -> None:
    await (await site.browser().join(ALICE)).enrol()
    thief = site.browser()
    await thief.post("/api/auth/password-reset", email=ALICE)
    reset = await thief.post("/api/auth/password-reset/confirm", token=site.link_to(ALICE), password=NEW_PASSWORD)
    assert reset.json()["status"] == "second_factor_needed"


async def test_changing_the_password_ends_other_sessions_and_wants_a_recent_sign_in(site: Site) -> None:
    alice, telephone = await site.browser().join(ALICE), site.browser()
    await telephone.sign_in(ALICE)
    assert (await alice.post("/api/me/password", password="short")).json()["error"]["code"] == "password_weak"
    assert (await alice.post("/api/me/password", password=NEW_PASSWORD)).status_code == 200
    assert (await alice.get("/api/me")).status_code == 200
    assert (await telephone.get("/api/me")).status_code == 401
    site.clock.move(FRESH_S)
    await alice.refresh()
    assert (await alice.post("/api/me/password", password=PASSWORD)).json()["error"]["code"] == "sign_in_again"


async def test_an_address_changes_when_the_new_one_is_proven_and_both_are_told(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    assert (await alice.post("/api/me/email", email=NEW)).status_code == 202
    assert (await alice.get("/api/me")).json()["email"] == ALICE
    token = site.link_to(NEW)
    assert (await alice.post("/api/auth/email/confirm", token=token)).status_code == 200
    assert (await alice.get("/api/me")).json()["email"] == NEW
    assert len(site.mails(ALICE, "email_changed")) == len(site.mails(NEW, "email_changed")) == 1
    assert (await site.browser().sign_in(ALICE)).status_code == 401
    assert (await site.browser().sign_in(NEW)).status_code == 200
    assert (await alice.post("/api/auth/email/confirm", token=token)).json()["error"]["code"] == "link_invalid"


async def test_a_link_for_an_address_lives_a_day(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    await alice.post("/api/me/email", email=NEW)
    site.clock.move(86_400)
    late = await alice.post("/api/auth/email/confirm", token=site.link_to(NEW))
    assert late.json()["error"]["code"] == "link_invalid"


async def test_an_address_of_somebody_else_is_answered_alike_and_not_taken(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    await site.browser().join(BOB)
    taken, free = await alice.post("/api/me/email", email=BOB), await alice.post("/api/me/email", email=NEW)
    assert (taken.status_code, taken.json()) == (free.status_code, free.json())
    assert [mail["kind"] for mail in site.mails(BOB)] == ["verify_email"]
    await site.browser("198.51.100.3").join(NEW)
    late = await alice.post("/api/auth/email/confirm", token=alice.site.mails(NEW, "email_change")[0]["link"][-71:])
    assert late.json()["error"]["code"] == "link_invalid"
    assert (await alice.get("/api/me")).json()["email"] == ALICE


async def test_changing_the_address_wants_a_recent_sign_in_and_a_plain_address(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    for address in ("nobody", "a@b", "a@example.com, b@example.com"):
        assert (await alice.post("/api/me/email", email=address)).json()["error"]["code"] == "address_invalid"
    site.clock.move(FRESH_S)
    await alice.refresh()
    assert (await alice.post("/api/me/email", email=NEW)).json()["error"]["code"] == "sign_in_again"


async def test_a_link_to_the_old_address_does_not_survive_the_change(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    await alice.post("/api/auth/password-reset", email=ALICE)
    old = site.link_to(ALICE)
    await alice.post("/api/me/email", email=NEW)
    await alice.post("/api/auth/email/confirm", token=site.link_to(NEW))
    refused = await alice.post("/api/auth/password-reset/confirm", token=old, password=NEW_PASSWORD)
    assert refused.json()["error"]["code"] == "link_invalid"
