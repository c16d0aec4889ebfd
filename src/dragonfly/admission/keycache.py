"""API keys in memory: what a worker knows without asking the database, and for how long it may believe it.

Entries are found by a digest under a secret of this process, so that the keys themselves do not stay in memory.
Revocations come through the feed of changes, asked every `refresh_s`. An entry counts as fresh for one second
after the last answer of the feed; without a fresh feed the database is asked, and when it is away the entries
serve for a few seconds more.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Engine

from dragonfly.admission.errors import InvalidKey, StoreUnavailable
from dragonfly.admission.grants import KeyPolicy
from dragonfly.core.addresses import parse_networks
from dragonfly.core.clock import Clock
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.secrets import is_well_formed_key
from dragonfly.infra.changes import Changes, changes_since, current_revision
from dragonfly.infra.database import DatabaseAway, DatabaseThreads, read, write
from dragonfly.keys.actions import rehash_key
from dragonfly.keys.queries import StoredKey, key_by_digest
from dragonfly.keys.rules import NO_SPEND_LIMITS, Peppers
from dragonfly.settings import AdmissionSettings

FRESH_S = 1.0
"""The promise: a revoked key is refused everywhere within this time."""
STALE_S_MAX = 10.0
"""With the database away, known keys serve this long, counted from the last answer of the feed."""
REFRESH_WAIT_S = 1.0
RETRY_S = 0.5
"""After a failed refresh, requests do not wait for another one this long."""
NEGATIVE_ENTRIES_MAX = 10_000
LOOKUP_TRIES_MAX = 3
DIGEST_BYTES = 16


class _Found(NamedTuple):
    """What the database said about one key, and the revision of the feed at that moment."""

    key: StoredKey | None
    revision: int


class KeyCache:
    """Positive and negative answers about keys, both bounded; one lookup at a time per key."""

    def __init__(
        self, settings: AdmissionSettings, engine: Engine, threads: DatabaseThreads, peppers: Peppers, clock: Clock
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._threads = threads
        self._peppers = peppers
        self._clock = clock
        self._hasher = hashlib.blake2b(key=os.urandom(32), digest_size=DIGEST_BYTES)
        self._policies: dict[bytes, KeyPolicy] = {}
        self._digests: dict[KeyId, set[bytes]] = {}
        self._ending: dict[bytes, int] = {}
        """Secrets that a rotation replaced and that still work, until these instants (ns since the epoch)."""
        self._keys_of: dict[AccountId, set[KeyId]] = {}
        self._unknown: dict[bytes, float] = {}
        self._lookups: dict[bytes, asyncio.Task[KeyPolicy | None]] = {}
        self._listeners: dict[str, Callable[[str], None]] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._revision = -1
        self._fresh_until_s = float("-inf")
        self._usable_until_s = float("-inf")
        self._retry_at_s = float("-inf")

    def cached(self, secret: bytes) -> KeyPolicy | None:
        """The policy of a key that is known, fresh and not expired; None says nothing about the key."""
        hasher = self._hasher.copy()
        hasher.update(secret)
        policy = self._policies.get(hasher.digest())
        if policy is None or self._clock.monotonic_s() >= self._fresh_until_s:
            return None
        expires_at_ns = policy.expires_at_ns
        if expires_at_ns is not None and self._clock.now_ns() >= expires_at_ns:
            return None
        return policy

    async def find(self, secret: bytes) -> KeyPolicy:
        """The policy of a key; InvalidKey when it may not be used, StoreUnavailable when nobody can tell."""
        if not is_well_formed_key(secret):
            raise InvalidKey
        hasher = self._hasher.copy()
        hasher.update(secret)
        digest = hasher.digest()
        try:
            if self._clock.monotonic_s() >= self._fresh_until_s:
                await self._freshen()
            policy = self._policies.get(digest)
            if policy is None and self._clock.monotonic_s() >= self._unknown.get(digest, float("-inf")):
                policy = await self._look_up(digest, secret)
        except DatabaseAway:
            policy = self._policies.get(digest)
            if policy is None or self._clock.monotonic_s() >= self._usable_until_s:
                raise StoreUnavailable from None
        if policy is None or self._is_expired(policy):
            raise InvalidKey
        return policy

    def listen(self, kind: str, heard: Callable[[str], None]) -> None:
        """From now on, changes whose subject begins with `kind`/ are told to `heard`, with the rest of it."""
        self._listeners[kind] = heard

    async def _freshen(self) -> None:
        """A refresh for somebody who waits: bounded, and not tried again right after a failure."""
        if self._clock.monotonic_s() < self._retry_at_s:
            raise DatabaseAway
        try:
            async with asyncio.timeout(REFRESH_WAIT_S):
                await self.refresh()
        except (DatabaseAway, TimeoutError):
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S
            raise DatabaseAway from None

    async def refresh(self) -> None:
        """Asks the feed what changed; callers at the same time share one question. DatabaseAway."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        await asyncio.shield(self._refreshing)

    def _refreshed(self, task: "asyncio.Task[None]") -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # those who wait raise it; when nobody waits any longer, nobody needs it

    async def _refresh(self) -> None:
        asked_s = self._clock.monotonic_s()
        news = await self._threads.run(self._read_changes, self._revision)
        self._revision = news.revision
        if news.subjects is None:
            self._forget_all()
        elif news.subjects:
            self._unknown.clear()
            self._forget(news.subjects)
            self._tell(news.subjects)
        self._drop_ended()
        self._fresh_until_s = asked_s + FRESH_S
        self._usable_until_s = asked_s + STALE_S_MAX

    def _read_changes(self, revision: int) -> Changes:
        with read(self._engine) as connection:
            return changes_since(connection, revision)

    async def _look_up(self, digest: bytes, secret: bytes) -> KeyPolicy | None:
        lookup = self._lookups.get(digest)
        if lookup is None:
            lookup = self._lookups[digest] = asyncio.create_task(self._ask(digest, secret))
            lookup.add_done_callback(lambda task: self._looked_up(digest, task))
        return await asyncio.shield(lookup)

    def _looked_up(self, digest: bytes, task: "asyncio.Task[KeyPolicy | None]") -> None:
        del self._lookups[digest]
        if not task.cancelled():
            task.exception()

    async def _ask(self, digest: bytes, secret: bytes) -> KeyPolicy | None:
        for _ in range(LOOKUP_TRIES_MAX):
            found = await self._threads.run(self._read_key, secret)
            # An answer from before a change that this cache has already heard of must not be kept: nobody would
            # tell it again.
            if found.revision >= self._revision:
                break
        else:
            raise DatabaseAway
        key = found.key
        if key is None or not _works(key, self._clock.now_ns()):
            self._remember_unknown(digest)
            return None
        policy = self._policy(key)
        # Two secrets of one key share one policy object: the gate keeps its purse as long as the policy is the same.
        for other in self._digests.get(key.id, ()):
            if self._policies[other] == policy:
                policy = self._policies[other]
        self._remember(digest, policy)
        if key.secret_until_ns is not None:
            self._ending[digest] = key.secret_until_ns
        return policy

    def _read_key(self, secret: bytes) -> _Found:
        with read(self._engine) as connection:
            found = _Found(key_by_digest(connection, self._peppers, secret), current_revision(connection))
        key = found.key
        if key is not None and key.secret_until_ns is None and key.pepper_version < self._peppers.current:
            with suppress(DatabaseAway), write(self._engine) as connection:
                rehash_key(connection, self._peppers, key.id, secret, pepper_version=key.pepper_version)
        return found

    def _policy(self, key: StoredKey) -> KeyPolicy:
        limits, defaults = key.limits, self._settings
        per_minute, concurrency = limits.requests_per_minute, limits.concurrency_max
        return KeyPolicy(
            key_id=key.id,
            account_id=key.account_id,
            verified=key.is_verified and not key.is_frozen and key.paused_at_ns is None,
            requests_per_minute=defaults.requests_per_minute if per_minute is None else per_minute,
            concurrency_max=defaults.concurrency_max if concurrency is None else concurrency,
            models=limits.models,
            expires_at_ns=limits.expires_at_ns,
            spend_limit_nusd=limits.spend_limit_nusd,
            routing=key.routing,
            frozen=key.is_frozen,
            paused=key.paused_at_ns is not None,
            tokens_per_minute=defaults.tokens_per_minute
            if limits.tokens_per_minute is None
            else limits.tokens_per_minute,
            spend=NO_SPEND_LIMITS if limits.spend.is_none else limits.spend,
            account_spend=NO_SPEND_LIMITS if key.account_spend.is_none else key.account_spend,
            networks=None if limits.networks is None else parse_networks(limits.networks),
        )

    def _is_expired(self, policy: KeyPolicy) -> bool:
        return policy.expires_at_ns is not None and self._clock.now_ns() >= policy.expires_at_ns

    def _remember(self, digest: bytes, policy: KeyPolicy) -> None:
        while len(self._policies) >= self._settings.key_cache_max:
            self._drop(next(iter(self._policies)))
        self._policies[digest] = policy
        self._digests.setdefault(policy.key_id, set()).add(digest)
        self._keys_of.setdefault(policy.account_id, set()).add(policy.key_id)

    def _remember_unknown(self, digest: bytes) -> None:
        while len(self._unknown) >= NEGATIVE_ENTRIES_MAX:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[digest] = self._clock.monotonic_s() + self._settings.key_negative_s

    def _forget(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            kind, _, name = subject.partition("/")
            if kind not in ("key", "account"):
                continue
            keys = [KeyId(name)] if kind == "key" else sorted(self._keys_of.get(AccountId(name), ()))
            for key_id in keys:
                for digest in list(self._digests.get(key_id, ())):
                    self._drop(digest)

    def _tell(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            kind, _, rest = subject.partition("/")
            heard = self._listeners.get(kind)
            if heard is not None:
                heard(rest)

    def _forget_all(self) -> None:
        for kept in (self._policies, self._digests, self._keys_of, self._unknown, self._ending):
            kept.clear()

    def _drop_ended(self) -> None:
        """Secrets whose time is over go with the refresh, so that the way of a request does not look at theirs."""
        now_ns = self._clock.now_ns()
        for digest in [digest for digest, until_ns in self._ending.items() if until_ns <= now_ns]:
            if digest in self._policies:
                self._drop(digest)
            self._ending.pop(digest, None)

    def _drop(self, digest: bytes) -> None:
        policy = self._policies.pop(digest)
        self._ending.pop(digest, None)
        digests = self._digests[policy.key_id]
        digests.discard(digest)
        if digests:
            return
        del self._digests[policy.key_id]
        keys = self._keys_of[policy.account_id]
        keys.discard(policy.key_id)
        if not keys:
            del self._keys_of[policy.account_id]


def _works(key: StoredKey, now_ns: int) -> bool:
    """The key is not over, not switched off, and was not found by a secret whose time is over."""
    if key.revoked_at_ns is not None or key.disabled_at_ns is not None:
        return False
    return key.secret_until_ns is None or now_ns < key.secret_until_ns
