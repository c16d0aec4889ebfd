"""People in front of several workers and nodes: what one of them knows of attempts, proofs and ends, all know."""

import asyncio
import base64
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from dragonfly.accounts.letters import Tools
from dragonfly.accounts.links import Link, make_link
from dragonfly.accounts.passwords import Passwords
from dragonfly.accounts.registration import Consent, NewPerson, create_person, mark_verified
from dragonfly.accounts.rules import folded_address
from dragonfly.accounts.second_factors import STEP_S, begin_second_factor, code_at, confirm_second_factor
from dragonfly.accounts.sessions import Browser
from dragonfly.accounts.tables import accounts, attempt_budgets, people, shown_proofs, trial_persons
from dragonfly.app.people import tools_of
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import open_engine, read, write
from dragonfly.ledger.tables import wallets
from dragonfly.settings import Settings
from tests.factories import PEPPER
from tests.http.people import PASSWORD
from tests.system.people import RealBrowser
from tests.system.program import Program
from tests.system.served import Served, served

ALICE, BOB = "alice@example.com", "bob@example.com"
CHEAP = "[accounts]\npassword_memory_kib = 8192\n"


class Town:
    """Two nodes with two workers each, or one process, and a way to their database."""

    def __init__(self, nodes: list[Served], engine: Engine) -> None:
        self.urls = [f"http://127.0.0.1:{node.port}" for node in nodes]
        self.engine = engine
        self.tools: Tools = tools_of(Settings(key_pepper=SecretStr(PEPPER.decode())), IdSource())

    def browser(self) -> RealBrowser:
        return RealBrowser(self.urls[0])

    async def person(self, address: str, *, is_verified: bool = True) -> AccountId:
        """Somebody who registered, as if by the form."""
        passwords, now_ns = Passwords(self.tools.seal, memory_kib=8_192), time.time_ns()
        hashed = await passwords.hash(PASSWORD)
        passwords.close()
        new = NewPerson(address, "", "en", Consent(True, "2026-03-08", "2026-03-08"), hashed)
        came_from = Browser("fingerprint", "Firefox", f"192.0.2.{len(address)}")
        with write(self.engine) as connection:
            account_id = create_person(connection, self.tools, new, came_from, verified_at_ns=None, now_ns=now_ns)
            if is_verified:
                mark_verified(connection, account_id, now_ns=now_ns)
        return account_id

    def link(self, kind: TokenKind, account_id: AccountId, address: str) -> str:
        with write(self.engine) as connection:
            link = Link(account_id, None, folded_address(address), None)
            return make_link(connection, self.tools.seal, kind, link, now_ns=time.time_ns()).reveal()

    def enrol(self, account_id: AccountId) -> bytes:
        """A second factor; the secret in the telephone."""
        with write(self.engine) as connection:
            enrolment = begin_second_factor(connection, self.tools.seal, account_id, ALICE)
            secret = base64.b32decode(enrolment.secret.reveal())
            now_ns = time.time_ns() - STEP_S * 10**9
            code = code_at(secret, now_ns // 10**9 // STEP_S)
            confirm_second_factor(connection, self.tools.seal, account_id, code, now_ns=now_ns)
        return secret


@contextlib.asynccontextmanager
async def two_nodes(program: Program, url: str) -> AsyncIterator[Town]:
    engine = open_engine(url)
    async with served(program, url=url, workers=2, more=CHEAP) as one, one.another_node() as other:
        yield Town([one, other], engine)
    engine.dispose()


async def everywhere(
    town: Town, browser: RealBrowser, requests: int, path: str, body: object
) -> list[httpx.Response]:
    """The same request again and again on new connections, at each node in turn, a few at a time."""
    found: list[httpx.Response] = []
    for start in range(0, requests, 4):
        some = [browser.at(town.urls[number % len(town.urls)]) for number in range(start, min(requests, start + 4))]
        found += await asyncio.gather(*(one.send("POST", path, body) for one in some))
    return found


def codes_of(answers: list[httpx.Response]) -> Counter[str]:
    return Counter(str(one.json().get("error", {}).get("code", "ok")) for one in answers)


async def test_guesses_codes_and_proofs_are_counted_over_all_workers_and_nodes(
    program: Program, postgresql_url: str
) -> None:
    async with two_nodes(program, postgresql_url) as town:
        account_id = await town.person(ALICE)
        browser = town.browser()
        assert (await browser.sign_in(ALICE)).status_code == 200

        shown = browser.headers("GET", "/api/me")
        replayed = await asyncio.gather(*(browser.send("GET", "/api/me", headers=shown) for _ in range(16)))
        assert Counter(one.status_code for one in replayed) == {200: 1, 401: 15}

        fresh = town.browser()
        sent = {"email": BOB, "password": "not the passphrase"}
        guesses = await everywhere(town, fresh, 24, "/api/auth/sign-in", sent)
        assert codes_of(guesses) == {"sign_in_refused": 10, "too_many_attempts": 14}
        waits = {int(one.headers["retry-after"]) for one in guesses if one.status_code == 429}
        assert waits <= set(range(1, 91))

        secret = town.enrol(account_id)
        refused: Counter[str] = Counter()
        for _ in range(4):
            ticket = (await browser.sign_in(ALICE)).json()["ticket"]
            wrong = {"ticket": ticket, "code": "000000"}
            assert code_at(secret, int(time.time()) // STEP_S) != "000000"
            refused += codes_of(await everywhere(town, browser, 4, "/api/auth/second-factor", wrong))
        assert refused["second_factor_refused"] == 10
        assert set(refused) <= {"second_factor_refused", "too_many_attempts", "link_invalid"}
        ticket = (await browser.sign_in(ALICE)).json()["ticket"]
        right = {"ticket": ticket, "code": code_at(secret, int(time.time()) // STEP_S)}
        assert (await browser.send("POST", "/api/auth/second-factor", right)).status_code == 429

        with read(town.engine) as connection:
            rows = [connection.execute(select(func.count()).select_from(one)).scalar_one() for one in TABLES]
        assert rows[0] <= 8, "a budget is one row, however often it is asked"
        assert rows[1] >= 16


TABLES = (attempt_budgets, shown_proofs)


async def test_of_two_verifications_by_one_person_at_two_nodes_one_gets_the_trial(
    program: Program, postgresql_url: str
) -> None:
    async with two_nodes(program, postgresql_url) as town:
        addresses = [f"al{dots}ice{tag}@gmail.com" for dots in ("", ".") for tag in ("", "+a", "+b")]
        browser, sent = town.browser(), []
        for number, address in enumerate(addresses):
            account_id = await town.person(address, is_verified=False)
            token = town.link(TokenKind.VERIFY, account_id, address)
            at = browser.at(town.urls[number % 2])
            sent.append(at.send("POST", "/api/auth/verify", {"token": token, "password": PASSWORD}))
        answers = await asyncio.gather(*sent)
        assert [one.status_code for one in answers] == [200] * len(addresses)
        with read(town.engine) as connection:
            joined = wallets.join(people, people.c.account_id == wallets.c.account_id)
            money = select(wallets.c.balance_nusd).select_from(joined)
            assert [row for row in connection.execute(money).scalars() if row] == [100_000_000]
            assert len(connection.execute(select(trial_persons)).all()) == 1
            proven = select(func.count()).select_from(accounts).where(accounts.c.verified_at_ns.is_not(None))
            assert connection.execute(proven).scalar_one() == len(addresses) + 1


async def test_tabs_that_refresh_at_once_on_different_workers_get_one_pair_and_a_late_one_ends_it(
    program: Program, postgresql_url: str
) -> None:
    async with two_nodes(program, postgresql_url) as town:
        await town.person(ALICE)
        browser = town.browser()
        first = (await browser.sign_in(ALICE)).json()["refresh_token"]
        browser.token = ""
        sent = {"refresh_token": first}
        answers = await everywhere(town, browser, 8, "/api/auth/refresh", sent)
        assert len({one.json()["refresh_token"] for one in answers}) == 1
        second = answers[0].json()["refresh_token"]
        third = (await browser.send("POST", "/api/auth/refresh", {"refresh_token": second})).json()
        stolen = await browser.at(town.urls[1]).send("POST", "/api/auth/refresh", sent)
        assert stolen.status_code == 401
        browser.token = third["access_token"]
        for url in town.urls:
            assert (await browser.at(url).send("GET", "/api/me")).status_code == 401


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_session_that_another_process_ends_is_refused_by_every_worker_at_once(
    program: Program, tmp_path: Path, request: pytest.FixtureRequest, workers: int
) -> None:
    """One worker has SQLite, several have PostgreSQL."""
    name = f"sqlite:///{tmp_path}/town.db" if workers == 1 else str(request.getfixturevalue("postgresql_url"))
    async with served(program, url=name, workers=workers, more=CHEAP) as one:
        engine = open_engine(name)
        town = Town([one], engine)
        await town.person(ALICE)
        browser = town.browser()
        assert (await browser.sign_in(ALICE)).status_code == 200
        async with contextlib.AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(browser.connected()) for _ in range(3 * workers)]

            async def asked(line: httpx.AsyncClient) -> int:
                return (await line.get("/api/me", headers=browser.headers("GET", "/api/me"))).status_code

            assert await asyncio.gather(*map(asked, lines)) == [200] * len(lines)
            assert (await asyncio.to_thread(one.program.run, "operator", "add", ALICE)).code == 0
            statuses = await asyncio.gather(*map(asked, lines))
            assert statuses == [401] * len(lines), "the first request after it is refused, by each of them"
        engine.dispose()
