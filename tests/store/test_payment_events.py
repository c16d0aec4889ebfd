"""Events of Stripe in every order, twice, late, or lost: the books end the same, and all is credited once."""

import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator

import pytest
from sqlalchemy import Engine, func, select

from dragonfly.admission.verify import verify
from dragonfly.core.money import NUSD_PER_USD
from dragonfly.infra.database import read
from dragonfly.ledger.queries import wallet_of
from dragonfly.mail.tables import mail_outbox
from dragonfly.payments.queries import Topup
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.simulated.state import Dispute, Json
from tests.factories import MovableClock
from tests.store.till import Group, TillDesk, books_of, till_desk

Step = Callable[[TillDesk, Topup], None]
ON_POSTGRESQL_MAX = 8
"""Orders of each story that are tried there: the code is the same, the rounds are longer."""
EVERY_ORDER = bool(os.environ.get("TEST_EVERY_ORDER"))
STRIDE = 1 if EVERY_ORDER else 17
"""Every order takes minutes; without the variable, every seventeenth is tried. It divides none of the counts of
orders that begin alike, so that all beginnings are met."""


def pay(desk: TillDesk, topup: Topup) -> None:
    assert desk.pay(topup) == "paid"


def refund(cents: int) -> Step:
    """Somebody refunds a part in Stripe's dashboard; the money is on its way."""

    def step(desk: TillDesk, topup: Topup) -> None:
        assert topup.session_id is not None
        with desk.fake.till() as till:
            made = till.refund(desk.fake.charge_of(topup.session_id), cents, None, {})
            made.status = "pending"

    return step


def finish_refunds(desk: TillDesk, topup: Topup) -> None:
    with desk.fake.till() as till:
        for made in till.state.refunds:
            till.finish_refund(made, succeeds=True)


def dispute(desk: TillDesk, topup: Topup) -> None:
    assert topup.session_id is not None
    with desk.fake.till() as till:
        till.open_dispute(desk.fake.charge_of(topup.session_id), reason="fraudulent")


def the_dispute(desk: TillDesk) -> Dispute:
    (opened,) = desk.fake.state.disputes
    return opened


def win(desk: TillDesk, topup: Topup) -> None:
    with desk.fake.till() as till:
        till.close_dispute(the_dispute(desk), is_won=True)


def answer(desk: TillDesk, topup: Topup) -> None:
    with desk.fake.till() as till:
        till.answer_dispute(the_dispute(desk), {"product_description": "Credit"}, submits=True)


def lose(desk: TillDesk, topup: Topup) -> None:
    with desk.fake.till() as till:
        till.close_dispute(the_dispute(desk), is_won=False)


STORIES: dict[str, tuple[Step, ...]] = {
    "partial refunds": (pay, refund(500), refund(700), finish_refunds),
    "dispute won": (pay, dispute, win),
    "dispute lost": (pay, dispute, answer, lose),
}
BALANCES = {"partial refunds": 8, "dispute won": 20, "dispute lost": 0, "top-up": 20}


def told_in(
    engine: Engine, clock: MovableClock, steps: Iterable[Step], seed: str
) -> Iterator[tuple[TillDesk, Topup]]:
    with till_desk(engine, clock, seed=seed) as desk:
        topup = desk.begin(desk.account(email=None))
        for step in steps:
            step(desk, topup)
            clock.move(1)
        yield desk, topup


def ended(engine: Engine, desk: TillDesk, topup: Topup) -> tuple[list[Group], int]:
    """The books and the balance in dollars."""
    with read(engine) as connection:
        wallet = wallet_of(connection, topup.account_id)
    balance_nusd = wallet.balance_nusd if wallet is not None else 0
    return books_of(engine, desk, topup), balance_nusd // NUSD_PER_USD


def assert_clean(engine: Engine) -> None:
    with read(engine) as connection:
        assert verify(connection).findings == ()


def orders_of(engine: Engine, count: int) -> list[tuple[int, ...]]:
    """Every order of that many events; without the variable some of them, on PostgreSQL fewer."""
    orders = list(itertools.permutations(range(count)))
    if engine.dialect.name == "postgresql" and not EVERY_ORDER:
        return random.Random(count).sample(orders, min(ON_POSTGRESQL_MAX, len(orders)))
    return orders[::STRIDE]


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
def test_every_order_of_up_to_six_events_ends_with_the_same_books(
    engine: Engine, clock: MovableClock, story: str
) -> None:
    expected: list[Group] | None = None
    orders = orders_of(engine, 6)
    for number, order in enumerate(orders):
        for desk, topup in told_in(engine, clock, STORIES[story], f"{number}x"):
            events = desk.waiting()
            assert len(events) == 6
            desk.deliver([events[place] for place in order])
            books, balance = ended(engine, desk, topup)
            assert balance == BALANCES[story]
            expected = expected or books
            assert books == expected, order
    assert_clean(engine)


LONG: tuple[Step, ...] = (pay, refund(500), finish_refunds, refund(200), finish_refunds, dispute, answer, win)


def test_many_events_in_random_orders_some_of_them_twice_end_with_the_same_books(
    engine: Engine, clock: MovableClock
) -> None:
    """Beyond six events: a payment that is refunded in parts; the rest is disputed and won."""
    expected: list[Group] | None = None
    rounds = 500 if EVERY_ORDER else 8 if engine.dialect.name == "sqlite" else 2
    for number in range(rounds):
        source = random.Random(number)
        for desk, topup in told_in(engine, clock, LONG, f"{number}x"):
            events = desk.waiting()
            assert len(events) > 10
            arriving = [*events, *source.sample(events, source.randrange(len(events)))]
            source.shuffle(arriving)
            desk.deliver(arriving)
            books, balance = ended(engine, desk, topup)
            assert balance == 13
            expected = expected or books
            assert books == expected, number
    assert_clean(engine)


@pytest.mark.parametrize(("succeeds", "credited"), [(True, 20), (False, 0)])
def test_a_slow_payment_is_credited_only_when_the_money_came_in_every_order(
    engine: Engine, clock: MovableClock, succeeds: bool, credited: int
) -> None:
    for number, order in enumerate(itertools.product(range(2), repeat=3)):
        with till_desk(engine, clock, seed=f"{number}x") as desk:
            topup = desk.begin(desk.account(email=None))
            assert topup.session_id is not None
            session = desk.fake.session(topup.session_id)
            with desk.fake.till() as till:
                till.pay_session_later(session, "link")
            early = desk.waiting()
            if number % 2:
                desk.deliver(early)
                assert ended(engine, desk, topup) == ([], 0)
                assert desk.stored(topup).state == "processing"
            with desk.fake.till() as till:
                till.settle_session(session, succeeds=succeeds)
            events = [*early, *desk.waiting()][-2:]
            desk.deliver([events[place % len(events)] for place in order])
            assert ended(engine, desk, topup)[1] == credited
            assert desk.stored(topup).state == ("paid" if succeeds else "failed")
    assert_clean(engine)


def test_a_declined_card_before_the_one_that_pays_changes_nothing(engine: Engine, clock: MovableClock) -> None:
    for number, order in enumerate(itertools.permutations(range(3))):
        with till_desk(engine, clock, seed=f"{number}x") as desk:
            topup = desk.begin(desk.account(email=None))
            assert desk.pay(topup, "4000000000009995") == "declined"
            pay(desk, topup)
            events = desk.waiting()
            assert len(events) == 3
            desk.deliver([events[place] for place in order])
            assert ended(engine, desk, topup)[1] == 20
    assert_clean(engine)


def test_a_page_on_which_nothing_had_to_be_paid_gives_nothing(engine: Engine, clock: MovableClock) -> None:
    with till_desk(engine, clock) as desk:
        topup = desk.begin(desk.account())
        assert topup.session_id is not None
        with desk.fake.till() as till:
            session = desk.fake.session(topup.session_id)
            session.status, session.payment_status = "complete", "no_payment_required"
            till.event("checkout.session.completed", till.shapes.session(session))
        desk.deliver()
        assert ended(engine, desk, topup) == ([], 0)
        assert (desk.stored(topup).state, desk.stored(topup).failure) == ("mismatch", "nothing_paid")


def test_every_order_and_repetition_of_a_top_ups_events_credits_once(engine: Engine, clock: MovableClock) -> None:
    expected: list[Group] | None = None
    lengths = range(1, 7 if EVERY_ORDER else 4 if engine.dialect.name == "postgresql" else 6)
    sequences = [order for length in lengths for order in itertools.product(range(2), repeat=length)]
    for number, order in enumerate(sequences):
        for desk, topup in told_in(engine, clock, (pay,), f"{number}x"):
            events = desk.waiting()
            assert [event["type"] for event in events] == ["payment_intent.succeeded", "checkout.session.completed"]
            desk.deliver([events[place] for place in order])
            books, balance = ended(engine, desk, topup)
            assert balance == 20
            expected = expected or books
            assert books == expected, order
    assert_clean(engine)


@pytest.mark.parametrize("story", STORIES)
def test_events_between_the_steps_twice_late_or_lost_end_with_the_same_books(
    engine: Engine, clock: MovableClock, story: str
) -> None:
    """Stripe goes on while events arrive in any order, some of them twice, some never; the reconciler finds those."""
    expected: list[Group] | None = None
    rounds = 200 if EVERY_ORDER else 10 if engine.dialect.name == "sqlite" else 3
    for seed in range(rounds):
        source = random.Random(f"{story}{seed}")
        with till_desk(engine, clock, seed=f"{seed}x") as desk:
            topup = desk.begin(desk.account(email=None))
            late: list[Json] = []
            for step in STORIES[story]:
                step(desk, topup)
                clock.move(1)
                late += desk.waiting()
                source.shuffle(late)
                arriving = [late.pop() for _ in range(source.randrange(len(late) + 1))]
                desk.deliver([*arriving, *source.sample(arriving, len(arriving) // 2)])
            lost = source.randrange(len(late) + 1)
            desk.deliver(late[lost:])
            clock.move(3_600)
            reconcile(desk.cashier)
            books, balance = ended(engine, desk, topup)
            assert balance == BALANCES[story]
            expected = expected or books
            assert books == expected, seed
    assert_clean(engine)


def test_what_no_event_told_is_found_by_the_reconciler_and_by_the_customer(
    engine: Engine, clock: MovableClock
) -> None:
    with till_desk(engine, clock) as desk:
        found, asked = desk.begin(desk.account("Alice")), desk.begin(desk.account("Bob"))
        for topup in (found, asked):
            pay(desk, topup)
        desk.fake.undelivered.clear()
        assert desk.cashier.check(asked.account_id, asked.id).state == "paid"
        clock.move(3_600)
        assert reconcile(desk.cashier).repaired == 1
        assert reconcile(desk.cashier).repaired == 0
        assert [ended(engine, desk, topup)[1] for topup in (found, asked)] == [20, 20]
        with read(engine) as connection:
            mails = select(mail_outbox.c.kind, func.count()).group_by(mail_outbox.c.kind)
            assert dict(map(tuple, connection.execute(mails))) == {"receipt": 2}
    assert_clean(engine)


def test_a_refund_that_fails_after_it_succeeded_gives_the_credit_back(engine: Engine, clock: MovableClock) -> None:
    expected: list[Group] | None = None
    for number, order in enumerate(orders_of(engine, 5)):
        with till_desk(engine, clock, seed=f"{number}x") as desk:
            topup = desk.begin(desk.account(email=None))
            pay(desk, topup)
            assert topup.session_id is not None
            with desk.fake.till() as till:
                made = till.refund(desk.fake.charge_of(topup.session_id), 800, None, {})
            early = desk.waiting()
            if number % 2:
                desk.deliver(early)
            with desk.fake.till() as till:
                till.finish_refund(made, succeeds=False)
            events = [*early, *desk.waiting()]
            assert len(events) == 5
            desk.deliver([events[place] for place in order])
            books, balance = ended(engine, desk, topup)
            assert balance == 20
            expected = expected or books
            assert books == expected, order
    assert_clean(engine)
