"""Money that goes back: refunds and disputes as Stripe has them, into our rows and the books.

Each is applied once per state, however often it is seen. Callers hold the lock of the top-up.
"""

import json

from sqlalchemy import Connection, delete, insert, select, update

from dragonfly.accounts.actions import freeze_account
from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.tables import accounts
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import insert_missing
from dragonfly.ledger.actions import Extras, record_fee, return_tax, top_up
from dragonfly.ledger.disputes import lose_dispute, open_dispute, win_dispute
from dragonfly.ledger.lots import refundable_nusd
from dragonfly.ledger.refunds import complete_refund, hold_refund
from dragonfly.ledger.tables import refunds as held_refunds
from dragonfly.mail.kinds import MailKind
from dragonfly.payments.alerts import Alert, alert_operator
from dragonfly.payments.evidence import evidence_of
from dragonfly.payments.news import DISPUTE_CHANGED, REFUND_ENDED, PaymentMail, Telling, queue_payment_mail, time_text
from dragonfly.payments.queries import (
    Dispute,
    Refund,
    Topup,
    dispute_by_id,
    refund_by_id,
    refunds_of_topup,
)
from dragonfly.payments.rules import NUSD_PER_CENT, Fate, cents_text, credit_share_nusd, fate_of
from dragonfly.payments.seen import DisputeSeen, RefundSeen
from dragonfly.payments.tables import payment_disputes, payment_freezes, payment_refunds
from dragonfly.payments.terms import PaymentTerms

WORD_LENGTH_MAX = 60
TAKEN_STATES = ("approved", "pending", "succeeded")
"""Refunds whose credit is out of the wallet."""


def apply_refund(
    connection: Connection, ids: IdSource, topup: Topup, seen: RefundSeen, *, now_ns: int
) -> list[Telling]:
    """Holds, completes or gives back, as the refund's state demands."""
    refund = _known_refund(connection, topup, seen) or _new_refund(connection, topup, seen, now_ns)
    if refund.state == "failed":
        return []
    if seen.status in ("failed", "canceled"):
        _complete(connection, topup, refund, now_ns)
        _give_back(connection, topup, refund, now_ns)
        _end_refund(connection, refund, "failed", seen.failure or seen.status, now_ns)
        return [(REFUND_ENDED, {"refund": refund.id, "state": "failed"})]
    if refund.state == "succeeded":
        return []
    if seen.status != "succeeded":
        pending = update(payment_refunds).where(payment_refunds.c.id == refund.id)
        connection.execute(pending.values(state="pending", tried_at_ns=now_ns))
        return []
    _complete(connection, topup, refund, now_ns)
    _end_refund(connection, refund, "succeeded", None, now_ns)
    mail = PaymentMail(
        MailKind.REFUND, refund.id, topup.account_id, topup.language, seen.amount_cents, {"reference": refund.id}
    )
    queue_payment_mail(connection, ids, mail, now_ns=now_ns)
    return [(REFUND_ENDED, {"refund": refund.id, "state": "succeeded"})]


def apply_dispute(
    connection: Connection, ids: IdSource, terms: PaymentTerms, topup: Topup, seen: DisputeSeen, *, now_ns: int
) -> list[Telling]:
    """Opens, wins or loses, as the dispute's state demands; a state that is behind ours changes nothing."""
    fate = fate_of(seen.status)
    known = dispute_by_id(connection, seen.id)
    told: list[Telling] = []
    is_inquiry = fate in (Fate.INQUIRY, Fate.CLOSED)
    is_new = known is None
    known = known or _new_dispute(connection, topup, seen, now_ns)
    if is_new or (known.state == "inquiry" and fate is Fate.OPEN):
        told.append(_dispute_told(known, Fate.INQUIRY if is_inquiry else Fate.OPEN))
        _alert_dispute(connection, ids, terms, known, "inquiry" if is_inquiry else "open", now_ns)
        if not is_inquiry:
            _mail_dispute(connection, ids, topup, known, MailKind.DISPUTE_OPENED, now_ns)
    if known.state in ("won", "lost", "closed"):
        return told
    if fate not in (Fate.INQUIRY, Fate.CLOSED):
        _take_disputed(connection, topup, known, seen, now_ns)
    if fate in (Fate.WON, Fate.LOST, Fate.CLOSED):
        _decide(connection, ids, topup, known, fate, now_ns)
        told.append(_dispute_told(known, fate))
    return told


# Refunds


def _known_refund(connection: Connection, topup: Topup, seen: RefundSeen) -> Refund | None:
    """The row of a refund that we made or have met; it learns Stripe's id."""
    wanted = select(payment_refunds.c.id).where(payment_refunds.c.stripe_refund_id == seen.id)
    refund_id = connection.execute(wanted).scalar_one_or_none() or seen.own_id
    refund = refund_by_id(connection, refund_id) if refund_id else None
    if refund is None or refund.topup_id != topup.id or refund.amount_cents != seen.amount_cents:
        return None
    if refund.stripe_refund_id is None:
        learned = update(payment_refunds).where(payment_refunds.c.id == refund.id)
        connection.execute(learned.values(stripe_refund_id=seen.id))
    return refund


def _new_refund(connection: Connection, topup: Topup, seen: RefundSeen, now_ns: int) -> Refund:
    """Somebody refunded in Stripe's dashboard: the credit is taken now, as far as it is there."""
    credit_nusd = _credit_of_refund(connection, topup, seen.amount_cents)
    row = {
        "id": f"ref-{seen.id}",
        "topup_id": topup.id,
        "account_id": topup.account_id,
        "source": "dashboard",
        "state": "pending",
        "amount_cents": seen.amount_cents,
        "credit_nusd": credit_nusd,
        "reason": seen.reason[:WORD_LENGTH_MAX] or "dashboard",
        "stripe_refund_id": seen.id,
        "created_at_ns": seen.created_s * 10**9,
        "tried_at_ns": now_ns,
    }
    connection.execute(insert(payment_refunds).values(row))
    refund = refund_by_id(connection, f"ref-{seen.id}")
    assert refund is not None, "it was inserted above"
    hold_for_refund(connection, topup.account_id, refund, now_ns=now_ns)
    return refund


def hold_for_refund(connection: Connection, account_id: AccountId, refund: Refund, *, now_ns: int) -> None:
    """Takes the credit of a refund that Stripe has made already: first what is unused of that payment, then whatever
    the wallet has; the rest was spent and is written off."""
    held_nusd = min(refund.credit_nusd, refundable_nusd(connection, account_id, refund.topup_id))
    if held_nusd:
        hold_refund(
            connection,
            account_id,
            refund_id=refund.id,
            amount_nusd=held_nusd,
            reference=refund.topup_id,
            now_ns=now_ns,
        )
    if refund.credit_nusd > held_nusd:
        missing_nusd = refund.credit_nusd - held_nusd
        open_dispute(
            connection,
            account_id,
            dispute_id=refund.id,
            amount_nusd=missing_nusd,
            reference=refund.topup_id,
            now_ns=now_ns,
        )
        lose_dispute(connection, account_id, dispute_id=refund.id, now_ns=now_ns)


def _credit_of_refund(connection: Connection, topup: Topup, cents: int) -> int:
    """The credit in a refund: its share, and with the last cent all that is left."""
    assert topup.credit_nusd is not None, "a paid top-up has credit"
    assert topup.total_cents is not None, "a paid top-up has a total"
    others = [one for one in refunds_of_topup(connection, topup.id) if one.state in TAKEN_STATES]
    left_nusd = topup.credit_nusd - sum(one.credit_nusd for one in others)
    if sum(one.amount_cents for one in others) + cents >= topup.total_cents:
        return max(0, left_nusd)
    return max(0, min(left_nusd, credit_share_nusd(cents, topup.credit_nusd, topup.total_cents)))


def _complete(connection: Connection, topup: Topup, refund: Refund, now_ns: int) -> None:
    """The money left Stripe's balance, the tax in it too."""
    if refund.state == "succeeded":
        return
    held = select(held_refunds.c.id).where(held_refunds.c.id == refund.id)
    if connection.execute(held).scalar_one_or_none() is not None:
        complete_refund(connection, topup.account_id, refund_id=refund.id, now_ns=now_ns)
    tax_nusd = tax_of(refund.amount_cents, refund.credit_nusd)
    if tax_nusd > 0:
        return_tax(connection, reference=refund.id, amount_nusd=tax_nusd, now_ns=now_ns)


def _give_back(connection: Connection, topup: Topup, refund: Refund, now_ns: int) -> None:
    """A refund that failed after all: the credit is there again, as a payment that Stripe still holds."""
    if not refund.credit_nusd:
        return
    top_up(
        connection,
        topup.account_id,
        amount_nusd=refund.credit_nusd,
        idempotency_key=f"refund-failed/{refund.id}",
        reference=topup.id,
        now_ns=now_ns,
        extras=Extras(tax_nusd=max(0, tax_of(refund.amount_cents, refund.credit_nusd))),
    )


def tax_of(cents: int, credit_nusd: int) -> int:
    """The tax in an amount whose credit is known."""
    return cents * NUSD_PER_CENT - credit_nusd


def _end_refund(connection: Connection, refund: Refund, state: str, failure: str | None, now_ns: int) -> None:
    ended = {"state": state, "failure": failure and failure[:WORD_LENGTH_MAX], "ended_at_ns": now_ns}
    connection.execute(update(payment_refunds).where(payment_refunds.c.id == refund.id).values(ended))


# Disputes


def _new_dispute(connection: Connection, topup: Topup, seen: DisputeSeen, now_ns: int) -> Dispute:
    assert topup.credit_nusd is not None, "a paid top-up has credit"
    assert topup.total_cents is not None, "a paid top-up has a total"
    row = {
        "id": seen.id,
        "topup_id": topup.id,
        "account_id": topup.account_id,
        "state": "inquiry",
        "amount_cents": seen.amount_cents,
        "credit_nusd": credit_share_nusd(seen.amount_cents, topup.credit_nusd, topup.total_cents),
        "reason": seen.reason[:WORD_LENGTH_MAX] or "general",
        "evidence": json.dumps(evidence_of(connection, topup, now_ns=now_ns)),
        "due_at_ns": seen.due_s * 10**9 if seen.due_s else None,
        "opened_at_ns": seen.created_s * 10**9,
    }
    connection.execute(insert(payment_disputes).values(row))
    dispute = dispute_by_id(connection, seen.id)
    assert dispute is not None, "it was inserted above"
    return dispute


def _take_disputed(connection: Connection, topup: Topup, known: Dispute, seen: DisputeSeen, now_ns: int) -> None:
    """The bank has taken the money: so is the credit, and the account stands still."""
    if known.credit_nusd:
        open_dispute(
            connection,
            topup.account_id,
            dispute_id=known.id,
            amount_nusd=known.credit_nusd,
            reference=topup.id,
            now_ns=now_ns,
        )
    for fee in seen.fees:
        if fee.cents > 0:
            fee_nusd = fee.cents * NUSD_PER_CENT
            record_fee(connection, reference=fee.movement_id, amount_nusd=fee_nusd, now_ns=now_ns)
    if known.state == "inquiry":
        opened = update(payment_disputes).where(payment_disputes.c.id == known.id)
        connection.execute(opened.values(state="open"))
        freeze_for(connection, topup.account_id, known.id, now_ns=now_ns)


def _decide(connection: Connection, ids: IdSource, topup: Topup, known: Dispute, fate: Fate, now_ns: int) -> None:
    current = dispute_by_id(connection, known.id)
    was_taken = current is not None and current.state == "open"
    decided = update(payment_disputes).where(payment_disputes.c.id == known.id)
    connection.execute(decided.values(state=fate.value, closed_at_ns=now_ns))
    if not was_taken:
        return
    if fate is Fate.LOST:
        if known.credit_nusd:
            lose_dispute(connection, topup.account_id, dispute_id=known.id, now_ns=now_ns)
        tax_nusd = tax_of(known.amount_cents, known.credit_nusd)
        if tax_nusd > 0:
            return_tax(connection, reference=known.id, amount_nusd=tax_nusd, now_ns=now_ns)
    else:
        if known.credit_nusd:
            win_dispute(connection, topup.account_id, dispute_id=known.id, now_ns=now_ns)
        unfreeze_for(connection, topup.account_id, known.id, now_ns=now_ns)
    _mail_dispute(connection, ids, topup, known, MailKind.DISPUTE_CLOSED, now_ns, outcome=fate)


def _mail_dispute(
    connection: Connection,
    ids: IdSource,
    topup: Topup,
    dispute: Dispute,
    kind: MailKind,
    now_ns: int,
    outcome: Fate | None = None,
) -> None:
    values = {"reference": topup.id}
    if outcome is not None:
        values["outcome"] = "lost" if outcome is Fate.LOST else "won"
    mail = PaymentMail(kind, dispute.id, topup.account_id, topup.language, dispute.amount_cents, values)
    queue_payment_mail(connection, ids, mail, now_ns=now_ns)


def _alert_dispute(
    connection: Connection, ids: IdSource, terms: PaymentTerms, dispute: Dispute, stage: str, now_ns: int
) -> None:
    values = {
        "topup": dispute.topup_id,
        "amount": cents_text(dispute.amount_cents),
        "reason": dispute.reason,
        "dispute": dispute.id,
        "due": time_text(dispute.due_at_ns) if dispute.due_at_ns else "-",
    }
    key = f"{dispute.id}/{stage}"
    alert_operator(connection, ids, terms, Alert.DISPUTE_OPENED, key=key, values=values, now_ns=now_ns)


def _dispute_told(dispute: Dispute, fate: Fate) -> Telling:
    return DISPUTE_CHANGED, {"dispute": dispute.id, "topup": dispute.topup_id, "state": fate.value}


# Accounts that stand still


def freeze_for(connection: Connection, account_id: AccountId, cause: str, *, now_ns: int) -> None:
    """Stops the account's keys because of a dispute or a warning; one that an operator has stopped stays so."""
    earlier = connection.execute(
        select(payment_freezes.c.since_ns).where(payment_freezes.c.account_id == account_id).limit(1)
    ).scalar_one_or_none()
    row = {"account_id": account_id, "cause": cause, "since_ns": earlier or now_ns}
    insert_missing(connection, payment_freezes, row)
    if _frozen_at_ns(connection, account_id) is None:
        freeze_account(connection, account_id, is_frozen=True, now_ns=now_ns)


def unfreeze_for(connection: Connection, account_id: AccountId, cause: str, *, now_ns: int) -> None:
    """Takes one cause away; with the last one the keys work again, unless an operator has stopped the account."""
    mine = payment_freezes.c.account_id == account_id
    causes = {row.cause: row.since_ns for row in connection.execute(select(payment_freezes).where(mine))}
    if cause not in causes:
        return
    connection.execute(delete(payment_freezes).where(mine, payment_freezes.c.cause == cause))
    ours = _frozen_at_ns(connection, account_id) in causes.values()
    if ours and len(causes) == 1:
        freeze_account(connection, account_id, is_frozen=False, now_ns=now_ns)


def _frozen_at_ns(connection: Connection, account_id: AccountId) -> int | None:
    assert account_by_id(connection, account_id) is not None, "a payment has an account"
    found = connection.execute(select(accounts.c.frozen_at_ns).where(accounts.c.id == account_id)).scalar_one()
    return None if found is None else int(found)
