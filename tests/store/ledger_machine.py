"""A machine that does whatever can happen to money, in any order, and looks at all books after each step.

To credit, requests and workers (lease_machine.py) it adds refunds and disputes.

The long run is `python -m tests.store.ledger_machine --steps 10000`; it prints how many steps it made.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from sqlalchemy import Engine

from dragonfly.infra.database import open_engine, write
from dragonfly.ledger.disputes import DisputeNotOpen, lose_dispute, open_dispute, win_dispute
from dragonfly.ledger.journal import IdempotencyConflict
from dragonfly.ledger.refunds import (
    RefundExceedsUnused,
    RefundNotPending,
    cancel_refund,
    complete_refund,
    hold_refund,
)
from tests.factories import make_database
from tests.store.lease_machine import LeaseMachine, accounts, amounts, few

STEPS_PER_LIFE = 50


class LedgerMachine(LeaseMachine):
    """One life of an installation. `open_database` is set by whoever runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.refunds: dict[str, tuple[int, int, str]] = {}
        self.disputes: dict[str, tuple[int, int, int, str]] = {}

    @rule(account=accounts, nusd=amounts, number=few, reference=st.sampled_from(("", "payment-paid-1")))
    def ask_refund(self, account: int, nusd: int, number: int, reference: str) -> None:
        refund_id = self.name("refund", number)
        known = self.refunds.get(refund_id)
        before = self.wallet(account).available_nusd
        try:
            with write(self.engine) as connection:
                hold_refund(
                    connection,
                    self.account(account),
                    refund_id=refund_id,
                    amount_nusd=nusd,
                    now_ns=self.now_ns,
                    reference=reference,
                )
        except IdempotencyConflict:
            assert known is not None
            assert known[:2] != (account, nusd)
        except RefundExceedsUnused as refusal:
            assert known is None
            check_refusal(refusal, nusd, before)
        else:
            if known is None:
                self.refunds[refund_id] = (account, nusd, "pending")
                self.expected[account] -= nusd

    @rule(number=few, state=st.sampled_from(("completed", "cancelled")))
    def end_refund(self, number: int, state: str) -> None:
        refund_id = self.name("refund", number)
        account, nusd, before = self.refunds.get(refund_id, (0, 0, "unknown"))
        end = complete_refund if state == "completed" else cancel_refund
        try:
            with write(self.engine) as connection:
                end(connection, self.account(account), refund_id=refund_id, now_ns=self.now_ns)
        except RefundNotPending:
            assert before not in ("pending", state)
            return
        assert before in ("pending", state)
        self.refunds[refund_id] = (account, nusd, state)
        if before == "pending" and state == "cancelled":
            self.expected[account] += nusd

    @rule(account=accounts, nusd=amounts, number=few)
    def dispute(self, account: int, nusd: int, number: int) -> None:
        dispute_id = self.name("dispute", number)
        known = self.disputes.get(dispute_id)
        available = self.wallet(account).available_nusd
        try:
            with write(self.engine) as connection:
                taken, shortfall = open_dispute(
                    connection,
                    self.account(account),
                    dispute_id=dispute_id,
                    amount_nusd=nusd,
                    now_ns=self.now_ns,
                    reference="payment-paid-0",
                )
        except IdempotencyConflict:
            assert known is not None
            assert known[:2] != (account, nusd)
            return
        assert taken + shortfall == nusd
        if known is None:
            assert taken == min(nusd, available)
            self.disputes[dispute_id] = (account, nusd, taken, "open")
            self.expected[account] -= taken

    @rule(number=few, state=st.sampled_from(("won", "lost")))
    def decide(self, number: int, state: str) -> None:
        dispute_id = self.name("dispute", number)
        account, nusd, taken, before = self.disputes.get(dispute_id, (0, 0, 0, "unknown"))
        available = self.wallet(account).available_nusd
        end = win_dispute if state == "won" else lose_dispute
        try:
            with write(self.engine) as connection:
                end(connection, self.account(account), dispute_id=dispute_id, now_ns=self.now_ns)
        except DisputeNotOpen:
            assert before not in ("open", state)
            return
        assert before in ("open", state)
        self.disputes[dispute_id] = (account, nusd, taken, state)
        if before == "open":
            self.expected[account] += taken if state == "won" else -min(nusd - taken, available)


def check_refusal(refusal: RefundExceedsUnused, wanted_nusd: int, available_nusd: int) -> None:
    """Less could have been refunded, and never more than is there."""
    assert refusal.refundable_nusd < wanted_nusd
    assert refusal.refundable_nusd <= available_nusd


def live(
    machine: type[LedgerMachine],
    open_database: Callable[[], Engine],
    *,
    lives: int,
    number: int = 0,
    shrink: bool = True,
) -> int:
    """Runs `lives` lives on databases that `open_database` gives; how many steps that were. Raises what it finds."""
    life = type(machine.__name__, (machine,), {"open_database": staticmethod(open_database), "steps": 0})
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    chosen = settings(
        max_examples=lives,
        stateful_step_count=STEPS_PER_LIFE,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(seed(number)(life), settings=chosen)
    return int(life.steps)


def copies_of_one(folder: Path) -> Callable[[], Engine]:
    """Gives each life an SQLite database of its own, copied from one that is migrated already."""
    make_database(folder).dispose()
    numbers = count()

    def open_copy() -> Engine:
        path = folder / f"life-{next(numbers)}.db"
        shutil.copy(folder / "dragonfly.db", path)
        return open_engine(f"sqlite:///{path}")

    return open_copy


def main() -> None:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    wanted = parser.parse_args().steps
    made = number = 0
    while made < wanted:
        with tempfile.TemporaryDirectory() as folder:
            made += live(LedgerMachine, copies_of_one(Path(folder)), lives=20, number=number)
        number += 1
        print(f"{made} steps, nothing found", flush=True)


if __name__ == "__main__":
    main()
