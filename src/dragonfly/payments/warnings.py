"""Early fraud warnings: a card network suspects a payment before its holder disputes it."""

from sqlalchemy import Connection, insert, select

from dragonfly.core.ids import IdSource
from dragonfly.infra.database import insert_missing, read, write
from dragonfly.ledger.lots import refundable_nusd
from dragonfly.ledger.refunds import hold_refund
from dragonfly.payments.alerts import Alert, alert_operator
from dragonfly.payments.clawbacks import freeze_for
from dragonfly.payments.news import FRAUD_WARNED, Telling
from dragonfly.payments.orders import StripeAway
from dragonfly.payments.queries import Topup, refund_by_id, refunds_of_topup
from dragonfly.payments.refunding import send_refund
from dragonfly.payments.rules import WarningResponse, cents_text, warning_response
from dragonfly.payments.seen import WarningSeen
from dragonfly.payments.settling import lock_topup
from dragonfly.payments.tables import fraud_warnings, payment_refunds
from dragonfly.payments.terms import PaymentTerms
from dragonfly.payments.topups import Cashier


def answer_warning(cashier: Cashier, topup: Topup, seen: WarningSeen) -> None:
    """Stops the account, once per warning; refunds a payment of which nothing was used, because only a full refund
    removes the exposure. Everything else is for an operator."""
    cashier.settle(topup)  # what was paid is credited first, whatever the order in which events come
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        told = take_warning(connection, cashier.ids, cashier.terms, topup.id, seen, now_ns=now_ns)
    cashier.tell(told)
    with read(cashier.engine) as connection:
        refund = refund_by_id(connection, _refund_id(seen))
    if refund is not None and refund.state == "approved":
        try:
            send_refund(cashier, refund)
        except StripeAway:
            return  # the job that resumes refunds asks again


def take_warning(
    connection: Connection, ids: IdSource, terms: PaymentTerms, topup_id: str, seen: WarningSeen, *, now_ns: int
) -> list[Telling]:
    """The warning's row, the freeze, and the held credit of a refund; nothing when the warning is known."""
    topup = lock_topup(connection, topup_id)
    if topup.state != "paid" or topup.credit_nusd is None or _is_known(connection, seen):
        return []
    unused_nusd = refundable_nusd(connection, topup.account_id, topup.id)
    response = warning_response(
        is_actionable=seen.is_actionable, remaining_nusd=unused_nusd, credit_nusd=topup.credit_nusd
    )
    if refunds_of_topup(connection, topup.id) and response is WarningResponse.REFUND:
        response = WarningResponse.REVIEW
    row = {
        "id": seen.id,
        "topup_id": topup.id,
        "account_id": topup.account_id,
        "kind": seen.kind[:60] or "unknown",
        "response": response.value,
        "created_at_ns": seen.created_s * 10**9,
    }
    insert_missing(connection, fraud_warnings, row)
    if response is not WarningResponse.NONE:
        freeze_for(connection, topup.account_id, seen.id, now_ns=now_ns)
    if response is WarningResponse.REFUND:
        _hold_everything(connection, topup, seen, now_ns)
    _alert(connection, ids, terms, topup, seen, response, now_ns)
    return [(FRAUD_WARNED, {"topup": topup.id, "response": response.value})]


def _alert(
    connection: Connection,
    ids: IdSource,
    terms: PaymentTerms,
    topup: Topup,
    seen: WarningSeen,
    response: WarningResponse,
    now_ns: int,
) -> None:
    values = {
        "topup": topup.id,
        "amount": cents_text(topup.total_cents or 0),
        "kind": seen.kind,
        "response": response.value,
    }
    alert_operator(connection, ids, terms, Alert.FRAUD_WARNING, key=seen.id, values=values, now_ns=now_ns)


def _hold_everything(connection: Connection, topup: Topup, seen: WarningSeen, now_ns: int) -> None:
    assert topup.credit_nusd is not None, "a paid top-up has credit"
    row = {
        "id": _refund_id(seen),
        "topup_id": topup.id,
        "account_id": topup.account_id,
        "source": "warning",
        "state": "approved",
        "amount_cents": topup.total_cents,
        "credit_nusd": topup.credit_nusd,
        "reason": "fraud_warning",
        "created_at_ns": now_ns,
        "decided_at_ns": now_ns,
        "tried_at_ns": now_ns,
    }
    connection.execute(insert(payment_refunds).values(row))
    hold_refund(
        connection,
        topup.account_id,
        refund_id=_refund_id(seen),
        amount_nusd=topup.credit_nusd,
        reference=topup.id,
        now_ns=now_ns,
    )


def _is_known(connection: Connection, seen: WarningSeen) -> bool:
    wanted = select(fraud_warnings.c.id).where(fraud_warnings.c.id == seen.id)
    return connection.execute(wanted).scalar_one_or_none() is not None


def _refund_id(seen: WarningSeen) -> str:
    return f"ref-{seen.id}"
