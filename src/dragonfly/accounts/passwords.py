"""Passwords: argon2id under a secret, off the event loop, in few threads with a bounded queue.

Each run takes tens of megabytes and a good part of a core, so that sign-ins queue here and the requests of the data
plane do not wait for them. A password that nobody has is checked with the same work as one that somebody has.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION

from dragonfly.core.credentials import Seal
from dragonfly.core.errors import DragonflyError

T = TypeVar("T")

TIME_COST = 3
LANES = 4
"""With 64 MiB this is the second choice of RFC 9106."""
SALT_BYTES, DIGEST_BYTES = 16, 32
THREADS = 2
WAITING_MAX = 16
BUSY_RETRY_S = 3.0


class SignInBusy(DragonflyError):
    """Too many passwords are being checked. Our trouble, not the caller's."""

    code = "sign_in_busy"
    status = 503

    def __init__(self) -> None:
        super().__init__("Too many people sign in at the moment. Retry after the seconds in Retry-After.")
        self.retry_after_s = BUSY_RETRY_S


class Passwords:
    """Hashes and checks passwords. Stored: `version$argon2id…`, the version being that of the seal's key."""

    def __init__(
        self, seal: Seal, *, memory_kib: int, threads: int = THREADS, waiting_max: int = WAITING_MAX
    ) -> None:
        self._seal = seal
        self._hasher = PasswordHasher(
            TIME_COST, memory_kib, parallelism=LANES, hash_len=DIGEST_BYTES, salt_len=SALT_BYTES
        )
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._waiting = 0
        self._waiting_max = waiting_max
        self._nobodys = f"{seal.current}${_nobodys(memory_kib)}"

    async def hash(self, password: str) -> str:
        """What to store; SignInBusy."""
        return await self._run(lambda: self._hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is the password; the same work when there is none. SignInBusy."""
        return await self._run(lambda: self._verify(stored or self._nobodys, password)) and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        """True for a hash under an older secret or with other costs than now."""
        version, _, encoded = stored.partition("$")
        return version != str(self._seal.current) or self._hasher.check_needs_rehash(encoded)

    def close(self) -> None:
        """Takes no more work."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: str) -> str:
        return f"{self._seal.current}${self._hasher.hash(self._peppered(password, self._seal.current))}"

    def _verify(self, stored: str, password: str) -> bool:
        version, _, encoded = stored.partition("$")
        try:
            return self._hasher.verify(encoded, self._peppered(password, int(version)))
        except (VerificationError, InvalidHashError, KeyError):
            return False

    def _peppered(self, password: str, version: int) -> bytes:
        return base64.b64encode(self._seal.derive("password", password.encode(), version))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._waiting_max:
            raise SignInBusy
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._finished)
        return await asyncio.shield(future)

    def _finished(self, future: "asyncio.Future[T]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # taken note of; when nobody waits any longer, nobody needs it


def _nobodys(memory_kib: int) -> str:
    """A hash that no password has. It was not computed, but to find that out takes the same work as for any other."""
    salt, digest = (
        base64.b64encode(os.urandom(length)).rstrip(b"=").decode() for length in (SALT_BYTES, DIGEST_BYTES)
    )
    return f"$argon2id$v={ARGON2_VERSION}$m={memory_kib},t={TIME_COST},p={LANES}${salt}${digest}"
