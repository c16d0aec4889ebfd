"""Makes what tests need in a database: accounts, keys, credit. Names people as Alice, Bob and Charlie."""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Engine

from dragonfly.accounts.actions import create_account
from dragonfly.core.ids import AccountId, IdSource, KeyId
from dragonfly.core.money import from_usd
from dragonfly.infra.database import FILE_MODE, open_engine, write
from dragonfly.keys.actions import issue_key
from dragonfly.keys.rules import KeyLimits, Peppers
from dragonfly.ledger.actions import grant_credit
from dragonfly.migrations import upgrade

START_NS = 1_795_000_000_000_000_000
"""In November 2026; any fixed instant would do."""
PEPPER = b"a pepper for tests, thirty-two bytes or more"
_numbers: Iterator[int] = itertools.count(1)


class MovableClock:
    """A clock that stands until a test moves it."""

    def __init__(self, start_ns: int = START_NS) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return (self._now_ns - START_NS) / 1e9 + 1_000.0

    def move(self, seconds: float) -> None:
        """Lets `seconds` pass."""
        self._now_ns += round(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody who can call: an account with credit and one key."""

    account_id: AccountId
    key_id: KeyId
    secret: bytes
    """The whole key, as it stands in the Authorization header."""


def make_peppers() -> Peppers:
    """The peppers that `make_customer` hashes keys with."""
    return Peppers({1: PEPPER})


def make_database(folder: Path) -> Engine:
    """A migrated SQLite database in `folder`."""
    path = folder / "dragonfly.db"
    path.touch(FILE_MODE)
    path.write_bytes(_migrated_database())
    return open_engine(f"sqlite:///{path}")


@cache
def _migrated_database() -> bytes:
    """The file: copying it takes a thousandth of the time that migrating takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dragonfly.db"
        engine = open_engine(f"sqlite:///{path}")
        upgrade(engine)
        engine.dispose()
        return path.read_bytes()


def make_account(engine: Engine, *, name: str = "Alice", is_verified: bool = True) -> AccountId:
    """An account without credit or keys."""
    verified_at_ns = START_NS if is_verified else None
    with write(engine) as connection:
        return create_account(connection, IdSource(), name=name, verified_at_ns=verified_at_ns, now_ns=START_NS)


def make_key(
    engine: Engine,
    account_id: AccountId,
    *,
    limits: KeyLimits | None = None,
    peppers: Peppers | None = None,
    key_group: str = "",
) -> tuple[KeyId, bytes]:
    """The id and the whole key."""
    with write(engine) as connection:
        issued = issue_key(
            connection,
            peppers or make_peppers(),
            account_id=account_id,
            name="test",
            limits=limits,
            key_group=key_group,
            now_ns=START_NS,
        )
    return issued.key_id, issued.secret.reveal().encode()


def give_credit(engine: Engine, account_id: AccountId, *, usd: str = "", nusd: int = 0) -> None:
    """Credit in dollars or in nano-USD."""
    amount = from_usd(usd) if usd else nusd
    with write(engine) as connection:
        grant_credit(
            connection,
            account_id,
            amount_nusd=amount,
            idempotency_key=f"test-{next(_numbers)}",
            now_ns=START_NS,
        )


def make_customer(
    engine: Engine,
    *,
    name: str = "Alice",
    usd: str = "10",
    nusd: int = 0,
    limits: KeyLimits | None = None,
    is_verified: bool = True,
) -> Customer:
    """An account with credit (`nusd`, when given, instead of `usd`; "0" for none) and one key."""
    account_id = make_account(engine, name=name, is_verified=is_verified)
    if nusd:
        give_credit(engine, account_id, nusd=nusd)
    elif usd != "0":
        give_credit(engine, account_id, usd=usd)
    key_id, secret = make_key(engine, account_id, limits=limits)
    return Customer(account_id, key_id, secret)
