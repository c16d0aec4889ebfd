"""An installation without card payments, where one signs in with Google; and apps that ask for keys of their own."""

import asyncio
import base64
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
import pytest_asyncio
from oidc_provider_mock import run_server_in_thread
from playwright.async_api import Browser, Route, expect

from tests.browser.people import PASSWORD, House, Person, code_of
from tests.fakes.openid import CLIENT_ID, CLIENT_SECRET, agree
from tests.system.program import Program

SUBJECT = "10769150350006150715113082367"
VERIFIER = "a-verifier-that-is-long-enough-to-be-one-0123456789"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SETTINGS = """
[server]
port = {port}
[accounts]
password_memory_kib = 8192
google_client_id = "{client_id}"
google_client_secret = "{client_secret}"
google_issuer = "{issuer}"
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


def free_port() -> int:
    """Known before the start, because a callback's address names it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def agree_as_erin(route: Route) -> None:
    """Erin signs in at the provider. Its own page is left out: it would load a style sheet from elsewhere."""
    url = route.request.url
    query = await asyncio.to_thread(agree, url, SUBJECT, email="erin@example.com", email_verified=True, name="Erin")
    (callback,) = parse_qs(urlsplit(url).query)["redirect_uri"]
    await route.fulfill(status=302, headers={"Location": f"{callback}?{urlencode(query)}"})


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("plain"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain_house(program: Program, issuer: str) -> AsyncIterator[House]:
    """A gateway as `dragonfly serve` runs it, that knows nothing of Stripe."""
    settings = SETTINGS.format(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, issuer=issuer, port=free_port())
    (program.folder / "dragonfly.toml").write_text(settings)
    async with program.running("serve") as running:
        port = json.loads(await running.until('"started"', errors=True))["port"]
        yield House(running, f"http://127.0.0.1:{port}")


async def test_erin_comes_with_google_and_reads_that_cards_are_not_set_up(
    plain_house: House, browser: Browser, issuer: str
) -> None:
    async with Person.arrives(plain_house, browser) as erin:
        erin.elsewhere.add(urlsplit(issuer).netloc)
        await erin.context.route(f"{issuer}/**", agree_as_erin)
        page = erin.page
        await erin.goes("/sign-in")
        await erin.presses("Continue with Google")
        await erin.sees("There is no account for you yet.")
        assert page.url == f"{plain_house.url}/auth/callback/google", "code and state are gone from the address bar"
        await page.get_by_role("link", name="Create an account").click()
        for box in ("adult", "consent"):
            await page.locator(f"[name={box}]").check()
        await erin.presses("Continue with Google")
        await page.wait_for_url("**/dashboard?**")
        await erin.goes("/dashboard/wallet")
        await erin.sees("Card payments are not set up here.")
        await expect(page.get_by_role("button", name="Pay")).to_be_hidden()
        await expect(page.locator("#lots")).to_contain_text("promotional")
        await erin.goes("/dashboard/settings")
        await expect(page.locator("#identities")).to_contain_text("erin@example.com")
        await erin.check()


async def test_an_operator_sets_up_an_account_gives_credit_and_answers_a_ticket(
    plain_house: House, program: Program, browser: Browser
) -> None:
    link = program.run("operator", "add", "olga@example.com").output.strip()
    async with Person.arrives(plain_house, browser) as olga:
        page = olga.page
        await olga.goes("/support")
        await olga.types(address="gina@example.com", text="How do I register?")
        await olga.presses("Send")
        await olga.sees("The answer goes to gina@example.com.")
        await olga.goes(f"/set-up#{link.partition('#')[2]}")
        await olga.types(password=PASSWORD)
        await olga.presses("Save and sign in")
        await page.wait_for_url("**/dashboard?**")
        await olga.goes("/operator")
        await olga.sees("or a role that you do not have")
        await olga.goes("/dashboard/settings")
        await olga.presses("Set up a second factor")
        await olga.types(code=await code_of(page))
        await olga.presses("Switch on")
        await olga.sees("Keep these recovery codes in a safe place.")
        await olga.goes("/dashboard")
        await page.get_by_role("link", name="To the pages of operators").click()
        await olga.types(query="erin")
        await olga.presses("Search")
        await page.get_by_role("row", name="Erin").get_by_role("button", name="Open").click()
        await page.locator("#detail").get_by_role("button", name="Give credit").click()
        await olga.types(amount="2.5", words="Found a mistake of ours")
        await page.locator("#act-send").click()
        await expect(page.locator("#detail-body")).to_contain_text("$2.60")
        await page.goto(f"{plain_house.url}/operator/tickets")
        await page.locator("#found").get_by_role("button", name="Open").first.click()
        await expect(page.locator("#detail")).to_contain_text("How do I register?")
        await page.locator("#detail").get_by_role("button", name="Answer").click()
        await olga.types(words="On the page /sign-up.")
        await page.locator("#act-send").click()
        await expect(page.locator("#detail")).to_contain_text("On the page /sign-up.")
        await page.goto(f"{plain_house.url}/operator/data-requests")
        await olga.sees("There are no such requests.")
        await olga.check()


async def test_an_app_gets_a_key_when_its_user_allows_it(person: Person) -> None:
    page, house = person.page, person.house
    query = f"code_challenge={CHALLENGE}&code_challenge_method=S256&key_label=My%20editor"
    await person.goes(f"/auth?{query}")
    await page.wait_for_url("**/sign-in?**")
    await person.types(email=house.email, password=house.password)
    await person.presses("Sign in")
    await person.sees("My editor wants to make requests at your cost.")
    await person.types(limit="1.5")
    await person.presses("Allow")
    code = await page.locator(".secret code").inner_text()
    async with httpx.AsyncClient(base_url=house.url) as app:
        bought = await app.post("/api/auth/keys", json={"code": code, "code_verifier": VERIFIER})
        assert bought.status_code == 200, bought.text
        key = bought.json()["key"]
        known = (await app.get("/v1/key", headers={"Authorization": f"Bearer {key}"})).json()["data"]
    assert known["limit"] == 1.5


async def test_who_was_led_astray_is_not_led_further(person: Person) -> None:
    await person.goes("/sign-in?next=https://example.com/dashboard")
    await person.types(email=person.house.email, password=person.house.password)
    await person.presses("Sign in")
    await person.page.wait_for_url(f"{person.house.url}/dashboard?**")
