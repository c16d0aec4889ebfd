"""The second factor: enrolled by its own code, asked for at sign-in, never taken twice, replaceable when lost."""

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends
from sqlalchemy import Engine

from dragonfly.accounts.sessions import FRESH_S
from dragonfly.api.principal import Principal, operator
from tests.factories import MovableClock
from tests.http.people import Site, site_on

ALICE = "alice@example.com"


def operators_page() -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/admin/page")
    async def page(principal: Annotated[Principal, Depends(operator)]) -> str:
        return principal.account_id

    return routes


@pytest.fixture
async def site(engine: Engine, clock: MovableClock) -> AsyncIterator[Site]:
    async with site_on(engine, clock, None, operators_page()) as made:
        yield made


async def test_signing_in_takes_both_factors(site: Site) -> None:
    authenticator = await (await site.browser().join(ALICE)).enrol()
    site.clock.move(30)
    telephone = site.browser()
    asked = (await telephone.sign_in(ALICE)).json()
    assert asked["status"] == "second_factor_needed"
    assert not telephone.tokens
    shown = telephone.keep(
        await telephone.post("/api/auth/second-factor", ticket=asked["ticket"], code=authenticator.code())
    )
    assert shown.json()["status"] == "signed_in"
    assert (await telephone.get("/api/me")).json()["second_factor"] is True


async def test_no_code_is_taken_twice_nor_an_older_one(site: Site) -> None:
    authenticator = await (await site.browser().join(ALICE)).enrol()
    used = authenticator.code()
    site.clock.move(30)
    fresh = authenticator.code()
    telephone = site.browser()
    for code, status in ((used, 403), (fresh, 200), (fresh, 403), (used, 403)):
        ticket = (await telephone.sign_in(ALICE)).json()["ticket"]
        answer = await telephone.post("/api/auth/second-factor", ticket=ticket, code=code)
        assert answer.status_code == status


async def test_a_code_of_the_step_before_or_after_is_taken_and_none_further_off(site: Site) -> None:
    authenticator = await (await site.browser().join(ALICE)).enrol()
    for late_s, status in ((90, 403), (59, 403), (30, 200)):
        site.clock.move(120 - site.clock.now_ns() // 10**9 % 30)
        code, browser = authenticator.code(), site.browser()
        site.clock.move(max(late_s, 60) if status == 403 else late_s)
        ticket = (await browser.sign_in(ALICE)).json()["ticket"]
        assert (await browser.post("/api/auth/second-factor", ticket=ticket, code=code)).status_code == status


async def test_a_ticket_is_for_one_browser_five_minutes_and_five_tries(site: Site) -> None:
    authenticator = await (await site.browser().join(ALICE)).enrol()
    site.clock.move(30)
    telephone = site.browser()
    ticket = (await telephone.sign_in(ALICE)).json()["ticket"]
    stolen = await site.browser().post("/api/auth/second-factor", ticket=ticket, code=authenticator.code())
    assert stolen.json()["error"]["code"] == "link_invalid"
    for _ in range(5):
        wrong = await telephone.post("/api/auth/second-factor", ticket=ticket, code="000000")
        assert wrong.json()["error"]["code"] == "second_factor_refused"
    void = await telephone.post("/api/auth/second-factor", ticket=ticket, code=authenticator.code())
    assert void.json()["error"]["code"] == "link_invalid"
    ticket = (await telephone.sign_in(ALICE)).json()["ticket"]
    site.clock.move(300)
    late = await telephone.post("/api/auth/second-factor", ticket=ticket, code=authenticator.code())
    assert late.json()["error"]["code"] == "link_invalid"


async def test_codes_cannot_be_guessed_with_ever_new_tickets(site: Site) -> None:
    await (await site.browser().join(ALICE)).enrol()
    thief, answers = site.browser("198.51.100.5"), []
    for _ in range(12):
        ticket = (await thief.sign_in(ALICE)).json()["ticket"]
        answers.append(await thief.post("/api/auth/second-factor", ticket=ticket, code="000000"))
    assert [one.status_code for one in answers][-2:] == [429, 429]


async def test_a_recovery_code_works_once(site: Site) -> None:
    authenticator = await (await site.browser().join(ALICE)).enrol()
    assert len(set(authenticator.recovery_codes)) == 10
    for code, status in (
        (authenticator.recovery_codes[0], 200),
        (authenticator.recovery_codes[0], 403),
        (authenticator.recovery_codes[1].replace("-", "").upper(), 200),
    ):
        browser = site.browser()
        ticket = (await browser.sign_in(ALICE)).json()["ticket"]
        assert (await browser.post("/api/auth/second-factor", ticket=ticket, code=code)).status_code == status


async def test_it_is_not_asked_for_before_its_first_code(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    await alice.post("/api/me/second-factor")
    wrong = await alice.post("/api/me/second-factor/confirm", code="000000")
    assert wrong.json()["error"]["code"] == "second_factor_refused"
    assert (await site.browser().sign_in(ALICE)).json()["status"] == "signed_in"
    await alice.enrol()
    assert (await alice.post("/api/me/second-factor")).json()["error"]["code"] == "second_factor_exists"


async def test_removing_it_takes_a_code_and_both_are_told_by_mail(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    authenticator = await alice.enrol()
    assert (await alice.post("/api/me/second-factor/remove", code="000000")).status_code == 403
    site.clock.move(30)
    assert (await alice.post("/api/me/second-factor/remove", code=authenticator.code())).status_code == 200
    assert (await site.browser().sign_in(ALICE)).json()["status"] == "signed_in"
    assert [mail["state"] for mail in site.mails(ALICE, "second_factor_changed")] == ["on", "off"]


async def test_setting_it_up_wants_a_recent_sign_in(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    site.clock.move(FRESH_S)
    await alice.refresh()
    assert (await alice.post("/api/me/second-factor")).json()["error"]["code"] == "sign_in_again"


async def test_pages_of_operators_want_the_role_and_the_second_factor(site: Site) -> None:
    alice = await site.browser().join(ALICE)
    assert (await alice.get("/api/admin/page")).status_code == 403
    await alice.enrol()
    assert (await alice.get("/api/admin/page")).status_code == 403
    site.make_operator(ALICE)
    assert (await alice.get("/api/admin/page")).status_code == 200
