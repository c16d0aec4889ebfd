"""Somebody has a copy of the database: whatever stands in it is tried as every kind of credential."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Connection, Engine, select

from dragonfly.accounts.second_factors import code_at, show_second_factor
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import KEY_SECRET_LENGTH, base62, is_well_formed_key
from dragonfly.infra.database import read, write
from dragonfly.keys.codes import AppRequest, create_code, use_code
from dragonfly.keys.management import NewManagementKey, Scope, issue_management_key, management_key_by_secret
from dragonfly.keys.queries import key_by_digest
from dragonfly.privacy.inventory import all_tables
from tests.factories import MovableClock, make_key, make_peppers
from tests.http.people import PASSWORD, Authenticator, Browser, Site, site_on

ALICE = "alice@example.com"
VERIFIER = "a-verifier-of-an-app-that-is-long-enough-for-it"
PREFIXES = ("", "sk-df-", "mk-df-", *(kind.value for kind in TokenKind))
WORD = re.compile(r"[A-Za-z0-9_+/=.~-]{4,}")
PEPPERS = make_peppers()


@pytest.fixture
async def site(engine: Engine, clock: MovableClock) -> AsyncIterator[Site]:
    async with site_on(engine, clock) as made:
        yield made


def values_of(engine: Engine) -> Iterator[object]:
    """Every value of every row."""
    with read(engine) as connection:
        for table in all_tables():
            for row in connection.execute(select(table)):
                yield from row


def candidates(engine: Engine) -> set[str]:
    """What somebody would try: texts whole and in words; bytes as they are usually written, keys as ours are."""
    found: set[str] = set()
    for value in values_of(engine):
        if isinstance(value, str):
            found |= {value, *WORD.findall(value)}
        elif isinstance(value, bytes):
            packed = base64.urlsafe_b64encode(value).decode()
            number = base62(int.from_bytes(value[:32], "big"), KEY_SECRET_LENGTH)
            found |= {value.hex(), packed, packed.rstrip("="), base64.b32encode(value).decode(), number}
    return found


class Thief:
    """Tries one text as everything. It holds no key of the installation: the site checks what it brings."""

    def __init__(self, site: Site, account_id: AccountId, authenticator: Authenticator) -> None:
        self.site = site
        self.account_id = account_id
        self.authenticator = authenticator

    def opens(self, connection: Connection, text: str) -> set[str]:
        """What the text opens, by itself or behind a prefix."""
        found: set[str] = set()
        for prefix in PREFIXES:
            brought = prefix + text
            secret = brought.encode()
            if is_well_formed_key(secret) and key_by_digest(connection, PEPPERS, secret) is not None:
                found.add("API key")
            now_ns = self.site.clock.now_ns()
            if management_key_by_secret(connection, PEPPERS, secret, now_ns=now_ns) is not None:
                found.add("management key")
            found |= {kind.name for kind in TokenKind if self.site.tools.seal.read(kind, brought) is not None}
        return found | self.opens_as_second_factor(connection, text)

    def opens_as_second_factor(self, connection: Connection, text: str) -> set[str]:
        """As a code, a recovery code, or the secret behind the codes."""
        now_ns = self.site.clock.now_ns()
        seal = self.site.tools.seal
        if show_second_factor(connection, seal, self.account_id, text, now_ns=now_ns):
            return {"second factor"}
        step = now_ns // 10**9 // 30
        secrets = {text.encode(), *decoded(text)}
        codes = {code_at(secret[:size], step) for secret in secrets for size in (20, len(secret)) if secret}
        return {"secret of the second factor"} if self.authenticator.code() in codes else set()


def decoded(text: str) -> Iterator[bytes]:
    """The bytes that a text may stand for."""
    for decode in (bytes.fromhex, base64.b32decode, base64.urlsafe_b64decode):
        try:
            yield decode(text)
        except ValueError:
            continue


async def lived_in(site: Site) -> tuple[Browser, Authenticator, dict[str, str]]:
    """A site where every kind of credential is in use; the credentials."""
    alice = await site.browser().join(ALICE)
    authenticator = await alice.enrol()
    site.clock.move(31)
    account_id = AccountId(site.account_of(ALICE).id)
    await alice.refresh()
    ticket = (await site.browser().sign_in(ALICE)).json()["ticket"]
    await alice.post("/api/auth/password-reset", email=ALICE)
    _, key = make_key(site.engine, account_id, peppers=PEPPERS)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    now_ns = site.clock.now_ns()
    order = AppRequest(challenge, "", "app", 10**9, now_ns + 10**15)
    with write(site.engine) as connection:
        wanted = NewManagementKey("all", frozenset(Scope))
        managing = issue_management_key(connection, PEPPERS, account_id, wanted, now_ns=now_ns)
        code = create_code(connection, account_id, order, now_ns=now_ns)
    credentials = {
        "API key": key.decode(),
        "management key": managing.secret.reveal(),
        "ACCESS": alice.tokens["access_token"],
        "REFRESH": alice.tokens["refresh_token"],
        "TICKET": ticket,
        "RESET": site.link_to(ALICE),
        "second factor": authenticator.recovery_codes[0],
        "secret of the second factor": authenticator.secret,
        "code": code.reveal(),
    }
    return alice, authenticator, credentials


async def test_nothing_in_a_copy_of_the_database_opens_anything(site: Site) -> None:
    _, authenticator, credentials = await lived_in(site)
    account = site.account_of(ALICE)
    thief = Thief(site, AccountId(account.id), authenticator)
    code = credentials.pop("code")
    tried = candidates(site.engine)
    assert len(tried) > 100
    with write(site.engine) as connection:
        opened = {text: what for text in tried if (what := thief.opens(connection, text))}
        bought = [text for text in tried if use_code(connection, text, VERIFIER, now_ns=site.clock.now_ns())]
        assert (opened, bought) == ({}, [])
        for what, credential in credentials.items():
            assert what in thief.opens(connection, credential), "this thief would have noticed"
        assert use_code(connection, code, VERIFIER, now_ns=site.clock.now_ns()) is not None
    assert not any(credential in text for text in tried for credential in (*credentials.values(), code, PASSWORD))
    passwords, stored = site.parts.passwords, account.password_hash
    assert not [text for text in sorted(tried, key=len)[:60] if await passwords.verify(stored, text)]
    assert await passwords.verify(stored, PASSWORD)
