"""Writes about workers and leases. Amounts in nano-USD. Each runs inside a transaction that its caller opened.

Money that a lease takes leaves the lots of credit and the books of their sources for the account's leased book, from
which requests are paid; what a lease gives back goes the same way back.

Whoever changes a lease locks the wallet first, then the lease, then the key's counter: one order everywhere, so
that no two workers wait for each other. SQLite has one writer at a time and needs no locks on rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from dragonfly.admission.estimates import Sums
from dragonfly.admission.queries import MILLI
from dragonfly.admission.rules import Demand, lease_amount
from dragonfly.admission.sharing import forget_places
from dragonfly.admission.tables import estimates, leases, workers
from dragonfly.core.ids import AccountId, KeyId, LeaseId
from dragonfly.infra.changes import record_change
from dragonfly.keys.queries import WINDOW_COLUMNS, limits_of_account
from dragonfly.keys.rules import NO_SPEND_LIMITS, SpendLimits
from dragonfly.keys.tables import key_spend, keys
from dragonfly.ledger.journal import lock_wallet, post
from dragonfly.ledger.lots import draw, give_back, give_back_part
from dragonfly.ledger.rules import drawn_amounts, leased_book, make_posting
from dragonfly.ledger.tables import wallets
from dragonfly.usage.queries import KeyCosts, spent_since

WORKERS = "workers"
"""Subject in the feed of changes: there is one more."""
RELEASE_PAGE_MAX = 500
"""Leases given back in one transaction."""


_SUMS = ("prompt_bytes_milli", "prompt_tokens_milli", "output_bytes_milli", "output_tokens_milli")


class WorkerLost(Exception):
    """This worker was silent for so long that others declared it dead and gave its leases back."""


class Claim(NamedTuple):
    """A worker's wish for more money of one account."""

    worker_id: str
    lease_id: LeaseId
    account_id: AccountId
    key_id: KeyId | None
    """Set for a key with a spending limit: the money also counts against that limit."""
    free_nusd: int
    """What is left of the lease already."""
    demands: tuple[Demand, ...]
    lease_nusd: int
    now_ns: int


class Extension(NamedTuple):
    """What came of a claim."""

    granted_nusd: int
    left_nusd: int
    """What a further claim could get."""
    limit: str
    """The tightest purse, a name of errors.PURSES."""
    is_small: bool
    """The wallet is small: give back soon what is not used."""
    elsewhere_nusd: int = 0
    """When not all demands can be met: what other leases of the same money hold, for their requests or for nobody."""


def register_worker(connection: Connection, worker_id: str, *, now_ns: int) -> None:
    """Announces a worker; from now on it must beat."""
    row = {"id": worker_id, "beats": 0, "is_dead": 0, "beat_at_ns": now_ns}
    connection.execute(insert(workers).values(row))
    record_change(connection, f"{WORKERS}/{worker_id}")


def beat(connection: Connection, worker_id: str, *, now_ns: int) -> None:
    """A sign of life; WorkerLost when it comes too late."""
    wanted = update(workers).where(workers.c.id == worker_id, workers.c.is_dead == 0)
    if not connection.execute(wanted.values(beats=workers.c.beats + 1, beat_at_ns=now_ns)).rowcount:
        raise WorkerLost


def extend_lease(connection: Connection, claim: Claim) -> Extension:
    """Moves money from the wallet into the worker's lease: `leased` grows only where `balance - leased` covers it."""
    alive = select(workers.c.id).where(workers.c.id == claim.worker_id, workers.c.is_dead == 0)
    if connection.execute(alive.with_for_update(read=True)).one_or_none() is None:
        raise WorkerLost
    available, limit = _available(connection, claim)
    amount = lease_amount(claim.free_nusd, available, claim.demands, claim.lease_nusd)
    if amount:
        _take(connection, claim, amount)
    is_short = claim.free_nusd + available < sum(demand.least_nusd for demand in claim.demands)
    elsewhere = _elsewhere(connection, claim, limit) if is_short else 0
    is_small = available <= claim.lease_nusd
    return Extension(amount, available - amount, limit, is_small=is_small, elsewhere_nusd=elsewhere)


def shrink_lease(
    connection: Connection, lease_id: LeaseId, *, account_id: AccountId, amount_nusd: int, now_ns: int
) -> None:
    """Gives a part of a lease back; nothing happens when the lease is gone already."""
    lock_wallet(connection, account_id)
    shrunk = update(leases).where(leases.c.id == lease_id)
    shrunk = shrunk.values(amount_nusd=leases.c.amount_nusd - amount_nusd, extensions=leases.c.extensions + 1)
    row = connection.execute(shrunk.returning(leases.c.key_id, leases.c.extensions)).one_or_none()
    if row is None:
        return
    _give_back(connection, account_id, row.key_id, amount_nusd)
    returned = drawn_amounts(account_id, give_back_part(connection, lease_id, amount_nusd))
    amounts = [(leased_book(account_id), -amount_nusd), *((book_id, -nusd) for book_id, nusd in returned)]
    posting = make_posting(f"return/{lease_id}/{row.extensions}", "return", account_id, amounts)
    post(connection, posting, now_ns=now_ns)


def return_lease(connection: Connection, lease_id: LeaseId, *, now_ns: int) -> None:
    """Gives a whole lease back; nothing happens when it is gone already."""
    account_id = connection.execute(select(leases.c.account_id).where(leases.c.id == lease_id)).scalar_one_or_none()
    if account_id is None:
        return
    lock_wallet(connection, account_id)
    lease = select(leases.c.amount_nusd, leases.c.key_id).where(leases.c.id == lease_id).with_for_update()
    row = connection.execute(lease).one_or_none()
    if row is None:
        return
    _give_back(connection, account_id, row.key_id, row.amount_nusd)
    parts = give_back(connection, lease_id, row.amount_nusd)
    if parts:
        returned = [(book_id, -nusd) for book_id, nusd in drawn_amounts(account_id, parts)]
        amounts = [(leased_book(account_id), -row.amount_nusd), *returned]
        posting = make_posting(f"return/{lease_id}", "return", account_id, amounts)
        is_new = post(connection, posting, now_ns=now_ns)
        assert is_new, "a lease ends once"
    connection.execute(delete(leases).where(leases.c.id == lease_id))


def declare_dead(connection: Connection, worker_id: str, *, beats: int) -> bool:
    """Marks a worker as dead if it did not beat since `beats` were counted; from then on it can lease nothing."""
    wanted = update(workers).where(workers.c.id == worker_id, workers.c.beats == beats, workers.c.is_dead == 0)
    return connection.execute(wanted.values(is_dead=1)).rowcount == 1


def release_leases(connection: Connection, worker_id: str, *, now_ns: int) -> bool:
    """Gives back a page of a worker's leases; True when none are left and the worker is forgotten."""
    page = select(leases.c.id).where(leases.c.worker_id == worker_id)
    page = page.order_by(leases.c.account_id, leases.c.id).limit(RELEASE_PAGE_MAX)
    lease_ids = connection.execute(page).scalars().all()
    for lease_id in lease_ids:
        return_lease(connection, LeaseId(lease_id), now_ns=now_ns)
    if len(lease_ids) == RELEASE_PAGE_MAX:
        return False
    forget_places(connection, worker_id)
    connection.execute(delete(workers).where(workers.c.id == worker_id))
    return True


def store_estimates(connection: Connection, learnt: Sequence[tuple[str, Sums]], *, now_ns: int) -> None:
    """Keeps what a worker has learnt. Of several workers the last one counts: their sums hardly differ."""
    for channel_id, sums in learnt:
        numbers = zip(_SUMS, (round(value * MILLI) for value in sums[: len(_SUMS)]), strict=True)
        values = {**dict(numbers), "seen": sums.seen, "updated_at_ns": now_ns}
        wanted = update(estimates).where(estimates.c.channel_id == channel_id)
        if not connection.execute(wanted.values(**values)).rowcount:
            connection.execute(insert(estimates).values(channel_id=channel_id, **values))


def _available(connection: Connection, claim: Claim) -> tuple[int, str]:
    """What a claim may get at most, and which purse says so. What is leased counts as spent."""
    purses = [(lock_wallet(connection, claim.account_id), "account")]
    limits = limits_of_account(connection, claim.account_id).both
    if not limits.is_none:
        spent = spent_since(connection, now_ns=claim.now_ns, account_id=claim.account_id)
        leased = select(wallets.c.leased_nusd).where(wallets.c.account_id == claim.account_id)
        purses += _left("account", limits, spent, connection.execute(leased).scalar_one_or_none() or 0)
    if claim.key_id is not None:
        purses += _left_of_key(connection, claim.key_id, claim.now_ns)
    available, limit = min(purses, key=lambda purse: purse[0])
    return max(0, available), limit


def _left_of_key(connection: Connection, key_id: KeyId, now_ns: int) -> list[tuple[int, str]]:
    counted = select(key_spend.c.spent_nusd, key_spend.c.leased_nusd, keys.c.spend_limit_nusd).join(keys)
    key = connection.execute(counted.where(key_spend.c.key_id == key_id)).one_or_none()
    if key is None:
        return []
    purses = []
    if key.spend_limit_nusd is not None:
        purses.append((key.spend_limit_nusd - key.spent_nusd - key.leased_nusd, "key"))
    limits = _windows_of_key(connection, key_id)
    if not limits.is_none:
        purses += _left("key", limits, spent_since(connection, now_ns=now_ns, key_id=key_id), key.leased_nusd)
    return purses


def _windows_of_key(connection: Connection, key_id: KeyId) -> SpendLimits:
    row = connection.execute(
        select(*(keys.c[name] for name in WINDOW_COLUMNS)).where(keys.c.id == key_id)
    ).one_or_none()
    return NO_SPEND_LIMITS if row is None else SpendLimits(*row)


def _left(owner: str, limits: SpendLimits, spent: KeyCosts, leased_nusd: int) -> list[tuple[int, str]]:
    names = ("daily", "weekly", "monthly")
    return [
        (limit - so_far - leased_nusd, f"{owner}_{name}")
        for limit, so_far, name in zip(limits, spent, names, strict=True)
        if limit is not None
    ]


def _elsewhere(connection: Connection, claim: Claim, limit: str) -> int:
    others = [leases.c.account_id == claim.account_id, leases.c.id != claim.lease_id]
    if limit.startswith("key"):
        others.append(leases.c.key_id == claim.key_id)
    total = select(func.coalesce(func.sum(leases.c.amount_nusd), 0)).where(*others)
    return int(connection.execute(total).scalar_one())


def _take(connection: Connection, claim: Claim, amount: int) -> None:
    wallet = update(wallets).where(
        wallets.c.account_id == claim.account_id, wallets.c.balance_nusd - wallets.c.leased_nusd >= amount
    )
    taken = connection.execute(wallet.values(leased_nusd=wallets.c.leased_nusd + amount)).rowcount
    assert taken == 1, "the wallet is locked, so it still has what it had"
    if claim.key_id is not None:
        counted = update(key_spend).where(key_spend.c.key_id == claim.key_id)
        connection.execute(counted.values(leased_nusd=key_spend.c.leased_nusd + amount))
    number = _add_to_lease(connection, claim, amount)
    parts = draw(connection, claim.account_id, claim.lease_id, amount)
    amounts = [*drawn_amounts(claim.account_id, parts), (leased_book(claim.account_id), amount)]
    posting = make_posting(f"lease/{claim.lease_id}/{number}", "lease", claim.account_id, amounts)
    is_new = post(connection, posting, now_ns=claim.now_ns)
    assert is_new, "a lease's extensions are numbered"


def _add_to_lease(connection: Connection, claim: Claim, amount: int) -> int:
    """Makes the lease or adds to it; how often that has happened."""
    extended = update(leases).where(leases.c.id == claim.lease_id)
    extended = extended.values(amount_nusd=leases.c.amount_nusd + amount, extensions=leases.c.extensions + 1)
    number = connection.execute(extended.returning(leases.c.extensions)).scalar_one_or_none()
    if number is not None:
        return int(number)
    row = {
        "id": claim.lease_id,
        "worker_id": claim.worker_id,
        "account_id": claim.account_id,
        "key_id": claim.key_id,
        "amount_nusd": amount,
        "extensions": 1,
    }
    connection.execute(insert(leases).values(row))
    return 1


def _give_back(connection: Connection, account_id: AccountId, key_id: KeyId | None, amount: int) -> None:
    wallet = update(wallets).where(wallets.c.account_id == account_id)
    connection.execute(wallet.values(leased_nusd=wallets.c.leased_nusd - amount))
    if key_id is not None:
        counted = update(key_spend).where(key_spend.c.key_id == key_id)
        connection.execute(counted.values(leased_nusd=key_spend.c.leased_nusd - amount))
