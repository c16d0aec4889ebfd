"""A real browser in front of a real process: Debian's Chromium and `dragonfly demo`, one of each for all tests here.

Every test gets a person with an empty browser profile. Whatever the test does, at its end the profile must hold no
cookie and one entry of localStorage at most, and no page may have asked another host for anything, broken its own
Content-Security-Policy or thrown an error.
"""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.people import WAIT_MS, House, Person
from tests.system.program import Program

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAST_LINE = "Stop with Ctrl-C"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here share a loop, as they share a browser; without one they are skipped."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium on this machine"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CHROMIUM is None:
        terminalreporter.section("The pages were not tested")
        terminalreporter.line(
            "There is no Chromium. Install it (Debian: the package chromium), or name it: CHROMIUM=/…"
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """The demo, with its simulated Stripe and its mail on standard output."""
    program = Program(tmp_path_factory.mktemp("browser"))
    async with program.running("demo", PORT="0") as running:
        await running.until(LAST_LINE)
        yield House.of_demo(running)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    assert CHROMIUM is not None
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def person(house: House, browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Person]:
    """Somebody with a fresh browser; `parametrize("person", ["zh-CN"], indirect=True)` chooses a locale."""
    locale = getattr(request, "param", "en-US")
    async with Person.arrives(house, browser, locale) as arrived:
        yield arrived
        await arrived.check()
