"""Somebody at a browser, and the house whose pages they open."""

import base64
import contextlib
import re
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request

from dragonfly.accounts.second_factors import STEP_S, code_at
from tests.system.program import Running

PASSWORD = "a long enough passphrase"
ENTRY = "dragonfly.session"
WAIT_MS = 30_000
"""Waiting ends when what is waited for is there; this long only on a machine that is very busy, or never."""
WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`VIOLATION ${event.effectiveDirective} ${event.blockedURI}`));
"""


class House:
    """A running installation; a demo has somebody who may sign in."""

    def __init__(self, running: Running, url: str, email: str = "", password: str = "") -> None:
        self.running = running
        self.url = url
        self.email = email
        self.password = password

    @classmethod
    def of_demo(cls, running: Running) -> "House":
        """From what the demo's banner says."""
        found = re.search(r"(http://127\.0\.0\.1:\d+)/sign-in\s+(\S+)\s+(\S+)", running.output)
        assert found, running.output
        return cls(running, *found.groups())

    async def link_mailed_to(self, email: str, page: str) -> str:
        """The link to a page in the next mail that shows one; mails are shown as they are sent."""
        while True:
            line = await self.running.until(f"{page}#token=")
            found = re.search(rf"http://\S+{page}#token=[\w-]+", line)
            if found and email in self.running.output:
                return found[0]


class Person:
    """Somebody with a browser profile of their own, and all that their browser did."""

    def __init__(self, house: House, browser: Browser, context: BrowserContext, page: Page) -> None:
        self.house = house
        self.browser = browser
        self.context = context
        self.page = page
        self.hosts: set[str] = set()
        self.elsewhere: set[str] = set()
        """Hosts that this person is led to: Stripe's."""
        self.complaints: list[str] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def arrives(cls, house: House, browser: Browser, locale: str = "en-US") -> AsyncIterator["Person"]:
        context = await browser.new_context(locale=locale, viewport={"width": 1100, "height": 800})
        await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=house.url)
        context.set_default_timeout(WAIT_MS)
        await context.add_init_script(WATCH)
        person = cls(house, browser, context, await context.new_page())
        context.on("request", person._note_request)
        context.on("console", person._note_words)
        context.on("weberror", lambda error: person.complaints.append(f"thrown: {error.error}"))
        try:
            yield person
        finally:
            await context.close()

    async def goes(self, path: str) -> None:
        await self.page.goto(self.house.url + path)

    async def sees(self, words: str) -> None:
        """Waits until the page shows the words."""
        await self.page.get_by_text(words).first.wait_for()

    async def presses(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).first.click()

    async def types(self, **fields: str) -> None:
        """Fills in fields by their names."""
        for name, text in fields.items():
            await self.page.locator(f"[name={name}]:visible").fill(text)

    async def registers(self, email: str, password: str = PASSWORD) -> None:
        """From the form to a verified address."""
        await self.goes("/sign-up")
        await self.types(email=email, password=password)
        for box in ("adult", "consent"):
            await self.page.locator(f"[name={box}]").check()
        await self.page.locator("#sign-up [type=submit]").click()
        await self.page.goto(await self.house.link_mailed_to(email, "/verify-email"))
        await self.page.locator("a.button").wait_for()

    async def signs_in(self, email: str, password: str = PASSWORD) -> None:
        await self.goes("/sign-in")
        await self.types(email=email, password=password)
        await self.page.locator("#sign-in [type=submit]").click()
        await self.page.wait_for_url("**/dashboard?**")

    async def joins(self, email: str) -> None:
        await self.registers(email)
        await self.signs_in(email)

    async def stored(self) -> dict[str, str]:
        """What localStorage holds."""
        found: dict[str, str] = await self.page.evaluate("({...localStorage})")
        return found

    async def check(self) -> None:
        """Nothing was kept but the session, and nobody was spoken to but the house and who it leads to."""
        if self.page.url.startswith(self.house.url):
            assert set(await self.stored()) <= {ENTRY}
        assert await self.context.cookies() == []
        assert self.hosts <= {urlsplit(self.house.url).netloc, *self.elsewhere}
        assert self.complaints == []

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:", "about:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def _note_words(self, message: ConsoleMessage) -> None:
        is_refusal = "the server responded with a status of" in message.text  # an answer that tests provoke
        if message.type in ("error", "warning") and not is_refusal:
            self.complaints.append(message.text)


async def code_of(page: Page) -> str:
    """What the authenticator application shows, for the secret on the page."""
    await page.locator("#factor-confirm").wait_for()
    secret = (await page.locator("#factor-secret").inner_text()).replace(" ", "")
    return code_at(base64.b32decode(secret), int(time.time()) // STEP_S)
