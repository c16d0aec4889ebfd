"""Keys: stored as a keyed hash, refused without a query when malformed, and revoked everywhere within a second."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, insert, select

from dragonfly.accounts.actions import verify_account
from dragonfly.admission.errors import InvalidKey, StoreUnavailable
from dragonfly.admission.keycache import FRESH_S, NEGATIVE_ENTRIES_MAX, STALE_S_MAX, KeyCache
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.secrets import KEY_LENGTH, is_well_formed_key, key_hint, key_id_of, new_key
from dragonfly.infra.changes import CHANGES_PAGE_MAX, record_change
from dragonfly.infra.database import SCHEMA, DatabaseThreads, open_engine, read, write
from dragonfly.keys.actions import KeyInvalid, KeyNotFound, KeyOwnerUnknown, limit_key, revoke_key
from dragonfly.keys.queries import key_by_digest, key_of_account, keys_of_account, owner_of_key
from dragonfly.keys.rules import KeyLimits, Peppers
from dragonfly.keys.tables import key_spend, keys
from dragonfly.settings import AdmissionSettings
from tests.factories import PEPPER, START_NS, MovableClock, make_account, make_customer, make_key, make_peppers
from tests.fakes.outage import Outage, Trouble

T = TypeVar("T")


def make_cache(
    engine: Engine,
    clock: MovableClock,
    *,
    threads: DatabaseThreads | None = None,
    peppers: Peppers | None = None,
    settings: AdmissionSettings | None = None,
) -> KeyCache:
    return KeyCache(
        settings or AdmissionSettings(), engine, threads or DatabaseThreads(), peppers or make_peppers(), clock
    )


async def test_a_key_is_found_cached_and_carries_the_installation_s_defaults(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    assert cache.cached(alice.secret) is None
    policy = await cache.find(alice.secret)
    assert cache.cached(alice.secret) is policy
    assert (policy.key_id, policy.account_id, policy.verified) == (alice.key_id, alice.account_id, True)
    assert (policy.requests_per_minute, policy.concurrency_max) == (600, 200)
    assert (policy.models, policy.expires_at_ns, policy.spend_limit_nusd) == (None, None, None)


async def test_a_key_s_own_limits_replace_the_defaults(engine: Engine, clock: MovableClock) -> None:
    limits = KeyLimits(0, 5, 70, frozenset({"a/b", "c/d"}), START_NS + 10**9)
    alice = make_customer(engine, limits=limits)
    cache = make_cache(engine, clock)
    policy = await cache.find(alice.secret)
    assert (policy.requests_per_minute, policy.concurrency_max, policy.spend_limit_nusd) == (0, 5, 70)
    assert policy.models == {"a/b", "c/d"}
    clock.move(0.99)
    assert cache.cached(alice.secret) is policy
    clock.move(0.01)
    assert cache.cached(alice.secret) is None
    with pytest.raises(InvalidKey):
        await cache.find(alice.secret)


def malformed(secret: bytes) -> list[bytes]:
    swapped = bytearray(secret)
    swapped[10], swapped[11] = swapped[11], swapped[10]
    wrong = bytearray(secret)
    wrong[20] ^= 1
    return [
        b"",
        secret[:-1],
        secret + b"0",
        b" " + secret,
        secret + b"\n",
        secret.replace(b"sk-df-", b"sk-or-"),
        bytes(wrong),
        bytes(swapped) if swapped != bytearray(secret) else b"x",
        secret[:-1] + b"'",
        b"sk-df-" + b"\xff" * (KEY_LENGTH - 6),
        b"' OR 1=1 --".ljust(KEY_LENGTH, b"x"),
        b"\x00" * 1_000_000,
    ]


async def test_malformed_keys_cost_no_query(url: str, engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    shaky = open_engine(url)
    outage = Outage(shaky)
    cache = make_cache(shaky, clock)
    for secret in malformed(alice.secret):
        assert cache.cached(secret) is None
        with pytest.raises(InvalidKey):
            await cache.find(secret)
    assert (outage.statements, outage.connections) == (0, 0)
    await cache.find(alice.secret)
    assert outage.statements > 0
    shaky.dispose()


async def test_unknown_keys_are_remembered_for_a_while_and_in_bounds(
    url: str, engine: Engine, clock: MovableClock
) -> None:
    shaky = open_engine(url)
    outage = Outage(shaky)
    cache = make_cache(shaky, clock)
    stranger = new_key().reveal().encode()
    with pytest.raises(InvalidKey):
        await cache.find(stranger)
    asked = outage.statements
    for _ in range(10):
        with pytest.raises(InvalidKey):
            await cache.find(stranger)
    assert outage.statements == asked
    clock.move(6.0)
    with pytest.raises(InvalidKey):
        await cache.find(stranger)
    assert outage.statements > asked
    assert NEGATIVE_ENTRIES_MAX == 10_000
    shaky.dispose()


async def test_a_stampede_for_one_key_asks_once(url: str, engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    shaky = open_engine(url)
    outage = Outage(shaky)
    cache = make_cache(shaky, clock)
    await cache.refresh()
    before = outage.statements
    policies = await asyncio.gather(*(cache.find(alice.secret) for _ in range(100)))
    assert len({id(policy) for policy in policies}) == 1
    assert outage.statements - before <= 4
    shaky.dispose()


async def test_a_revocation_reaches_every_worker_within_a_second(engine: Engine, clock: MovableClock) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    workers = [make_cache(engine, clock) for _ in range(2)]
    for worker in workers:
        for customer in (alice, bob):
            await worker.find(customer.secret)
    with write(engine) as connection:
        revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=clock.now_ns())
    clock.move(FRESH_S)
    for worker in workers:
        assert worker.cached(alice.secret) is None
        with pytest.raises(InvalidKey):
            await worker.find(alice.secret)
        assert worker.cached(bob.secret) is not None


async def test_changed_limits_and_verifications_arrive_too(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, is_verified=False)
    cache = make_cache(engine, clock)
    assert not (await cache.find(alice.secret)).verified
    with write(engine) as connection:
        verify_account(connection, alice.account_id, now_ns=clock.now_ns())
        limit_key(connection, alice.key_id, KeyLimits(requests_per_minute=7), account_id=alice.account_id)
    await cache.refresh()
    policy = await cache.find(alice.secret)
    assert (policy.verified, policy.requests_per_minute) == (True, 7)


async def test_too_many_changes_empty_the_cache(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    await cache.find(alice.secret)
    with write(engine) as connection:
        revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=clock.now_ns())
        for _ in range(CHANGES_PAGE_MAX + 1):
            record_change(connection, "key/other")
    await cache.refresh()
    assert cache.cached(alice.secret) is None


class _Interrupted(DatabaseThreads):
    """Lets something happen between the database's answer and its arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.after: Callable[[], Awaitable[None]] | None = None

    async def run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await super().run(work, *args, **kwargs)
        after, self.after = self.after, None
        if after is not None:
            await after()
        return answer


async def test_an_answer_from_before_a_revocation_is_not_kept(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    threads = _Interrupted()
    cache = make_cache(engine, clock, threads=threads)
    await cache.refresh()

    async def revoke_meanwhile() -> None:
        with write(engine) as connection:
            revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=clock.now_ns())
        await cache.refresh()

    threads.after = revoke_meanwhile
    with pytest.raises(InvalidKey):
        await cache.find(alice.secret)
    assert cache.cached(alice.secret) is None


async def test_without_the_database_known_keys_serve_for_a_while(
    url: str, engine: Engine, clock: MovableClock
) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    shaky = open_engine(url)
    outage = Outage(shaky)
    cache = make_cache(shaky, clock)
    policy = await cache.find(alice.secret)
    outage.trouble = Trouble.AWAY
    clock.move(STALE_S_MAX - 0.1)
    assert cache.cached(alice.secret) is None
    assert await cache.find(alice.secret) is policy
    with pytest.raises(StoreUnavailable):
        await cache.find(bob.secret)
    clock.move(0.2)
    with pytest.raises(StoreUnavailable):
        await cache.find(alice.secret)
    outage.trouble = Trouble.NONE
    clock.move(1.0)
    assert await cache.find(alice.secret) is not None
    assert await cache.find(bob.secret) is not None
    shaky.dispose()


async def test_the_cache_stays_in_its_bound(engine: Engine, clock: MovableClock) -> None:
    account_id = make_account(engine)
    secrets = [make_key(engine, account_id)[1] for _ in range(103)]
    cache = make_cache(engine, clock, settings=AdmissionSettings(key_cache_max=100))
    for secret in secrets:
        await cache.find(secret)
    assert sum(cache.cached(secret) is not None for secret in secrets) == 100
    assert cache.cached(secrets[-1]) is not None


def everything_stored(engine: Engine, folder: Path) -> bytes:
    """Every value of every table, as a dump would have it, and every byte of SQLite's files."""
    files = b"".join(file.read_bytes() for file in folder.iterdir())
    with read(engine) as connection:
        rows = [row for table in SCHEMA.tables.values() for row in connection.execute(table.select())]
    return files + b"\n".join(
        value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row if value
    )


async def test_a_copy_of_the_database_holds_no_usable_key(
    engine: Engine, clock: MovableClock, tmp_path: Path
) -> None:
    alice = make_customer(engine)
    dump = everything_stored(engine, tmp_path)
    secret_part = alice.secret[16:59]
    for needle in (alice.secret, secret_part, hashlib.sha256(alice.secret).digest(), PEPPER):
        assert needle not in dump
        assert needle.hex().encode() not in dump
    assert key_hint(alice.secret.decode()).encode() in dump
    thief = make_cache(engine, clock, peppers=Peppers({1: b"another pepper, as long as it has to be, but other"}))
    with pytest.raises(InvalidKey):
        await thief.find(alice.secret)


async def test_a_planted_digest_opens_nothing(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    planted = new_key().reveal().encode()
    with write(engine) as connection:
        forged = {"id": key_id_of(planted.decode()), "digest": hashlib.sha256(planted).digest()}
        copied = connection.execute(select(keys).where(keys.c.id == alice.key_id)).mappings().one()
        connection.execute(insert(keys).values({**copied, **forged}))
        connection.execute(insert(key_spend).values(key_id=forged["id"], spent_nusd=0, leased_nusd=0))
    cache = make_cache(engine, clock)
    with pytest.raises(InvalidKey):
        await cache.find(planted)


async def test_peppers_rotate_while_keys_go_on_working(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    both = Peppers({1: PEPPER, 2: b"the second pepper, also of thirty-two bytes or more"})
    assert (await make_cache(engine, clock, peppers=both).find(alice.secret)).key_id == alice.key_id
    second_only = Peppers({2: b"the second pepper, also of thirty-two bytes or more"})
    assert (await make_cache(engine, clock, peppers=second_only).find(alice.secret)).key_id == alice.key_id
    with pytest.raises(InvalidKey):
        await make_cache(engine, clock).find(alice.secret)


@pytest.mark.parametrize("peppers", [{}, {1: b"short"}, {0: PEPPER}])
def test_weak_peppers_are_refused(peppers: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="pepper"):
        Peppers(peppers)
    assert PEPPER.decode() not in repr(make_peppers())


def test_keys_belong_to_their_account(engine: Engine) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    with write(engine) as connection:
        with pytest.raises(KeyNotFound):
            revoke_key(connection, alice.key_id, account_id=bob.account_id, now_ns=START_NS)
        with pytest.raises(KeyNotFound):
            limit_key(connection, alice.key_id, KeyLimits(), account_id=bob.account_id)
    with read(engine) as connection:
        assert key_of_account(connection, alice.key_id, account_id=bob.account_id) is None
        assert [key.id for key in keys_of_account(connection, alice.account_id)] == [alice.key_id]
        assert owner_of_key(connection, alice.key_id) == alice.account_id
        assert owner_of_key(connection, KeyId("0000000000")) is None
        stored = key_by_digest(connection, make_peppers(), alice.secret)
    assert stored is not None
    assert (stored.account_id, stored.hint) == (alice.account_id, key_hint(alice.secret.decode()))


def test_a_revoked_key_stays_revoked(engine: Engine) -> None:
    alice = make_customer(engine)
    with write(engine) as connection:
        revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=START_NS)
        revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=START_NS + 5)
        stored = key_of_account(connection, alice.key_id, account_id=alice.account_id)
    assert stored is not None
    assert stored.revoked_at_ns == START_NS


@pytest.mark.parametrize(
    "limits",
    [
        KeyLimits(requests_per_minute=-1),
        KeyLimits(concurrency_max=-1),
        KeyLimits(spend_limit_nusd=-1),
        KeyLimits(spend_limit_nusd=2**63),
        KeyLimits(models=frozenset()),
        KeyLimits(models=frozenset({""})),
        KeyLimits(models=frozenset({"x" * 201})),
        KeyLimits(expires_at_ns=0),
    ],
)
def test_limits_out_of_bounds_are_refused(engine: Engine, limits: KeyLimits) -> None:
    account_id = make_account(engine)
    with pytest.raises(KeyInvalid):
        make_key(engine, account_id, limits=limits)


def test_a_key_needs_an_account(engine: Engine) -> None:
    with pytest.raises(KeyOwnerUnknown):
        make_key(engine, AccountId("acc-none"))


def test_issued_keys_are_well_formed_and_differ(engine: Engine) -> None:
    account_id = make_account(engine)
    secrets = {make_key(engine, account_id)[1] for _ in range(20)}
    assert len(secrets) == 20
    assert all(is_well_formed_key(secret) for secret in secrets)
