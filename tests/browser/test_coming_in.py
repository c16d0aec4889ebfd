"""Registration, sign-in and what links in mails lead to, as people do it."""

import pytest
from playwright.async_api import expect

from tests.browser.people import ENTRY, PASSWORD, Person

NEW_PASSWORD = "another quite long passphrase"


@pytest.mark.proof("local-storage", "no-cookies", "no-tracking")
async def test_alice_registers_verifies_signs_in_and_out_and_chooses_a_new_password(person: Person) -> None:
    page, email = person.page, "alice@example.com"
    await person.registers(email)
    assert page.url == f"{person.house.url}/verify-email", "the token is gone from the address bar"
    await person.sees("Your address is verified.")
    assert await person.stored() == {}
    await person.signs_in(email)
    await expect(page.locator("#available")).to_have_text("$0.10")
    assert set(await person.stored()) == {ENTRY}
    await page.get_by_role("link", name="Sign out").click()
    await person.sees("You are signed out on this device.")
    assert await person.stored() == {}
    await person.goes("/dashboard")
    await page.wait_for_url("**/sign-in?**")
    await page.get_by_role("link", name="Forgot your password?").click()
    await person.types(email=email)
    await person.presses("Send link")
    await page.goto(await person.house.link_mailed_to(email, "/reset-password"))
    await page.wait_for_url(f"{person.house.url}/reset-password")
    await person.types(password=NEW_PASSWORD)
    await person.presses("Save and sign in")
    await page.wait_for_url("**/dashboard?**")
    await person.goes("/sign-in?again=1")
    await person.types(email=email, password=PASSWORD)
    await person.presses("Sign in")
    await expect(page.get_by_role("alert").filter(has_text="Address or password are not right.")).to_be_visible()
    await person.check()


async def test_a_link_that_was_used_offers_another_one(person: Person) -> None:
    await person.registers("bob@example.com")
    await person.goes("/verify-email#token=df-ve-000000000000000000000000000000000000000000000")
    await person.sees("This link was used already, or its time is over.")
    await person.types(email="bob@example.com")
    await person.presses("Send link")
    await person.sees("If there is anything to verify, another link is on its way.")


async def test_a_link_in_another_browser_wants_the_password(person: Person) -> None:
    email = "henry@example.com"
    await person.goes("/sign-up")
    await person.types(email=email, password=PASSWORD)
    for box in ("adult", "consent"):
        await person.page.locator(f"[name={box}]").check()
    await person.presses("Create account")
    await person.sees(f"We sent a link to {email}.")
    link = await person.house.link_mailed_to(email, "/verify-email")
    async with Person.arrives(person.house, person.browser) as elsewhere:
        await elsewhere.page.goto(link)
        await elsewhere.sees("You opened this link in another browser")
        await elsewhere.types(password="not the right passphrase")
        await elsewhere.presses("Verify")
        await expect(
            elsewhere.page.get_by_role("alert").filter(has_text="The password is not right.")
        ).to_be_visible()
        await elsewhere.types(password=PASSWORD)
        await elsewhere.presses("Verify")
        await elsewhere.sees("Your address is verified.")
        await elsewhere.check()


async def test_another_address_is_confirmed_by_its_link(person: Person) -> None:
    await person.joins("ida@example.com")
    await person.goes("/dashboard/settings")
    await expect(person.page.locator("#email-now")).to_have_text("ida@example.com")
    await person.types(email="ida.new@example.com")
    await person.page.locator("#email-form [type=submit]").click()
    await person.sees("A link went to ida.new@example.com")
    await person.page.goto(await person.house.link_mailed_to("ida.new@example.com", "/confirm-email"))
    await person.presses("Confirm")
    await person.sees("From now on you sign in with your new address.")
    await person.goes("/dashboard/settings")
    await expect(person.page.locator("#email-now")).to_have_text("ida.new@example.com")


async def test_a_password_that_is_easy_to_guess_is_refused_in_words(person: Person) -> None:
    await person.goes("/sign-up")
    await person.types(email="charlie@example.com", password="aaaaaaaaaaaa")
    for box in ("adult", "consent"):
        await person.page.locator(f"[name={box}]").check()
    await person.presses("Create account")
    await expect(person.page.get_by_role("alert").filter(has_text="easy to guess")).to_be_visible()


@pytest.mark.parametrize("person", ["zh-CN"], indirect=True)
async def test_the_pages_speak_chinese_to_who_does(person: Person) -> None:
    await person.goes("/sign-in")
    await expect(person.page.locator("html")).to_have_attribute("lang", "zh-Hans")
    await person.types(email="nobody@example.com", password=PASSWORD)
    await person.presses("登录")
    await expect(person.page.get_by_role("alert").filter(has_text="邮箱或密码不正确。")).to_be_visible()
    await person.page.get_by_role("link", name="English").click()
    await expect(person.page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_the_demo_tells_how_to_sign_in(person: Person) -> None:
    await person.signs_in(person.house.email, person.house.password)
    await person.sees("Available credit")
    await expect(person.page.locator("#snippet")).to_contain_text(f"{person.house.url}/v1")


READ_KEY = """
async () => {
  const open = indexedDB.open("dragonfly");
  const database = await new Promise((resolve) => (open.onsuccess = () => resolve(open.result)));
  const get = database.transaction("keys").objectStore("keys").get("browser");
  const key = await new Promise((resolve) => (get.onsuccess = () => resolve(get.result)));
  const formats = ["jwk", "pkcs8", "raw"];
  const tries = await Promise.allSettled(formats.map((format) => crypto.subtle.exportKey(format, key.privateKey)));
  return [key.privateKey.extractable, ...tries.map((one) => one.status)];
}
"""


@pytest.mark.proof("browser-key")
async def test_the_browsers_key_cannot_be_read_out(person: Person) -> None:
    await person.signs_in(person.house.email, person.house.password)
    assert await person.page.evaluate(READ_KEY) == [False, "rejected", "rejected", "rejected"]
    await person.goes("/sign-out")
    await person.sees("You are signed out on this device.")
