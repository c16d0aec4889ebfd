"""Lots of credit: the order in which they are spent, refunds, disputes, expiry, and what moves at Stripe."""

from collections import Counter

import pytest
from sqlalchemy import Connection, Engine, func, select

from dragonfly.admission.actions import Claim, extend_lease, register_worker, return_lease
from dragonfly.admission.rules import Demand
from dragonfly.admission.verify import verify
from dragonfly.core.ids import AccountId, LeaseId
from dragonfly.infra.database import read, write
from dragonfly.ledger.actions import (
    EXPIRIES_PAGE_MAX,
    Extras,
    expire_credit,
    grant_credit,
    record_fee,
    record_payout,
    top_up,
)
from dragonfly.ledger.disputes import DisputeNotOpen, Taken, lose_dispute, open_dispute, win_dispute
from dragonfly.ledger.journal import CreditInvalid, IdempotencyConflict
from dragonfly.ledger.queries import credits_of_account, lots_of_account, wallet_of
from dragonfly.ledger.refunds import (
    RefundExceedsUnused,
    RefundNotPending,
    cancel_refund,
    complete_refund,
    hold_refund,
)
from dragonfly.ledger.tables import entries
from tests.factories import START_NS, make_account

LEASE = LeaseId("lea-1")
LATER_NS = START_NS + 10**12


@pytest.fixture
def alice(engine: Engine) -> AccountId:
    return make_account(engine)


def give(
    connection: Connection, account_id: AccountId, nusd: int, name: str, *, at: int, until: int | None = None
) -> None:
    grant_credit(
        connection,
        account_id,
        amount_nusd=nusd,
        idempotency_key=name,
        now_ns=START_NS + at,
        expires_at_ns=until,
    )


def pay(connection: Connection, account_id: AccountId, nusd: int, name: str, *, at: int) -> None:
    top_up(
        connection, account_id, amount_nusd=nusd, idempotency_key=name, reference=f"pi-{name}", now_ns=START_NS + at
    )


def lease(connection: Connection, account_id: AccountId, nusd: int) -> None:
    claim = Claim("wrk-1", LEASE, account_id, None, 0, (Demand(nusd, nusd),), 10**9, START_NS)
    assert extend_lease(connection, claim).granted_nusd == nusd


def left(engine: Engine, account_id: AccountId) -> dict[str, int]:
    """What remains of each lot, by the last part of its id; and the books are right."""
    with read(engine) as connection:
        assert verify(connection).findings == ()
        return {
            lot.id.rpartition("/")[2]: lot.remaining_nusd
            for lot in lots_of_account(connection, account_id, limit=1_000)
        }


def booked(engine: Engine) -> Counter[str]:
    """What stands in each kind of book."""
    with read(engine) as connection:
        rows = connection.execute(select(entries.c.book_id, func.sum(entries.c.amount_nusd)).group_by("book_id"))
        totals: Counter[str] = Counter()
        for book_id, nusd in rows:
            totals[book_id.partition("/")[0]] += int(nusd)
    return totals


def mixed_wallet(connection: Connection, account_id: AccountId) -> None:
    """10 of each: two payments, a gift for ever, and two that expire."""
    register_worker(connection, "wrk-1", now_ns=START_NS)
    pay(connection, account_id, 10, "new", at=5)
    pay(connection, account_id, 10, "old", at=1)
    give(connection, account_id, 10, "forever", at=0)
    give(connection, account_id, 10, "late", at=2, until=LATER_NS)
    give(connection, account_id, 10, "soon", at=3, until=LATER_NS - 1)


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (1, {"soon": 9, "late": 10, "forever": 10, "old": 10, "new": 10}),
        (15, {"soon": 0, "late": 5, "forever": 10, "old": 10, "new": 10}),
        (29, {"soon": 0, "late": 0, "forever": 1, "old": 10, "new": 10}),
        (31, {"soon": 0, "late": 0, "forever": 0, "old": 9, "new": 10}),
        (50, {"soon": 0, "late": 0, "forever": 0, "old": 0, "new": 0}),
    ],
)
def test_gifts_go_before_payments_and_what_expires_soonest_goes_first(
    engine: Engine, alice: AccountId, spent: int, expected: dict[str, int]
) -> None:
    with write(engine) as connection:
        mixed_wallet(connection, alice)
        lease(connection, alice, spent)
    assert left(engine, alice) == expected
    assert booked(engine)["leased"] == spent
    with write(engine) as connection:
        return_lease(connection, LEASE, now_ns=START_NS)
    assert set(left(engine, alice).values()) == {10}
    assert booked(engine)["leased"] == 0


def test_a_refund_takes_unused_paid_credit_once(engine: Engine, alice: AccountId) -> None:
    with write(engine) as connection:
        mixed_wallet(connection, alice)
    for _ in range(2):
        with write(engine) as connection:
            hold_refund(connection, alice, refund_id="re-1", amount_nusd=13, now_ns=START_NS)
    assert left(engine, alice) == {"old": 7, "new": 0, "forever": 10, "late": 10, "soon": 10}
    with pytest.raises(IdempotencyConflict), write(engine) as connection:
        hold_refund(connection, alice, refund_id="re-1", amount_nusd=12, now_ns=START_NS)
    with pytest.raises(RefundExceedsUnused) as refused, write(engine) as connection:
        hold_refund(connection, alice, refund_id="re-2", amount_nusd=8, now_ns=START_NS)
    assert refused.value.refundable_nusd == 7
    for _ in range(2):
        with write(engine) as connection:
            complete_refund(connection, alice, refund_id="re-1", now_ns=START_NS)
    with pytest.raises(RefundNotPending), write(engine) as connection:
        cancel_refund(connection, alice, refund_id="re-1", now_ns=START_NS)
    assert left(engine, alice)["old"] == 7
    assert booked(engine)["stripe_clearing"] == -7
    assert booked(engine)["refund_pending"] == 0


def test_a_refund_of_one_payment_leaves_the_others_and_comes_back_when_it_fails(
    engine: Engine, alice: AccountId
) -> None:
    with write(engine) as connection:
        mixed_wallet(connection, alice)
        hold_refund(connection, alice, refund_id="re-1", amount_nusd=4, now_ns=START_NS, reference="pi-old")
    assert (left(engine, alice)["old"], left(engine, alice)["new"]) == (6, 10)
    with pytest.raises(RefundExceedsUnused), write(engine) as connection:
        hold_refund(connection, alice, refund_id="re-2", amount_nusd=7, now_ns=START_NS, reference="pi-old")
    for _ in range(2):
        with write(engine) as connection:
            cancel_refund(connection, alice, refund_id="re-1", now_ns=START_NS)
    assert left(engine, alice)["old"] == 10
    with pytest.raises(RefundNotPending), write(engine) as connection:
        complete_refund(connection, alice, refund_id="re-1", now_ns=START_NS)
    with pytest.raises(RefundNotPending), write(engine) as connection:
        complete_refund(connection, alice, refund_id="re-none", now_ns=START_NS)


def test_a_dispute_takes_what_there_is_and_books_what_was_spent(engine: Engine, alice: AccountId) -> None:
    with write(engine) as connection:
        mixed_wallet(connection, alice)
        lease(connection, alice, 45)
    for _ in range(2):
        with write(engine) as connection:
            taken = open_dispute(connection, alice, dispute_id="dp-1", amount_nusd=20, now_ns=START_NS)
        assert taken == Taken(5, 15)
    with pytest.raises(IdempotencyConflict), write(engine) as connection:
        open_dispute(connection, alice, dispute_id="dp-1", amount_nusd=21, now_ns=START_NS)
    assert set(left(engine, alice).values()) == {0}
    assert (booked(engine)["dispute"], booked(engine)["receivable"]) == (20, -15)
    with write(engine) as connection:
        return_lease(connection, LEASE, now_ns=START_NS)
        lose_dispute(connection, alice, dispute_id="dp-1", now_ns=START_NS)
        lose_dispute(connection, alice, dispute_id="dp-1", now_ns=START_NS)
    # What the lease brought back pays the rest: paid credit first.
    assert left(engine, alice) == {"old": 0, "new": 0, "forever": 10, "late": 10, "soon": 10}
    totals = booked(engine)
    assert (totals["dispute"], totals["receivable"], totals["write_off"]) == (0, 0, 0)
    assert totals["stripe_clearing"] == 0
    with pytest.raises(DisputeNotOpen), write(engine) as connection:
        win_dispute(connection, alice, dispute_id="dp-1", now_ns=START_NS)


def test_a_lost_dispute_writes_off_what_is_gone(engine: Engine, alice: AccountId) -> None:
    with write(engine) as connection:
        pay(connection, alice, 10, "a", at=0)
        open_dispute(connection, alice, dispute_id="dp-1", amount_nusd=25, now_ns=START_NS)
        lose_dispute(connection, alice, dispute_id="dp-1", now_ns=START_NS)
    assert left(engine, alice) == {"a": 0}
    totals = booked(engine)
    assert (totals["write_off"], totals["receivable"], totals["stripe_clearing"]) == (-15, 0, 15)


def test_a_dispute_that_is_won_gives_everything_back(engine: Engine, alice: AccountId) -> None:
    with write(engine) as connection:
        mixed_wallet(connection, alice)
        taken = open_dispute(
            connection, alice, dispute_id="dp-1", amount_nusd=24, now_ns=START_NS, reference="pi-old"
        )
    assert taken == Taken(24, 0)
    assert left(engine, alice) == {"old": 0, "new": 0, "soon": 6, "late": 10, "forever": 10}
    for _ in range(2):
        with write(engine) as connection:
            win_dispute(connection, alice, dispute_id="dp-1", now_ns=START_NS)
    assert set(left(engine, alice).values()) == {10}
    with pytest.raises(DisputeNotOpen), write(engine) as connection:
        lose_dispute(connection, alice, dispute_id="dp-1", now_ns=START_NS)


def test_credit_expires_except_what_is_leased_which_expires_when_it_comes_back(
    engine: Engine, alice: AccountId
) -> None:
    with write(engine) as connection:
        mixed_wallet(connection, alice)
        lease(connection, alice, 6)
        assert expire_credit(connection, now_ns=LATER_NS - 2) == 0
        assert expire_credit(connection, now_ns=LATER_NS - 1) == 1
    assert left(engine, alice) == {"old": 10, "new": 10, "forever": 10, "late": 10, "soon": 0}
    with write(engine) as connection:
        return_lease(connection, LEASE, now_ns=LATER_NS)
    assert left(engine, alice)["soon"] == 6
    with write(engine) as connection:
        assert expire_credit(connection, now_ns=LATER_NS) == 2
        assert expire_credit(connection, now_ns=LATER_NS) == 0
    assert left(engine, alice) == {"old": 10, "new": 10, "forever": 10, "late": 0, "soon": 0}
    assert booked(engine)["promo_cost"] == -10
    with read(engine) as connection:
        kinds = Counter(event.kind for event in credits_of_account(connection, alice))
    assert kinds == {"top_up": 2, "grant": 3, "expire": 3}


def test_more_credit_than_a_page_expires_page_by_page(engine: Engine, alice: AccountId) -> None:
    with write(engine) as connection:
        for number in range(EXPIRIES_PAGE_MAX + 5):
            give(connection, alice, 1, str(number), at=0, until=LATER_NS)
    with write(engine) as connection:
        pages = [expire_credit(connection, now_ns=LATER_NS) for _ in range(3)]
    assert pages == [EXPIRIES_PAGE_MAX, 5, 0]
    assert set(left(engine, alice).values()) == {0}


def test_more_lots_than_a_page_are_spent_in_one_lease(engine: Engine, alice: AccountId) -> None:
    with write(engine) as connection:
        register_worker(connection, "wrk-1", now_ns=START_NS)
        for number in range(130):
            give(connection, alice, 1, f"{number:03d}", at=number)
        lease(connection, alice, 125)
    assert sum(left(engine, alice).values()) == 5
    assert left(engine, alice)["125"] == 1


def test_what_stripe_holds_is_paid_out_to_nothing(engine: Engine, alice: AccountId) -> None:
    for _ in range(2):
        with write(engine) as connection:
            top_up(
                connection,
                alice,
                amount_nusd=1_000,
                idempotency_key="pi-1",
                reference="pi-1",
                now_ns=START_NS,
                extras=Extras(fee_nusd=80, tax_nusd=19),
            )
            record_fee(connection, reference="ch-1", amount_nusd=59, now_ns=START_NS)
            record_payout(connection, reference="po-1", amount_nusd=1_040, now_ns=START_NS)
    totals = booked(engine)
    assert totals["stripe_clearing"] == 0
    assert (totals["paid"], totals["fees"], totals["tax"], totals["bank"]) == (1_000, 21, 19, -1_040)
    with read(engine) as connection:
        assert wallet_of(connection, alice) == (1_000, 0, 0)
        assert verify(connection).findings == ()
    with pytest.raises(IdempotencyConflict), write(engine) as connection:
        record_fee(connection, reference="ch-1", amount_nusd=60, now_ns=START_NS)
    with pytest.raises(CreditInvalid), write(engine) as connection:
        record_payout(connection, reference="po-2", amount_nusd=0, now_ns=START_NS)
