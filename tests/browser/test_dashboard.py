"""The dashboard as people use it: keys, a payment, the second factor, several tabs, telephones."""

import re
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.browser.people import ENTRY, PASSWORD, Person, code_of

PATHS = [f"/dashboard{page}" for page in ("", "/keys", "/usage", "/wallet", "/support", "/settings", "/privacy")]
WORDS = {"model": "simulated/chat", "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}


async def settled(page: Page) -> None:
    """Waits until a page of the dashboard shows what it fetched."""
    await page.wait_for_load_state("networkidle")
    await expect(page.locator("#main[aria-busy]")).to_have_count(0)


@pytest.mark.proof("access")
async def test_alice_creates_a_key_uses_it_pays_and_sees_her_receipt(person: Person) -> None:
    page, house = person.page, person.house
    await person.joins("alice.payer@example.com")
    await page.get_by_role("link", name="Keys").click()
    await person.sees("There is no key yet.")
    await person.presses("Create a key")
    await person.types(name="laptop", spend_usd="5")
    await page.locator("#editor-send").click()
    await page.locator("#secret").wait_for()
    secret = await page.locator("#secret-text").inner_text()
    assert re.fullmatch(r"sk-df-\w{50,}", secret)
    await person.presses("Copy")
    assert await page.evaluate("navigator.clipboard.readText()") == secret
    await person.presses("I have kept it")
    await expect(page.get_by_role("row", name="laptop")).to_contain_text("$5.00")
    assert secret not in await page.content()
    assert secret not in str(await person.stored())
    async with httpx.AsyncClient(base_url=house.url, headers={"Authorization": f"Bearer {secret}"}) as program:
        assert (await program.post("/v1/chat/completions", json=WORDS, timeout=30)).status_code == 200
    await page.get_by_role("link", name="Usage").click()
    await expect(page.locator("#rows")).to_contain_text("simulated/chat")
    await page.get_by_role("link", name="Wallet").click()
    await person.types(amount="10")
    await person.presses("Pay")
    await page.get_by_text("Type no real card number").wait_for()
    person.elsewhere.add(urlsplit(page.url).netloc)
    await page.locator("[value=pay]").click()
    await person.sees("Thank you. The payment arrived and the credit is there.")
    await page.get_by_role("link", name="To the wallet").click()
    await expect(page.locator("#topups")).to_contain_text("paid")
    await expect(page.locator("#transactions")).to_contain_text("Payment")
    await person.presses("Receipt")
    await page.wait_for_url("**/wallet/receipts/**")
    await expect(page.locator("main, body").first).to_contain_text("10.00")
    assert set(await person.stored()) == {ENTRY}


async def test_a_second_factor_is_asked_for_and_a_recovery_code_does_too(person: Person) -> None:
    page, email = person.page, "bob.careful@example.com"
    await person.joins(email)
    await person.goes("/dashboard/settings")
    await person.presses("Set up a second factor")
    await person.types(code=await code_of(page))
    await person.presses("Switch on")
    await person.sees("Keep these recovery codes in a safe place.")
    codes = await page.locator("#codes code").all_inner_texts()
    assert len(codes) == 10
    await person.goes("/sign-out")
    await person.sees("You are signed out on this device.")
    await person.goes("/sign-in")
    await person.types(email=email, password=PASSWORD)
    await person.presses("Sign in")
    await person.types(code="000000")
    await person.presses("Go on")
    await expect(page.get_by_role("alert").filter(has_text="This code is not right")).to_be_visible()
    await person.types(code=codes[0])
    await person.presses("Go on")
    await page.wait_for_url("**/dashboard?**")
    await person.goes("/dashboard/settings")
    await person.sees("On: every sign-in asks for a code.")
    await person.types(remove_code=codes[1])
    await person.presses("Remove the second factor")
    await person.sees("Off. With a second factor, a stolen password alone opens nothing.")


async def test_two_tabs_fetch_the_next_tokens_once_and_sign_out_together(person: Person) -> None:
    await person.signs_in(person.house.email, person.house.password)
    first, second = person.page, await person.context.new_page()
    await second.goto(f"{person.house.url}/dashboard/keys")
    await settled(second)
    asked: list[str] = []
    person.context.on("request", lambda request: asked.append(urlsplit(request.url).path))
    before = await person.stored()
    await first.evaluate(
        """(entry) => {
          const session = JSON.parse(localStorage.getItem(entry));
          localStorage.setItem(entry, JSON.stringify({ ...session, endsAt: 0 }));
        }""",
        ENTRY,
    )
    await first.reload(wait_until="commit")
    await second.reload(wait_until="commit")
    await settled(first)
    await settled(second)
    await expect(first.locator("#available")).to_contain_text("$")
    await expect(second.locator("#list")).to_contain_text("demo")
    assert asked.count("/api/auth/refresh") == 1
    assert await person.stored() != before
    await first.get_by_role("link", name="Sign out").click()
    await second.wait_for_url("**/sign-in?**")


async def test_bob_ends_a_session_that_he_has_elsewhere(person: Person) -> None:
    async with Person.arrives(person.house, person.browser) as elsewhere:
        await elsewhere.signs_in(person.house.email, person.house.password)
        await person.signs_in(person.house.email, person.house.password)
        await person.goes("/dashboard/settings")
        await person.page.locator("#sessions").get_by_role("button", name="Sign out").first.wait_for()
        others = person.page.locator("#sessions").get_by_role("button", name="Sign out")
        for _ in range(await others.count()):
            count = await others.count()
            await others.first.click()
            await expect(others).to_have_count(count - 1)
        await elsewhere.goes("/dashboard")
        await elsewhere.page.wait_for_url("**/sign-in?**")


async def test_settings_are_kept(person: Person) -> None:
    page = person.page
    await person.joins("charlie.settled@example.com")
    await person.goes("/dashboard/settings")
    await settled(page)
    await person.types(name="Charlie")
    await page.locator("#profile [type=submit]").click()
    await page.locator("[name=announcements]").uncheck()
    await person.types(low_balance_usd="2.5")
    await page.locator("#mail [type=submit]").click()
    await expect(page.locator("#mail p[role=status]")).to_have_text("Saved.")
    await page.reload()
    await settled(page)
    await expect(page.locator("#profile [name=name]")).to_have_value("Charlie")
    await expect(page.locator("[name=low_balance_usd]")).to_have_value("2.5")
    await expect(page.locator("[name=announcements]")).not_to_be_checked()
    await person.types(password="yet another passphrase")
    await page.locator("#password-form [type=submit]").click()
    await person.sees("Your password is changed.")


async def test_a_ticket_is_opened_continued_and_closed(person: Person) -> None:
    page = person.page
    await person.joins("dora.asks@example.com")
    await person.goes("/dashboard/support")
    await person.types(text="My invoice lacks my company's name.")
    await page.locator("#kind").select_option("payment")
    await person.presses("Send")
    await page.locator("#tickets").get_by_role("button", name="Open").click()
    await expect(page.locator("#messages")).to_contain_text("My invoice lacks")
    await person.types(more="<b>It is Acme.</b>")
    await page.locator("#ticket-send").click()
    await page.locator("#tickets").get_by_role("button", name="Open").click()
    await expect(page.locator("#messages")).to_contain_text("<b>It is Acme.</b>")
    await person.presses("Close this ticket")
    await expect(page.locator("#tickets")).to_contain_text("closed")


async def test_a_copy_of_ones_data_is_asked_for_and_the_request_withdrawn(person: Person) -> None:
    await person.joins("frank.curious@example.com")
    await person.goes("/dashboard/privacy")
    await person.presses("Ask for a copy")
    await expect(person.page.locator("#requests")).to_contain_text("being looked at")
    await person.presses("Withdraw")
    await expect(person.page.locator("#requests")).to_contain_text("cancelled")


@pytest.mark.parametrize("person", ["zh-CN"], indirect=True)
async def test_on_a_telephone_and_in_chinese_no_page_is_wider_than_the_screen(person: Person) -> None:
    page = person.page
    await person.signs_in(person.house.email, person.house.password)
    await page.set_viewport_size({"width": 360, "height": 740})
    for path in [*PATHS, "/support", "/sign-out", "/sign-in", "/sign-up"]:
        await person.goes(path)
        await settled(page)
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(wide) == 0, path
        words = await page.locator("main").inner_text()
        assert re.search(r"[\u4e00-\u9fff]", words), path


async def test_every_field_has_a_label_and_every_page_one_heading(person: Person) -> None:
    page = person.page
    await person.signs_in(person.house.email, person.house.password)
    for path in [*PATHS, "/support"]:
        await person.goes(path)
        await settled(page)
        unnamed = """[...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
            .filter((field) => !field.labels.length).map((field) => field.name)"""
        assert await page.evaluate(unnamed) == [], path
        assert await page.locator("h1").count() == 1
        doubled = """[...document.querySelectorAll("[id]")].map((one) => one.id)
            .filter((id, place, ids) => ids.indexOf(id) !== place)"""
        assert await page.evaluate(doubled) == [], path
