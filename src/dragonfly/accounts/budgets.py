"""Budgets and shown proofs in the database, where all workers and nodes see them.

A budget's row says when it will be full again: one number, whatever the rate. What is counted (a network, an address)
stands there as a keyed digest and is forgotten within the hour.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from dragonfly.accounts.tables import attempt_budgets, shown_proofs
from dragonfly.accounts.throttles import Rate
from dragonfly.infra.database import insert_missing_rows


class Budget(NamedTuple):
    """One bucket: what it allows, and the digest of whom it is for."""

    digest: bytes
    rate: Rate


class Ask(NamedTuple):
    """What one request wants of the budgets: to take one from each or from none, or to give one back to each."""

    budgets: tuple[Budget, ...] = ()
    gives_back: bool = False
    proof: bytes | None = None
    """Digest of a proof that is shown now."""


class Verdict(NamedTuple):
    """What it got."""

    wait_s: float
    """0.0: taken. Else how long until the emptiest of its budgets has one again."""
    empty: bytes | None
    """Which budget that is."""
    is_proof_new: bool
    """Nobody had seen the proof; True without one."""


def judge(connection: Connection, asks: Sequence[Ask], *, now_ns: int) -> list[Verdict]:
    """What each of several requests got, as if they had come one after the other."""
    proofs = sorted({ask.proof for ask in asks if ask.proof is not None})
    unseen = insert_missing_rows(
        connection, shown_proofs, [{"digest": proof, "shown_at_ns": now_ns} for proof in proofs]
    )
    digests = sorted({budget.digest for ask in asks for budget in ask.budgets})
    full_at_ns = _locked(connection, digests)
    before, verdicts = dict(full_at_ns), []
    for ask in asks:
        is_new = ask.proof is None or ask.proof in unseen
        unseen.discard(ask.proof)
        verdicts.append(Verdict(*_move(full_at_ns, ask, now_ns), is_new))
    for digest in digests:
        if full_at_ns[digest] != before[digest]:
            mine = update(attempt_budgets).where(attempt_budgets.c.digest == digest)
            connection.execute(mine.values(full_at_ns=full_at_ns[digest]))
    return verdicts


def _locked(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
    """The rows, made where they are missing. Always locked in the same order, so that no two workers wait for each
    other."""
    if not digests:
        return {}
    insert_missing_rows(connection, attempt_budgets, [{"digest": digest, "full_at_ns": 0} for digest in digests])
    mine = select(attempt_budgets.c.digest, attempt_budgets.c.full_at_ns).where(attempt_budgets.c.digest.in_(digests))
    rows = connection.execute(mine.order_by(attempt_budgets.c.digest).with_for_update())
    return {bytes(row.digest): int(row.full_at_ns) for row in rows}


def _move(full_at_ns: dict[bytes, int], ask: Ask, now_ns: int) -> tuple[float, bytes | None]:
    """Takes or gives back in `full_at_ns`; the seconds to wait, and for which budget."""
    if ask.gives_back:
        for budget in ask.budgets:
            full_at_ns[budget.digest] -= _each_ns(budget.rate)
        return 0.0, None
    wanted = {
        budget: max(full_at_ns[budget.digest], now_ns) + _each_ns(budget.rate) - now_ns for budget in ask.budgets
    }
    lacking = [
        (used_ns - _each_ns(budget.rate) * budget.rate.attempts, budget.digest) for budget, used_ns in wanted.items()
    ]
    wait_ns, empty = max(lacking, default=(0, b""))
    if wait_ns > 0:
        return wait_ns / 1e9, empty
    for budget, used_ns in wanted.items():
        full_at_ns[budget.digest] = now_ns + used_ns
    return 0.0, None


def _each_ns(rate: Rate) -> int:
    """How long one attempt takes to come back."""
    return round(rate.per_s * 1e9) // rate.attempts
