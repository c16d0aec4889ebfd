"""The site as people meet it: served on a socket, with a clock that tests move, and browsers that hold keys."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import uvicorn
from fastapi import APIRouter
from joserfc import jws
from joserfc.jwk import ECKey
from pydantic import SecretStr
from sqlalchemy import Engine, select, update

from dragonfly.accounts.second_factors import STEP_S, code_at
from dragonfly.accounts.tables import accounts, people
from dragonfly.api.health import Readiness
from dragonfly.api.surface import build_surface
from dragonfly.app.people import people_parts, tools_of
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.ledger.queries import EMPTY_WALLET, wallet_of
from dragonfly.mail.tables import mail_outbox
from dragonfly.settings import AccountSettings, ServerSettings, Settings
from tests.factories import PEPPER, MovableClock
from tests.fakes.upstream import WAIT_S

PASSWORD = "a long enough passphrase"
CONSENT = {"adult": True, "terms_version": "2026-03-08", "policy_version": "2026-03-08"}

MOMENT_S = 0.002
"""Passes before each request, so that what happened one after the other is stored in that order."""


def settings_for(**accounts: Any) -> Settings:
    """Settings of a site behind a proxy on loopback, whose passwords cost little."""
    return Settings(
        key_pepper=SecretStr(PEPPER.decode()),
        server=ServerSettings(proxies=("127.0.0.1",)),
        accounts=AccountSettings(password_memory_kib=8_192, even_answers_ms=0, **accounts),
    )


class Browser:
    """A browser of somebody: an address on the network, a key that does not leave it, and its tokens."""

    def __init__(self, site: "Site", ip: str = "203.0.113.7") -> None:
        self.site = site
        self.key = ECKey.generate_key("P-256")
        self.ip = ip
        self.tokens: dict[str, Any] = {}
        agent = {"User-Agent": "Mozilla/5.0 (Test)"}
        self.client = httpx.AsyncClient(base_url=site.url, headers=agent, timeout=WAIT_S)

    def proof(self, method: str, path: str, token: str | None = None, **changes: Any) -> str:
        """A proof for one request; `changes` replace claims."""
        public = {name: self.key.as_dict()[name] for name in ("kty", "crv", "x", "y")}
        claims: dict[str, Any] = {
            "jti": uuid.uuid4().hex,
            "htm": method,
            "htu": self.site.url + path,
            "iat": self.site.clock.now_ns() // 10**9,
        }
        if token is not None:
            claims["ath"] = hash_of(token)
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public}
        return jws.serialize_compact(head, json.dumps({**claims, **changes}).encode(), self.key)

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request, with a proof, and with the access token when there is one and the path wants it."""
        self.site.clock.move(MOMENT_S)
        sent = {"X-Forwarded-For": self.ip, **headers}
        token = self.tokens.get("access_token") if not path.startswith("/api/auth/") or path.endswith("out") else None
        if token is not None:
            sent.setdefault("Authorization", f"DPoP {token}")
        sent.setdefault("DPoP", self.proof(method, path.partition("?")[0], token))
        return await self.client.request(method, path, json=body, headers=sent)

    async def send_raw(self, method: str, path: str, body: Any) -> httpx.Response:
        """As `send`, with JSON that well-behaved clients do not write: lone surrogates, infinity."""
        self.site.clock.move(MOMENT_S)
        token = self.tokens.get("access_token") if not path.startswith("/api/auth/") else None
        headers = {"X-Forwarded-For": self.ip, "Content-Type": "application/json"}
        headers["DPoP"] = self.proof(method, path, token)
        if token is not None:
            headers["Authorization"] = f"DPoP {token}"
        return await self.client.request(method, path, content=json.dumps(body).encode(), headers=headers)

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.send("POST", path, body)

    async def get(self, path: str) -> httpx.Response:
        return await self.send("GET", path)

    async def register(self, email: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
        return await self.post("/api/auth/register", email=email, password=password, **CONSENT, **more)

    async def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        """Keeps the tokens when it works."""
        return self.keep(await self.post("/api/auth/sign-in", email=email, password=password))

    def keep(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code == 200 and "access_token" in answer.json():
            self.tokens = answer.json()
        return answer

    async def refresh(self, token: str = "") -> httpx.Response:
        body = {"refresh_token": token or self.tokens["refresh_token"]}
        return self.keep(await self.send("POST", "/api/auth/refresh", body))

    async def join(self, email: str, password: str = PASSWORD) -> "Browser":
        """Registers, verifies and signs in."""
        assert (await self.register(email, password)).status_code == 202
        verified = await self.post("/api/auth/verify", token=self.site.link_to(email))
        assert verified.status_code == 200, verified.text
        assert (await self.sign_in(email, password)).status_code == 200
        return self

    async def enrol(self) -> "Authenticator":
        """Sets up a second factor."""
        begun = await self.post("/api/me/second-factor")
        authenticator = Authenticator(self.site, begun.json()["secret"])
        confirmed = await self.post("/api/me/second-factor/confirm", code=authenticator.code())
        assert confirmed.status_code == 200, confirmed.text
        authenticator.recovery_codes = confirmed.json()["recovery_codes"]
        return authenticator


class Authenticator:
    """The application on a telephone."""

    def __init__(self, site: "Site", secret: str) -> None:
        self.site = site
        self.secret = secret
        self.recovery_codes: list[str] = []

    def code(self) -> str:
        step = self.site.clock.now_ns() // 10**9 // STEP_S
        return code_at(base64.b32decode(self.secret), step)


class Site:
    """The served application and what stands behind it."""

    def __init__(self, engine: Engine, clock: MovableClock, settings: Settings, *routers: APIRouter) -> None:
        self.engine = engine
        self.clock = clock
        self.settings = settings
        self.ids = IdSource()
        self.tools = tools_of(settings, self.ids)
        self.threads = DatabaseThreads()
        self.failures: list[BaseException] = []
        self.parts = people_parts(settings, engine, self.threads, clock, self.ids)
        self.app = build_surface(
            readiness=Readiness({}, clock),
            clock=clock,
            ids=self.ids,
            failed=self.failures.append,
            routers=(*self.parts.routers, *routers),
            authenticate=self.parts.authenticate,
        )
        self.url = ""
        self.browsers: list[Browser] = []

    def browser(self, ip: str = "203.0.113.7") -> Browser:
        made = Browser(self, ip)
        self.browsers.append(made)
        return made

    def mails(self, address: str, kind: str = "") -> list[dict[str, Any]]:
        """The values of mails to an address, the oldest first."""
        wanted = select(mail_outbox).where(mail_outbox.c.address == address).order_by(mail_outbox.c.id)
        with read(self.engine) as connection:
            rows = connection.execute(wanted).all()
        return [{"kind": row.kind, **json.loads(row.details)} for row in rows if kind in ("", row.kind)]

    def link_to(self, address: str) -> str:
        """The token in the newest mail with a link to that address."""
        links = [mail["link"] for mail in self.mails(address) if "#token=" in mail.get("link", "")]
        return self.tools.seal.finished(links[-1]).partition("#token=")[2]

    def account_of(self, address: str) -> Any:
        """The rows of a person: account and person joined."""
        joined = accounts.join(people, people.c.account_id == accounts.c.id)
        wanted = select(accounts, people).select_from(joined).where(people.c.address_folded == address.lower())
        with read(self.engine) as connection:
            return connection.execute(wanted).one()

    def credit_of(self, address: str) -> int:
        with read(self.engine) as connection:
            return (wallet_of(connection, self.account_of(address).id) or EMPTY_WALLET).balance_nusd

    def make_operator(self, address: str) -> None:
        changed = update(people).where(people.c.address_folded == address)
        with write(self.engine) as connection:
            connection.execute(changed.values(role="operator"))


def hash_of(token: str) -> str:
    """A proof's claim `ath`."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


@contextlib.asynccontextmanager
async def site_on(
    engine: Engine, clock: MovableClock, settings: Settings | None = None, *routers: APIRouter
) -> AsyncIterator[Site]:
    """Serves on a loopback socket until the end of the block."""
    site = Site(engine, clock, settings or settings_for(), *routers)
    config = uvicorn.Config(site.app, host="127.0.0.1", port=0, lifespan="off", log_config=None, proxy_headers=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    site.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield site
    finally:
        for browser in site.browsers:
            await browser.client.aclose()
        server.should_exit = True
        await serving
        site.parts.passwords.close()
        site.threads.close()
    assert not site.failures, site.failures


def secrets_in(text: str) -> list[str]:
    """Every credential of ours that stands in a text."""
    return re.findall(r"df-[a-z]{2}-[0-9A-Za-z]+", text)
