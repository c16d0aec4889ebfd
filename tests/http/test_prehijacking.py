"""The five attacks on accounts before their owner has them (Sudhodanan and Paverd, USENIX Security 2022).

Mallory prepares an account with Alice's address; Alice comes later. Each time, Mallory must end with nothing.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine

from dragonfly.infra.database import read
from dragonfly.keys.queries import keys_of_account
from tests.factories import MovableClock, make_key
from tests.fakes.discord import CLIENT_ID, CLIENT_SECRET, FakeDiscord, a_user, fake_discord
from tests.http.people import CONSENT, PASSWORD, Browser, Site, settings_for, site_on

ALICE, MALLORY = "alice@example.com", "mallory@example.com"
ALICES_PASSWORD = "alice chooses this one"


@pytest.fixture
def discord() -> Iterator[FakeDiscord]:
    with fake_discord() as fake:
        yield fake


@pytest.fixture
async def site(engine: Engine, clock: MovableClock, discord: FakeDiscord) -> AsyncIterator[Site]:
    settings = settings_for(discord_client_id=CLIENT_ID, discord_client_secret=CLIENT_SECRET, discord_url=discord.url)
    async with site_on(engine, clock, settings) as made:
        yield made


async def by_discord(browser: Browser, discord: FakeDiscord, number: int, email: str, **user: bool | None) -> int:
    """The status of a sign-in with Discord."""
    begun = await browser.post("/api/auth/discord/begin", consent=CONSENT)
    query = discord.agree(begun.json()["url"], a_user(number, email, **user))
    return browser.keep(await browser.post("/api/auth/discord/finish", **query)).status_code


async def owner_takes_the_account(site: Site) -> Browser:
    """Alice asks for a new password, as one does who is told that the address has an account."""
    alice = site.browser("203.0.113.7")
    await alice.post("/api/auth/password-reset", email=ALICE)
    reset = await alice.post("/api/auth/password-reset/confirm", token=site.link_to(ALICE), password=ALICES_PASSWORD)
    assert alice.keep(reset).status_code == 200
    return alice


async def test_classic_federated_merge(site: Site, discord: FakeDiscord) -> None:
    """Mallory registers with a password; Alice signs in with a provider; Mallory's password must be void."""
    mallory = site.browser("198.51.100.66")
    await mallory.register(ALICE)
    assert (await mallory.sign_in(ALICE)).status_code == 200
    make_key(site.engine, site.account_of(ALICE).id)
    alice = site.browser()
    assert await by_discord(alice, discord, 1, ALICE) == 200
    assert (await alice.get("/api/me")).json()["email_verified"] is True
    assert (await mallory.get("/api/me")).status_code == 401
    assert (await mallory.refresh()).status_code == 401
    assert (await mallory.sign_in(ALICE)).status_code == 401
    with read(site.engine) as connection:
        (key,) = keys_of_account(connection, site.account_of(ALICE).id)
    assert key.revoked_at_ns is not None


async def test_unexpired_session(site: Site) -> None:
    """Mallory keeps a session open; Alice resets the password; the session must be over."""
    mallory = site.browser("198.51.100.66")
    await mallory.register(ALICE)
    await mallory.sign_in(ALICE)
    await mallory.enrol()
    alice = await owner_takes_the_account(site)
    assert (await mallory.get("/api/me")).status_code == 401
    assert (await mallory.refresh()).status_code == 401
    me = (await alice.get("/api/me")).json()
    assert (me["email_verified"], me["second_factor"]) == (True, False)
    assert site.credit_of(ALICE) == 100_000_000


async def test_trojan_identifier(site: Site, discord: FakeDiscord) -> None:
    """Mallory connects an identity of their own; Alice resets the password; that identity must not let Mallory in."""
    mallory = site.browser("198.51.100.66")
    await mallory.register(ALICE)
    await mallory.sign_in(ALICE)
    for email in (MALLORY, ALICE):
        url = (await mallory.post("/api/me/identities/discord")).json()["url"]
        query = discord.agree(url, a_user(66, email, verified=email == MALLORY))
        assert (await mallory.post("/api/auth/discord/finish", **query)).status_code in (403, 409)
    waiting = discord.agree((await mallory.post("/api/me/identities/discord")).json()["url"], a_user(66, ALICE))
    alice = await owner_takes_the_account(site)
    assert (await mallory.post("/api/auth/discord/finish", **waiting)).status_code in (400, 403)
    assert (await alice.get("/api/me/identities")).json() == {"data": []}
    assert await by_discord(mallory, discord, 66, MALLORY) == 200
    assert (await mallory.get("/api/me")).json()["email"] == MALLORY


async def test_unexpired_email_change(site: Site) -> None:
    """Mallory begins to change the address; Alice resets the password; the link must be void."""
    mallory = site.browser("198.51.100.66")
    await mallory.register(ALICE)
    await mallory.sign_in(ALICE)
    assert (await mallory.post("/api/me/email", email=MALLORY)).json()["error"]["code"] == "address_unverified"
    owner = await site.browser().join("charlie@example.com")
    await owner.post("/api/me/email", email=MALLORY)
    token = site.link_to(MALLORY)
    await owner.post("/api/auth/password-reset", email="charlie@example.com")
    await owner.post(
        "/api/auth/password-reset/confirm", token=site.link_to("charlie@example.com"), password=ALICES_PASSWORD
    )
    void = await mallory.post("/api/auth/email/confirm", token=token)
    assert void.json()["error"]["code"] == "link_invalid"


@pytest.mark.parametrize("verified", [False, None])
async def test_non_verifying_provider(site: Site, discord: FakeDiscord, verified: bool | None) -> None:
    """Mallory's provider names Alice's address without having verified it; that must neither join nor make one."""
    mallory = site.browser("198.51.100.66")
    assert await by_discord(mallory, discord, 66, ALICE, verified=verified) == 403
    alice = await site.browser().join(ALICE)
    assert await by_discord(mallory, discord, 66, ALICE, verified=verified) == 403
    assert not mallory.tokens
    assert (await alice.get("/api/me")).status_code == 200


async def test_an_owner_who_clicks_the_link_of_a_stranger_gives_nothing_away(site: Site) -> None:
    mallory = site.browser("198.51.100.66")
    await mallory.register(ALICE)
    alice = site.browser()
    clicked = await alice.post("/api/auth/verify", token=site.link_to(ALICE))
    assert clicked.json()["error"]["code"] == "password_needed"
    assert site.account_of(ALICE).verified_at_ns is None
    assert site.credit_of(ALICE) == 0


async def test_an_account_that_is_somebodys_is_not_joined_by_the_same_address(
    site: Site, discord: FakeDiscord
) -> None:
    """Addresses are given to other people: a new identity with the old address does not enter the old account."""
    alice = await site.browser().join(ALICE)
    stranger = site.browser("198.51.100.66")
    assert await by_discord(stranger, discord, 7, ALICE) == 403
    assert not stranger.tokens
    assert (await alice.sign_in(ALICE, PASSWORD)).status_code == 200
