"""Keys that change while they are in use: switched off, rotated, bound to a routing profile, frozen."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from dragonfly.accounts.actions import AccountNotFound, freeze_account
from dragonfly.admission.errors import InvalidKey
from dragonfly.catalog.actions import (
    PROFILES_PER_ACCOUNT_MAX,
    RoutingInvalid,
    RoutingProfileInUse,
    RoutingProfileNotFound,
    TooManyProfiles,
    change_profile,
    create_profile,
    delete_profile,
    pause_channel,
    resume_channel,
)
from dragonfly.catalog.queries import paused_channels, profile_of_account, profiles_of_account
from dragonfly.core.ids import AccountId, IdSource, KeyId
from dragonfly.core.routing import RoutingRules, Sort
from dragonfly.core.secrets import key_id_of
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import (
    GRACE_S_MAX,
    GraceInvalid,
    KeyChanges,
    KeyInvalid,
    KeyNotFound,
    KeyRevoked,
    ProfileUnknown,
    change_key,
    rehash_key,
    revoke_key,
    rotate_key,
)
from dragonfly.keys.queries import key_by_digest, key_of_account, keys_of_account
from dragonfly.keys.rules import KeyLimits, Peppers
from dragonfly.keys.tables import keys
from tests.factories import PEPPER, START_NS, MovableClock, make_account, make_customer, make_key, make_peppers
from tests.store.test_keys import make_cache

RULES = RoutingRules(
    order=("alpha", "beta"),
    only=("alpha", "beta"),
    ignore=("gamma",),
    allow_fallbacks=False,
    sort=Sort.LATENCY,
    prompt_nusd_per_mtok_max=5,
    completion_nusd_per_mtok_max=7,
    deny_data_collection=True,
    zero_retention=True,
)


def make_profile(engine: Engine, account_id: AccountId, rules: RoutingRules = RULES) -> str:
    with write(engine) as connection:
        return create_profile(connection, IdSource(), account_id, name="work", rules=rules, now_ns=START_NS)


def change(engine: Engine, key_id: KeyId, account_id: AccountId, changes: KeyChanges) -> None:
    with write(engine) as connection:
        change_key(connection, key_id, changes, account_id=account_id, now_ns=START_NS + 5)


def rotate(engine: Engine, key_id: KeyId, account_id: AccountId, *, grace_s: int, now_ns: int = START_NS) -> bytes:
    with write(engine) as connection:
        issued = rotate_key(connection, make_peppers(), key_id, account_id=account_id, grace_s=grace_s, now_ns=now_ns)
    assert issued.key_id == key_id
    return issued.secret.reveal().encode()


async def test_a_key_that_is_switched_off_is_refused_within_a_second_and_works_again(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    await cache.find(alice.secret)
    change(engine, alice.key_id, alice.account_id, KeyChanges(is_disabled=True))
    await cache.refresh()
    with pytest.raises(InvalidKey):
        await cache.find(alice.secret)
    change(engine, alice.key_id, alice.account_id, KeyChanges(is_disabled=False))
    await cache.refresh()
    assert (await cache.find(alice.secret)).key_id == alice.key_id


async def test_after_a_rotation_both_secrets_work_until_the_grace_is_over(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    first = await cache.find(alice.secret)
    newer = rotate(engine, alice.key_id, alice.account_id, grace_s=60)
    assert key_id_of(newer.decode()) == alice.key_id
    assert newer != alice.secret
    await cache.refresh()
    policy = await cache.find(newer)
    assert policy == first
    assert await cache.find(alice.secret) is policy, "one key, one policy, one purse"
    assert cache.cached(alice.secret) is policy
    clock.move(59)
    await cache.refresh()
    assert cache.cached(alice.secret) is policy
    clock.move(1)
    await cache.refresh()
    assert cache.cached(alice.secret) is None
    with pytest.raises(InvalidKey):
        await cache.find(alice.secret)
    assert await cache.find(newer) is policy


async def test_without_grace_the_old_secret_ends_at_once(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    await cache.find(alice.secret)
    newer = rotate(engine, alice.key_id, alice.account_id, grace_s=0)
    await cache.refresh()
    with pytest.raises(InvalidKey):
        await cache.find(alice.secret)
    assert (await cache.find(newer)).key_id == alice.key_id


def test_a_second_rotation_ends_the_first_secret(engine: Engine) -> None:
    alice = make_customer(engine)
    second = rotate(engine, alice.key_id, alice.account_id, grace_s=GRACE_S_MAX)
    third = rotate(engine, alice.key_id, alice.account_id, grace_s=GRACE_S_MAX)
    with read(engine) as connection:
        found = [key_by_digest(connection, make_peppers(), secret) for secret in (alice.secret, second, third)]
    assert found[0] is None
    assert found[1] is not None
    assert found[1].secret_until_ns == START_NS + GRACE_S_MAX * 10**9
    assert found[2] is not None
    assert found[2].secret_until_ns is None


async def test_a_revoked_key_takes_its_old_secret_with_it(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    newer = rotate(engine, alice.key_id, alice.account_id, grace_s=60)
    for secret in (alice.secret, newer):
        await cache.find(secret)
    with write(engine) as connection:
        revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=START_NS)
    await cache.refresh()
    for secret in (alice.secret, newer):
        with pytest.raises(InvalidKey):
            await cache.find(secret)


def test_a_rehash_that_comes_after_a_rotation_does_not_bring_the_old_secret_back(engine: Engine) -> None:
    alice = make_customer(engine)
    both = Peppers({1: PEPPER, 2: PEPPER[::-1]})
    newer = rotate(engine, alice.key_id, alice.account_id, grace_s=0)
    with write(engine) as connection:
        rehash_key(connection, both, alice.key_id, alice.secret, pepper_version=1)
    with read(engine) as connection:
        assert key_by_digest(connection, both, alice.secret) is None
        assert key_by_digest(connection, both, newer) is not None


def test_no_digest_of_a_secret_is_the_secret_and_the_hint_shows_only_its_ends(engine: Engine) -> None:
    alice = make_customer(engine)
    newer = rotate(engine, alice.key_id, alice.account_id, grace_s=60)
    with read(engine) as connection:
        row = connection.execute(select(keys).where(keys.c.id == alice.key_id)).mappings().one()
    for secret in (alice.secret, newer):
        assert not any(secret[16:59] in str(value).encode() for value in row.values())
    assert row["hint"] == f"{newer[:10].decode()}...{newer[-4:].decode()}"


@pytest.mark.parametrize("grace_s", [-1, GRACE_S_MAX + 1])
def test_an_impossible_grace_is_refused(engine: Engine, grace_s: int) -> None:
    alice = make_customer(engine)
    with pytest.raises(GraceInvalid):
        rotate(engine, alice.key_id, alice.account_id, grace_s=grace_s)


def test_a_change_touches_only_what_it_names(engine: Engine) -> None:
    alice = make_customer(engine, limits=KeyLimits(requests_per_minute=7))
    change(engine, alice.key_id, alice.account_id, KeyChanges(name="new name"))
    change(engine, alice.key_id, alice.account_id, KeyChanges(key_group="team-a"))
    with read(engine) as connection:
        found = key_of_account(connection, alice.key_id, account_id=alice.account_id)
        in_group = keys_of_account(connection, alice.account_id, key_group="team-a")
        elsewhere = keys_of_account(connection, alice.account_id, key_group="team-b")
    assert found is not None
    assert (found.name, found.key_group, found.updated_at_ns) == ("new name", "team-a", START_NS + 5)
    assert found.limits.requests_per_minute == 7
    assert [key.id for key in in_group] == [alice.key_id]
    assert not elsewhere


@pytest.mark.parametrize(
    "changes",
    [KeyChanges(name=""), KeyChanges(name="a\nb"), KeyChanges(key_group="Team A"), KeyChanges(key_group="a" * 65)],
)
def test_impossible_names_and_groups_are_refused(engine: Engine, changes: KeyChanges) -> None:
    alice = make_customer(engine)
    with pytest.raises(KeyInvalid):
        change(engine, alice.key_id, alice.account_id, changes)


def test_somebody_elses_key_and_a_revoked_one_cannot_be_changed(engine: Engine) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    with pytest.raises(KeyNotFound):
        change(engine, alice.key_id, bob.account_id, KeyChanges(name="mine"))
    with pytest.raises(KeyNotFound):
        rotate(engine, alice.key_id, bob.account_id, grace_s=0)
    with write(engine) as connection:
        revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=START_NS)
    with pytest.raises(KeyRevoked):
        change(engine, alice.key_id, alice.account_id, KeyChanges(is_disabled=False))
    with pytest.raises(KeyRevoked):
        rotate(engine, alice.key_id, alice.account_id, grace_s=0)


async def test_a_key_carries_the_rules_of_its_profile_and_follows_their_change(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    assert (await cache.find(alice.secret)).routing is None
    profile_id = make_profile(engine, alice.account_id)
    change(engine, alice.key_id, alice.account_id, KeyChanges(routing_profile_id=profile_id))
    await cache.refresh()
    assert (await cache.find(alice.secret)).routing == RULES
    with write(engine) as connection:
        change_profile(
            connection,
            profile_id,
            account_id=alice.account_id,
            name="home",
            rules=RoutingRules(only=("beta",)),
            now_ns=START_NS + 1,
        )
    await cache.refresh()
    assert (await cache.find(alice.secret)).routing == RoutingRules(only=("beta",))
    change(engine, alice.key_id, alice.account_id, KeyChanges(routing_profile_id=""))
    await cache.refresh()
    assert (await cache.find(alice.secret)).routing is None


def test_a_profile_that_keys_are_bound_to_cannot_be_deleted(engine: Engine) -> None:
    alice = make_customer(engine)
    profile_id = make_profile(engine, alice.account_id)
    change(engine, alice.key_id, alice.account_id, KeyChanges(routing_profile_id=profile_id))
    with pytest.raises(RoutingProfileInUse), write(engine) as connection:
        delete_profile(connection, profile_id, account_id=alice.account_id)
    with write(engine) as connection:
        revoke_key(connection, alice.key_id, account_id=alice.account_id, now_ns=START_NS)
        delete_profile(connection, profile_id, account_id=alice.account_id)
    with read(engine) as connection:
        assert profile_of_account(connection, profile_id, account_id=alice.account_id) is None


def test_somebody_elses_profile_does_not_exist(engine: Engine) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    profile_id = make_profile(engine, alice.account_id)
    with read(engine) as connection:
        assert profile_of_account(connection, profile_id, account_id=bob.account_id) is None
        assert [one.id for one in profiles_of_account(connection, alice.account_id)] == [profile_id]
        assert profiles_of_account(connection, bob.account_id) == []
    with pytest.raises(ProfileUnknown):
        change(engine, bob.key_id, bob.account_id, KeyChanges(routing_profile_id=profile_id))
    with pytest.raises(RoutingProfileNotFound), write(engine) as connection:
        delete_profile(connection, profile_id, account_id=bob.account_id)
    with pytest.raises(RoutingProfileNotFound), write(engine) as connection:
        change_profile(connection, profile_id, account_id=bob.account_id, name="x", rules=RULES, now_ns=START_NS)


@pytest.mark.parametrize(
    "rules",
    [
        RoutingRules(only=tuple(f"provider-{number}" for number in range(51))),
        RoutingRules(ignore=("a b",)),
        RoutingRules(order=("",)),
        RoutingRules(prompt_nusd_per_mtok_max=-1),
    ],
)
def test_impossible_rules_are_refused(engine: Engine, rules: RoutingRules) -> None:
    alice = make_account(engine)
    with pytest.raises(RoutingInvalid):
        make_profile(engine, alice, rules)


def test_profiles_are_bounded(engine: Engine) -> None:
    alice = make_account(engine)
    for _ in range(PROFILES_PER_ACCOUNT_MAX):
        make_profile(engine, alice)
    with pytest.raises(TooManyProfiles):
        make_profile(engine, alice)


async def test_a_frozen_account_s_keys_say_so_within_a_second_and_thaw(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    cache = make_cache(engine, clock)
    await cache.find(alice.secret)
    with write(engine) as connection:
        freeze_account(connection, alice.account_id, is_frozen=True, now_ns=START_NS)
    await cache.refresh()
    policy = await cache.find(alice.secret)
    assert (policy.frozen, policy.verified) == (True, False)
    with write(engine) as connection:
        freeze_account(connection, alice.account_id, is_frozen=False, now_ns=START_NS)
    await cache.refresh()
    policy = await cache.find(alice.secret)
    assert (policy.frozen, policy.verified) == (False, True)
    with pytest.raises(AccountNotFound), write(engine) as connection:
        freeze_account(connection, AccountId("acc-nobody"), is_frozen=True, now_ns=START_NS)


def test_channels_go_out_of_service_and_back(engine: Engine) -> None:
    with write(engine) as connection:
        assert pause_channel(connection, "acme/chat@acme", now_ns=START_NS)
        assert not pause_channel(connection, "acme/chat@acme", now_ns=START_NS)
        assert paused_channels(connection) == {"acme/chat@acme"}
        assert resume_channel(connection, "acme/chat@acme")
        assert not resume_channel(connection, "acme/chat@acme")
        assert paused_channels(connection) == frozenset()


def test_old_keys_without_a_profile_need_nothing_new(engine: Engine, tmp_path: Path) -> None:
    key_id, secret = make_key(engine, make_account(engine), key_group="team-a")
    with read(engine) as connection:
        found = key_by_digest(connection, make_peppers(), secret)
    assert found is not None
    assert (found.id, found.routing, found.disabled_at_ns, found.is_frozen) == (key_id, None, None, False)
