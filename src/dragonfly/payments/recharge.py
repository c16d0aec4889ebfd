"""Automatic top-ups: agreed to, bounded, and stopped by every doubt.

One attempt an hour, also after a failure; never while one is on its way; never beyond the month's cap; paused by a
hard decline, by the second soft one, and by a bank that wants the customer to confirm, who then gets a link.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, insert, or_, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import insert_missing, read, write
from dragonfly.ledger.tables import wallets
from dragonfly.mail.kinds import MailKind
from dragonfly.payments.news import RECHARGE_PAUSED, PaymentMail, Telling, queue_payment_mail
from dragonfly.payments.orders import CardRefused, ChargeOrder, StripeAway, StripeRefused
from dragonfly.payments.queries import Topup, is_frozen, topup_by_id
from dragonfly.payments.rules import (
    NUSD_PER_CENT,
    RECHARGE_EVERY_NS,
    SOFT_DECLINES_MAX,
    is_hard_decline,
    month_of,
)
from dragonfly.payments.settling import lock_topup
from dragonfly.payments.tables import auto_recharges, topups
from dragonfly.payments.terms import PaymentTerms
from dragonfly.payments.topups import Cashier, new_topup_row

CAP_CENTS_MAX = 1_000_000
CONFIRM_PAGE_OPEN_S = 23 * 3_600
AT_ONCE = 50
RETRY_AFTER_NS = 60 * 10**9
GIVE_UP_NS = 20 * 3_600 * 10**9
"""Stripe forgets idempotency keys after a day; before that, asking again never pays twice."""
CONFIRM = "authentication_required"


class RechargeInvalid(DragonflyError):
    """Amounts that contradict each other or the limits."""

    code = "auto_recharge_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__(
            "Automatic top-ups need a threshold above 0, an amount within the limits of a top-up and a monthly cap of"
            " at least that amount, in dollars with at most two decimals."
        )


class RechargeTaxed(DragonflyError):
    """Tax is computed at a payment page, from the address that the customer gives there; a saved card has none."""

    code = "auto_recharge_taxed"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            "Automatic top-ups are not offered here, because this installation charges tax, which needs your address"
            " at each payment. Top up by hand."
        )


@dataclass(frozen=True, slots=True)
class Recharge:
    """What a customer agreed to."""

    account_id: AccountId
    state: str
    """"off", "on" or "paused"."""
    pause_reason: str | None
    threshold_nusd: int
    amount_cents: int
    monthly_cap_cents: int
    method_id: str | None
    card_label: str | None
    attempted_at_ns: int | None


IsBraked = Callable[[Connection, AccountId], bool]
"""Whether something stopped an account's spending, so that nothing may be charged for it now."""


def recharge_of(connection: Connection, account_id: AccountId) -> Recharge | None:
    names = tuple(Recharge.__dataclass_fields__)
    wanted = select(*(auto_recharges.c[name] for name in names)).where(auto_recharges.c.account_id == account_id)
    row = connection.execute(wanted).one_or_none()
    return None if row is None else Recharge(*row)


def set_recharge(
    connection: Connection,
    terms: PaymentTerms,
    account_id: AccountId,
    *,
    threshold_cents: int,
    amount_cents: int,
    monthly_cap_cents: int,
    now_ns: int,
) -> Recharge:
    """Agrees to automatic top-ups. Without a saved card they start with the first payment that saves one.

    RechargeInvalid, RechargeTaxed.
    """
    if terms.tax != "off":
        raise RechargeTaxed
    limits = terms.limits
    is_fine = (
        0 < threshold_cents <= limits.cents_max
        and limits.cents_min <= amount_cents <= limits.cents_max
        and amount_cents <= monthly_cap_cents <= CAP_CENTS_MAX
    )
    if not is_fine:
        raise RechargeInvalid
    known = recharge_of(connection, account_id)
    has_card = known is not None and known.method_id is not None
    values = {
        "state": "on" if has_card else "paused",
        "pause_reason": None if has_card else "card_needed",
        "threshold_nusd": threshold_cents * NUSD_PER_CENT,
        "amount_cents": amount_cents,
        "monthly_cap_cents": monthly_cap_cents,
        "soft_declines": 0,
        "updated_at_ns": now_ns,
    }
    if known is None:
        insert_missing(connection, auto_recharges, {"account_id": account_id, "created_at_ns": now_ns, **values})
    connection.execute(update(auto_recharges).where(auto_recharges.c.account_id == account_id).values(values))
    stored = recharge_of(connection, account_id)
    assert stored is not None, "it was inserted above"
    return stored


def stop_recharge(connection: Connection, account_id: AccountId, *, now_ns: int) -> None:
    """The customer no longer wants them; the card is forgotten here."""
    off = {"state": "off", "pause_reason": None, "method_id": None, "card_label": None, "updated_at_ns": now_ns}
    connection.execute(update(auto_recharges).where(auto_recharges.c.account_id == account_id).values(off))


def forget_card(connection: Connection, method_id: str, *, now_ns: int) -> list[Telling]:
    """Stripe says that the card is no longer the customer's."""
    wanted = select(auto_recharges.c.account_id).where(auto_recharges.c.method_id == method_id)
    told: list[Telling] = []
    for (account_id,) in connection.execute(wanted.limit(AT_ONCE)).all():
        told += pause(connection, AccountId(account_id), "card_removed", now_ns=now_ns)
        gone = update(auto_recharges).where(auto_recharges.c.account_id == account_id)
        connection.execute(gone.values(method_id=None, card_label=None))
    return told


def relabel_card(connection: Connection, method_id: str, label: str, *, now_ns: int) -> list[Telling]:
    """The bank issued the card anew."""
    changed = update(auto_recharges).where(auto_recharges.c.method_id == method_id)
    connection.execute(changed.values(card_label=label, updated_at_ns=now_ns))
    return []


def pause(connection: Connection, account_id: AccountId, reason: str, *, now_ns: int) -> list[Telling]:
    """Stops until the customer does something; nothing when it is not running."""
    running = update(auto_recharges).where(auto_recharges.c.account_id == account_id, auto_recharges.c.state == "on")
    if not connection.execute(running.values(state="paused", pause_reason=reason, updated_at_ns=now_ns)).rowcount:
        return []
    return [(RECHARGE_PAUSED, {"account": account_id, "reason": reason})]


def recharge_due(cashier: Cashier, is_braked: IsBraked) -> int:
    """Tops up everybody whose balance fell below their threshold; how many attempts were made."""
    now_ns = cashier.clock.now_ns()
    with read(cashier.engine) as connection:
        due = _due_accounts(connection, now_ns)
    if cashier.terms.tax != "off":
        _pause_taxed(cashier, due, now_ns)
        return 0
    attempts = 0
    for account_id in due:
        claimed = _claim(cashier.engine, cashier.ids, is_braked, account_id, now_ns)
        if claimed is not None:
            attempts += 1
            _charge(cashier, claimed)
    return attempts


def _pause_taxed(cashier: Cashier, due: list[AccountId], now_ns: int) -> None:
    """The installation began to charge tax after these customers agreed."""
    told: list[Telling] = []
    with write(cashier.engine) as connection:
        for account_id in due:
            told += pause(connection, account_id, "tax_added", now_ns=now_ns)
    cashier.tell(told)


def resume_recharges(cashier: Cashier) -> int:
    """Asks again for attempts of which nothing was heard: the idempotency key makes it the same attempt."""
    now_ns = cashier.clock.now_ns()
    wanted = select(topups.c.id).where(
        topups.c.kind == "recharge", topups.c.state == "created", topups.c.checked_at_ns <= now_ns - RETRY_AFTER_NS
    )
    with read(cashier.engine) as connection:
        waiting = connection.execute(wanted.order_by(topups.c.checked_at_ns).limit(AT_ONCE)).scalars().all()
    for topup_id in waiting:
        with write(cashier.engine) as connection:
            topup = lock_topup(connection, topup_id)
            is_over = now_ns - topup.created_at_ns > GIVE_UP_NS
            values = {"checked_at_ns": now_ns} | ({"state": "failed", "failure": "no_answer"} if is_over else {})
            connection.execute(update(topups).where(topups.c.id == topup_id).values(values))
        if not is_over:
            _charge(cashier, topup)
    return len(waiting)


def _due_accounts(connection: Connection, now_ns: int) -> list[AccountId]:
    at = auto_recharges.c.attempted_at_ns
    wanted = (
        select(auto_recharges.c.account_id)
        .select_from(auto_recharges.join(wallets, wallets.c.account_id == auto_recharges.c.account_id))
        .where(
            auto_recharges.c.state == "on",
            wallets.c.balance_nusd < auto_recharges.c.threshold_nusd,
            or_(at.is_(None), at <= now_ns - RECHARGE_EVERY_NS),
        )
        .order_by(at, auto_recharges.c.account_id)
        .limit(AT_ONCE)
    )
    return [AccountId(account_id) for account_id in connection.execute(wanted).scalars()]


def _claim(engine: Engine, ids: IdSource, is_braked: IsBraked, account_id: AccountId, now_ns: int) -> Topup | None:
    """The hour's attempt and its row, in one transaction; None when a guard says no. The claim stays whatever
    becomes of the attempt."""
    mine = auto_recharges.c.account_id == account_id
    with write(engine) as connection:
        connection.execute(select(auto_recharges.c.state).where(mine).with_for_update())
        recharge = recharge_of(connection, account_id)
        if recharge is None or not _may_charge(connection, is_braked, recharge, now_ns):
            return None
        connection.execute(update(auto_recharges).where(mine).values(attempted_at_ns=now_ns))
        language = _language_of(connection, account_id)
        row = new_topup_row(ids, account_id, "recharge", recharge.amount_cents, language, now_ns)
        connection.execute(insert(topups).values(row))
        return topup_by_id(connection, str(row["id"]))


def _may_charge(connection: Connection, is_braked: IsBraked, recharge: Recharge, now_ns: int) -> bool:
    """Every guard, looked at once more with the row locked."""
    attempted_at_ns = recharge.attempted_at_ns
    if recharge.state != "on" or recharge.method_id is None:
        return False
    if attempted_at_ns is not None and attempted_at_ns > now_ns - RECHARGE_EVERY_NS:
        return False
    if is_frozen(connection, recharge.account_id) or is_braked(connection, recharge.account_id):
        return False
    on_its_way = select(topups.c.id).where(
        topups.c.account_id == recharge.account_id,
        or_((topups.c.kind == "recharge") & (topups.c.state == "created"), topups.c.state == "processing"),
    )
    if connection.execute(on_its_way.limit(1)).scalar_one_or_none() is not None:
        return False
    first_ns, after_ns = month_of(now_ns)
    spent = select(func.coalesce(func.sum(topups.c.amount_cents), 0)).where(
        topups.c.account_id == recharge.account_id,
        topups.c.kind == "recharge",
        topups.c.state == "paid",
        topups.c.created_at_ns >= first_ns,
        topups.c.created_at_ns < after_ns,
    )
    month_cents = int(connection.execute(spent).scalar_one())
    return month_cents + recharge.amount_cents <= recharge.monthly_cap_cents


def _charge(cashier: Cashier, topup: Topup) -> None:
    """One attempt. When Stripe does not answer, `resume_recharges` asks again with the same key."""
    with read(cashier.engine) as connection:
        recharge = recharge_of(connection, topup.account_id)
    if recharge is None or recharge.method_id is None:
        _fail(cashier, topup, "card_removed", "card_removed", None)
        return
    customer_id = cashier.customer(topup.account_id)
    order = ChargeOrder(topup.id, topup.account_id, customer_id, recharge.method_id, topup.amount_cents)
    try:
        intent_id = cashier.calls.charge_saved_card(order)
        cashier.settle(topup, intent_id=intent_id)
    except CardRefused as refused:
        reason = refused.decline_code or refused.reason
        is_confirm = CONFIRM in (refused.reason, refused.decline_code)
        is_hard = is_hard_decline(refused.reason, refused.decline_code)
        pauses = CONFIRM if is_confirm else "declined" if is_hard else ""
        _fail(cashier, topup, reason, pauses, refused.intent_id)
        if is_confirm:
            _ask_to_confirm(cashier, topup, customer_id)
    except StripeAway:
        return
    except StripeRefused as refused:
        # With another card than at the first try, the key says so: the reconciler finds what became of it.
        if refused.reason != "idempotency_error":
            _fail(cashier, topup, refused.reason, "refused", None)


def _fail(cashier: Cashier, topup: Topup, reason: str, pauses: str, intent_id: str | None) -> None:
    """The attempt is over; a soft decline pauses with the second in a row."""
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        over = update(topups).where(topups.c.id == topup.id, topups.c.state == "created")
        ended = over.values(state="failed", failure=reason[:60], intent_id=intent_id or None, checked_at_ns=now_ns)
        if not connection.execute(ended).rowcount:
            return
        told: list[Telling] = []
        mine = update(auto_recharges).where(auto_recharges.c.account_id == topup.account_id)
        connection.execute(mine.values(soft_declines=auto_recharges.c.soft_declines + 1))
        soft = select(auto_recharges.c.soft_declines).where(auto_recharges.c.account_id == topup.account_id)
        if not pauses and connection.execute(soft).scalar_one() >= SOFT_DECLINES_MAX:
            pauses = "declined"
        if pauses:
            told = pause(connection, topup.account_id, pauses, now_ns=now_ns)
        if pauses and pauses != CONFIRM:
            mail = PaymentMail(
                MailKind.RECHARGE_FAILED, topup.id, topup.account_id, topup.language, topup.amount_cents
            )
            queue_payment_mail(connection, cashier.ids, mail, now_ns=now_ns)
    cashier.tell(told)


def _ask_to_confirm(cashier: Cashier, topup: Topup, customer_id: str) -> None:
    """The bank wants to hear it from the customer: a payment page for the same amount, by mail, for a day."""
    now_ns = cashier.clock.now_ns()
    row = new_topup_row(cashier.ids, topup.account_id, "checkout", topup.amount_cents, topup.language, now_ns) | {
        "client_key": f"confirm/{topup.id}"
    }
    with write(cashier.engine) as connection:
        connection.execute(insert(topups).values(row))
        page = topup_by_id(connection, str(row["id"]))
    assert page is not None, "it was inserted above"
    cashier.open_page(page, customer_id, saves_card=True, open_s=CONFIRM_PAGE_OPEN_S)
    with write(cashier.engine) as connection:
        opened = lock_topup(connection, page.id)
        values = {"link": opened.session_url or ""}
        mail = PaymentMail(
            MailKind.RECHARGE_CONFIRM, topup.id, topup.account_id, topup.language, topup.amount_cents, values
        )
        queue_payment_mail(connection, cashier.ids, mail, now_ns=now_ns)


def _language_of(connection: Connection, account_id: AccountId) -> str:
    """The language in which the customer last paid."""
    wanted = select(topups.c.language).where(topups.c.account_id == account_id)
    newest = wanted.order_by(topups.c.created_at_ns.desc(), topups.c.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none() or "en"
