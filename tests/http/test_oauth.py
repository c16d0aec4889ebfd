"""Signing in with Google (a real OpenID provider) and Discord, and what is refused on the way back."""

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from oidc_provider_mock import run_server_in_thread

from dragonfly.core.credentials import Seal, TokenKind
from tests.factories import MovableClock, make_database
from tests.fakes import openid
from tests.fakes.discord import CLIENT_ID, CLIENT_SECRET, FakeDiscord, a_user, fake_discord
from tests.fakes.openid import ForgingProvider, agree, forging_provider
from tests.http.people import CONSENT, Browser, Site, settings_for, site_on

ALICE, BOB = "alice@example.com", "bob@example.com"
SUBJECT = "10769150350006150715113082367"


@pytest.fixture
def discord() -> Iterator[FakeDiscord]:
    with fake_discord() as fake:
        yield fake


@pytest.fixture
def issuer() -> Iterator[str]:
    with run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


async def a_site(tmp_path: Path, discord: FakeDiscord, issuer: str) -> AsyncIterator[Site]:
    engine = make_database(tmp_path)
    settings = settings_for(
        google_client_id=openid.CLIENT_ID,
        google_client_secret=openid.CLIENT_SECRET,
        google_issuer=issuer,
        discord_client_id=CLIENT_ID,
        discord_client_secret=CLIENT_SECRET,
        discord_url=discord.url,
    )
    # Id tokens carry the provider's time, which is the machine's.
    async with site_on(engine, MovableClock(time.time_ns()), settings) as made:
        yield made
    engine.dispose()


@pytest.fixture
async def site(tmp_path: Path, discord: FakeDiscord, issuer: str) -> AsyncIterator[Site]:
    async for made in a_site(tmp_path, discord, issuer):
        yield made


@pytest.fixture
def forger() -> Iterator[ForgingProvider]:
    with forging_provider() as fake:
        yield fake


@pytest.fixture
async def forged(tmp_path: Path, discord: FakeDiscord, forger: ForgingProvider) -> AsyncIterator[Site]:
    async for made in a_site(tmp_path, discord, forger.url):
        yield made


async def address(browser: Browser, provider: str, consent: dict[str, Any] | None = CONSENT) -> str:
    """Where the browser is sent."""
    begun = await browser.post(f"/api/auth/{provider}/begin", consent=consent, language="zh")
    assert begun.status_code == 200, begun.text
    return str(begun.json()["url"])


async def finish(browser: Browser, provider: str, query: dict[str, str]) -> Any:
    kept = {name: query[name] for name in ("code", "state", "iss") if name in query}
    return browser.keep(await browser.post(f"/api/auth/{provider}/finish", **kept))


async def test_what_is_not_configured_is_not_offered(tmp_path: Path) -> None:
    engine = make_database(tmp_path)
    async with site_on(engine, MovableClock()) as site:
        browser = site.browser()
        offered = (await browser.get("/api/auth/providers")).json()
        assert (offered["providers"], offered["registration"]) == ([], True)
        for path in ("begin", "finish"):
            answer = await browser.post(
                f"/api/auth/google/{path}", **({"code": "x", "state": "x"} if path[0] == "f" else {})
            )
            assert answer.json()["error"]["code"] == "provider_unknown"
    engine.dispose()


async def test_alice_comes_with_google_and_has_a_verified_account_with_trial_credit(site: Site) -> None:
    alice = site.browser()
    assert (await alice.get("/api/auth/providers")).json()["providers"] == ["discord", "google"]
    query = agree(
        await address(alice, "google"),
        SUBJECT,
        email=ALICE,
        email_verified=True,
        name="Alice",
    )
    assert (await finish(alice, "google", query)).json()["status"] == "signed_in"
    me = (await alice.get("/api/me")).json()
    assert (me["email"], me["email_verified"], me["name"], me["language"]) == (ALICE, True, "Alice", "zh")
    assert me["password"] is False
    assert site.credit_of(ALICE) == 100_000_000
    again = site.browser()
    query = agree(
        await address(again, "google", None),
        SUBJECT,
        email="moved@example.com",
        email_verified=True,
    )
    assert (await finish(again, "google", query)).status_code == 200
    assert (await again.get("/api/me")).json()["id"] == me["id"]


async def test_alice_comes_with_discord(site: Site, discord: FakeDiscord) -> None:
    alice = site.browser()
    query = discord.agree(await address(alice, "discord"), a_user(1, ALICE))
    assert (await finish(alice, "discord", query)).json()["status"] == "signed_in"
    assert (await alice.get("/api/me")).json()["email"] == ALICE
    (form,) = discord.forms
    assert form["redirect_uri"].endswith("/auth/callback/discord")
    connected = (await alice.get("/api/me/identities")).json()["data"]
    assert [(one["provider"], one["email"]) for one in connected] == [("discord", ALICE)]


async def test_a_new_account_needs_consent(site: Site, discord: FakeDiscord) -> None:
    for consent in (None, {**CONSENT, "adult": False}, {**CONSENT, "terms_version": "old"}):
        browser = site.browser()
        query = discord.agree(await address(browser, "discord", consent), a_user(1, ALICE))
        assert (await finish(browser, "discord", query)).json()["error"]["code"] == "consent_needed"


async def test_a_second_factor_is_asked_for_after_a_provider_too(site: Site, discord: FakeDiscord) -> None:
    alice = site.browser()
    await finish(alice, "discord", discord.agree(await address(alice, "discord"), a_user(1, ALICE)))
    await alice.enrol()
    query = discord.agree(await address(alice, "discord"), a_user(1, ALICE))
    assert (await finish(alice, "discord", query)).json()["status"] == "second_factor_needed"


async def test_alice_connects_a_provider_from_within_and_disconnects_it(site: Site, discord: FakeDiscord) -> None:
    alice = await site.browser().join(ALICE)
    for user, code in ((a_user(5, BOB), "identity_taken"), (a_user(6, ALICE, verified=False), "identity_unverified")):
        url = (await alice.post("/api/me/identities/discord")).json()["url"]
        assert (await finish(alice, "discord", discord.agree(url, user))).json()["error"]["code"] == code
    url = (await alice.post("/api/me/identities/discord")).json()["url"]
    assert (await finish(alice, "discord", discord.agree(url, a_user(1, ALICE)))).json() == {"status": "connected"}
    telephone = site.browser()
    await finish(telephone, "discord", discord.agree(await address(telephone, "discord", None), a_user(1, ALICE)))
    assert (await telephone.get("/api/me")).json()["email"] == ALICE
    assert (await alice.send("DELETE", "/api/me/identities/google")).json()["error"]["code"] == "identity_not_found"
    assert (await alice.send("DELETE", "/api/me/identities/discord")).status_code == 200
    query = discord.agree(await address(telephone, "discord", None), a_user(1, ALICE))
    assert (await finish(telephone, "discord", query)).json()["error"]["code"] == "identity_not_linked"


async def test_the_last_way_in_is_not_given_up(site: Site, discord: FakeDiscord) -> None:
    alice = site.browser()
    await finish(alice, "discord", discord.agree(await address(alice, "discord"), a_user(1, ALICE)))
    assert (await alice.send("DELETE", "/api/me/identities/discord")).json()["error"]["code"] == "last_way_in"
    assert (await alice.post("/api/me/password", password="a passphrase of mine")).status_code == 200
    assert (await alice.send("DELETE", "/api/me/identities/discord")).status_code == 200


async def test_a_state_is_for_one_browser_one_provider_one_time_and_ten_minutes(
    site: Site, discord: FakeDiscord
) -> None:
    mallory, alice = site.browser("198.51.100.66"), site.browser()
    planted = discord.agree(await address(mallory, "discord"), a_user(66, "mallory@example.com"))
    assert (await finish(alice, "discord", planted)).json()["error"]["code"] == "provider_refused"
    assert (await finish(mallory, "discord", planted)).json()["error"]["code"] == "link_invalid"
    mixed = discord.agree(await address(alice, "discord"), a_user(1, ALICE))
    assert (await finish(alice, "google", mixed)).json()["error"]["code"] == "provider_refused"
    used = discord.agree(await address(alice, "discord"), a_user(1, ALICE))
    assert (await finish(alice, "discord", used)).status_code == 200
    assert (await finish(alice, "discord", used)).json()["error"]["code"] == "link_invalid"
    late = discord.agree(await address(alice, "discord"), a_user(1, ALICE))
    site.clock.move(600)
    assert (await finish(alice, "discord", late)).json()["error"]["code"] == "link_invalid"
    forged = Seal({1: b"another pepper, thirty-two bytes at least"}).new_token(TokenKind.STATE).reveal()
    for state in ("", "x", forged):
        refused = await finish(alice, "discord", {"code": "x", "state": state})
        assert refused.json()["error"]["code"] == "provider_refused"


async def test_a_code_of_another_journey_is_refused(site: Site, discord: FakeDiscord) -> None:
    """Its PKCE verifier, and at an OpenID provider its nonce, belong to another state."""
    alice, mallory = site.browser(), site.browser("198.51.100.66")
    theirs = discord.agree(await address(mallory, "discord"), a_user(66, "mallory@example.com"))
    mine = discord.agree(await address(alice, "discord"), a_user(1, ALICE))
    injected = await finish(alice, "discord", {**mine, "code": theirs["code"]})
    assert injected.json()["error"]["code"] == "provider_refused"
    theirs = agree(await address(mallory, "google"), "66", email="mallory@example.com", email_verified=True)
    mine = agree(await address(alice, "google"), "1", email=ALICE, email_verified=True)
    injected = await finish(alice, "google", {**mine, "code": theirs["code"]})
    assert injected.json()["error"]["code"] == "provider_refused"
    assert not alice.tokens


@pytest.mark.parametrize(
    "claims", [{"email": ALICE}, {"email": ALICE, "email_verified": "true"}, {"email_verified": True}]
)
async def test_an_address_that_google_does_not_vouch_for_is_refused(site: Site, claims: dict[str, Any]) -> None:
    browser = site.browser()
    query = agree(await address(browser, "google"), "1", **claims)
    assert (await finish(browser, "google", query)).json()["error"]["code"] == "identity_unverified"


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"},
        {"aud": "another-client"},
        {"aud": [openid.CLIENT_ID, "another-client"]},
        {"azp": "another-client"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": "x" * 300},
    ],
    ids=str,
)
async def test_an_id_token_that_is_not_for_this_sign_in_is_refused(
    forged: Site, forger: ForgingProvider, change: dict[str, Any]
) -> None:
    browser = forged.browser()
    url = await address(browser, "google")
    claims = {**forger.good_claims(url), **change}
    forger.claims = {name: value for name, value in claims.items() if value is not None}
    refused = await finish(browser, "google", {"code": "x", "state": state_of(url)})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "provider_refused")


async def test_an_id_token_that_the_provider_did_not_sign_is_refused(forged: Site, forger: ForgingProvider) -> None:
    public = forger.key.as_pem(private=False)
    makers = {
        "no signature": lambda claims: forger.sign(claims).rpartition(".")[0] + ".",
        "another key": lambda claims: forger.sign(claims, key=RSAKey.generate_key(2048)),
        "the public key as a secret": lambda claims: with_shared_secret(claims, public),
        "not a token": lambda claims: "x",
    }
    for name, make in makers.items():
        browser = forged.browser()
        url = await address(browser, "google")
        forger.claims, forger.make = forger.good_claims(url), make
        refused = await finish(browser, "google", {"code": "x", "state": state_of(url)})
        assert refused.json()["error"]["code"] == "provider_refused", name
    assert forger.asked.count("/keys") == 1, "a forged token does not make us ask for keys each time"


async def test_a_provider_may_change_its_key(forged: Site, forger: ForgingProvider) -> None:
    for number in range(2):
        forger.key = RSAKey.generate_key(2048)
        browser = forged.browser()
        url = await address(browser, "google")
        forger.claims = {**forger.good_claims(url), "sub": str(number), "email": f"person{'ab'[number]}@example.com"}
        answer = await finish(browser, "google", {"code": "x", "state": state_of(url), "iss": forger.url})
        assert answer.status_code == 200, answer.text
        forged.clock.move(61)


async def test_the_answer_of_another_issuer_is_refused(forged: Site, forger: ForgingProvider) -> None:
    browser = forged.browser()
    url = await address(browser, "google")
    forger.claims = forger.good_claims(url)
    query = {"code": "x", "state": state_of(url), "iss": "https://evil.example"}
    assert (await finish(browser, "google", query)).json()["error"]["code"] == "provider_refused"
    assert "/token" not in forger.asked


async def test_a_provider_that_is_away_is_not_the_callers_fault(tmp_path: Path) -> None:
    engine = make_database(tmp_path)
    settings = settings_for(google_client_id="x", google_client_secret="x", google_issuer="http://127.0.0.1:1")
    async with site_on(engine, MovableClock(), settings) as site:
        answer = await site.browser().post("/api/auth/google/begin")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_away")
    engine.dispose()


def with_shared_secret(claims: dict[str, Any], secret: bytes) -> str:
    """A token that is right if its reader takes `secret` for one that both sides share."""
    parts = [json.dumps({"alg": "HS256", "typ": "JWT"}).encode(), json.dumps(claims).encode()]
    body = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    signature = hmac.digest(secret, body.encode(), "sha256")
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def state_of(url: str) -> str:
    return url.partition("state=")[2].partition("&")[0]
