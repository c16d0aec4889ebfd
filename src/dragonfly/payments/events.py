"""What Stripe tells: verified, reduced to the needed fields, stored before it is acknowledged, applied once.

An event is a reason to ask Stripe about one payment; `settling` then applies the answer. What the event itself says
of amount, currency, account and mode is compared as well, so that one that does not fit is refused and stays on
record.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import Connection, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.lazily import Lazily
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import insert_missing
from dragonfly.payments.queries import Topup
from dragonfly.payments.rules import CURRENCY, DAY_NS
from dragonfly.payments.tables import external_events, payment_refusals
from dragonfly.payments.terms import PaymentTerms

if TYPE_CHECKING:
    import stripe
else:
    stripe = Lazily("stripe")

SOURCE = "stripe"
BODY_BYTES_MAX = 256 * 1024
SIGNATURE_BYTES_MAX = 2_000
TOLERANCE_S = 300
WORD_LENGTH_MAX = 200

HANDLED = frozenset(
    (
        "checkout.session.completed", "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed", "checkout.session.expired",
        "payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled",
        "refund.created", "refund.updated", "refund.failed",
        "charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed",
        "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated",
        "radar.early_fraud_warning.created", "radar.early_fraud_warning.updated",
        "payment_method.detached", "payment_method.automatically_updated",
    )
)  # fmt: skip
"""Every type that changes something here; the webhook at Stripe should send these and no others."""


_OBJECTS = {"charge.dispute": "dispute"}
"""What an event's object is, where its type does not begin with its name."""


class EventRefused(DragonflyError):
    """A request to the webhook that is not Stripe's, or too old; `reason` is one word."""

    code = "webhook_refused"
    status = 400

    def __init__(self, reason: str) -> None:
        super().__init__("This webhook takes signed events of the payment provider only.")
        self.reason = reason


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of an event's object."""

    object: str = ""
    id: str = ""
    session: str = ""
    intent: str = ""
    topup: str = ""
    account: str = ""
    currency: str = ""
    amount: int | None = None
    status: str = ""
    card: str = ""


class Incoming(NamedTuple):
    """A verified event."""

    event_id: str
    type: str
    livemode: bool
    connected_account: str
    created_s: int
    details: Details


class _Data(msgspec.Struct):
    object: dict[str, object]


class _Event(msgspec.Struct):
    id: str
    type: str
    livemode: bool
    created: int
    data: _Data
    object: str
    account: str | None = None


def verify_event(body: bytes, signature: str, secret: Secret, *, now_ns: int) -> Incoming:
    """The event in a request to the webhook. EventRefused with the reason: too_large, forged, stale or malformed."""
    if len(body) > BODY_BYTES_MAX or len(signature) > SIGNATURE_BYTES_MAX:
        raise EventRefused("too_large")
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret.reveal(), tolerance=None)
    except (stripe.SignatureVerificationError, ValueError):
        raise EventRefused("forged") from None
    # The SDK compares with the machine's clock; ours is an argument. The signature covers the time.
    if abs(now_ns // 10**9 - _signed_at_s(signature)) > TOLERANCE_S:
        raise EventRefused("stale")
    try:
        event = msgspec.json.decode(body, type=_Event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EventRefused("malformed") from None
    if event.object != "event" or not _is_word(event.id) or not _is_word(event.type):
        raise EventRefused("malformed")
    details = _details(event.data.object)
    return Incoming(event.id, event.type, event.livemode, event.account or "", event.created, details)


def store_event(connection: Connection, terms: PaymentTerms, incoming: Incoming, *, now_ns: int) -> str:
    """Keeps an event, once; why it is refused, or an empty text. Types that change nothing here are not kept."""
    if incoming.type not in HANDLED:
        return ""
    reason = ""
    if incoming.livemode is not terms.livemode:
        reason = "wrong_mode"
    elif incoming.connected_account != terms.connected_account:
        reason = "wrong_account"
    elif incoming.details.object != _object_of(incoming.type) or not incoming.details.id:
        reason = "unknown_object"
    row = {
        "source": SOURCE,
        "event_id": incoming.event_id,
        "type": incoming.type,
        "object_id": incoming.details.id,
        "details": msgspec.json.encode(incoming.details).decode(),
        "state": "refused" if reason else "new",
        "reason": reason or None,
        "tries": 0,
        "due_at_ns": now_ns,
        "happened_at_ns": incoming.created_s * 10**9,
        "received_at_ns": now_ns,
        "handled_at_ns": now_ns if reason else None,
    }
    insert_missing(connection, external_events, row)
    return reason


def count_refusal(connection: Connection, reason: str, *, count: int, now_ns: int) -> int:
    """Counts requests to the webhook that were refused; how many there were today for this reason."""
    day = now_ns // DAY_NS
    insert_missing(connection, payment_refusals, {"day": day, "reason": reason, "count": 0})
    one = (payment_refusals.c.day == day) & (payment_refusals.c.reason == reason)
    connection.execute(update(payment_refusals).where(one).values(count=payment_refusals.c.count + count))
    return int(connection.execute(select(payment_refusals.c.count).where(one)).scalar_one())


def read_details(text: str) -> Details:
    return msgspec.json.decode(text.encode(), type=Details)


def misfit(details: Details, topup: Topup) -> str:
    """Why an event does not fit the top-up that it names; empty when it does."""
    if details.account and details.account != topup.account_id:
        return "wrong_account"
    if details.currency and details.currency != CURRENCY:
        return "wrong_currency"
    if details.amount is None:
        return ""
    if details.object == "checkout.session" and details.amount != topup.amount_cents:
        return "wrong_amount"
    # The total includes tax, which only Stripe knows before the first look; afterwards it is compared too.
    total = topup.total_cents
    if details.object == "payment_intent":
        is_wrong = details.amount != total if total is not None else details.amount < topup.amount_cents
        return "wrong_amount" if is_wrong else ""
    if details.object in ("refund", "dispute") and total is not None and details.amount > total:
        return "wrong_amount"
    return ""


def end_event(
    connection: Connection,
    event_id: str,
    state: str,
    *,
    reason: str | None = None,
    account_id: AccountId | None = None,
    now_ns: int,
) -> bool:
    """Marks an event as done, refused or dead, once; False when somebody else was first."""
    is_event = (external_events.c.source == SOURCE) & (external_events.c.event_id == event_id)
    ended = update(external_events).where(is_event, external_events.c.state == "new")
    values = {"state": state, "reason": reason, "handled_at_ns": now_ns, "account_id": account_id}
    return bool(connection.execute(ended.values(values)).rowcount)


def postpone_event(connection: Connection, event_id: str, *, tries: int, due_at_ns: int) -> None:
    """Tries again later."""
    is_event = (external_events.c.source == SOURCE) & (external_events.c.event_id == event_id)
    later = update(external_events).where(is_event, external_events.c.state == "new")
    connection.execute(later.values(tries=tries, due_at_ns=due_at_ns))


def resend_event(connection: Connection, event_id: str, *, now_ns: int) -> bool:
    """An operator has a dead or refused event looked at again; False when there is none."""
    is_event = (external_events.c.source == SOURCE) & (external_events.c.event_id == event_id)
    again = update(external_events).where(is_event, external_events.c.state.in_(("dead", "refused")))
    values = {"state": "new", "reason": None, "tries": 0, "due_at_ns": now_ns, "handled_at_ns": None}
    return bool(connection.execute(again.values(values)).rowcount)


def event_state(connection: Connection, event_id: str) -> str | None:
    """Where an event stands."""
    is_event = (external_events.c.source == SOURCE) & (external_events.c.event_id == event_id)
    return connection.execute(select(external_events.c.state).where(is_event)).scalar_one_or_none()


def _object_of(event_type: str) -> str:
    """checkout.session.completed -> checkout.session."""
    subject = event_type.rpartition(".")[0]
    return _OBJECTS.get(subject, subject)


def _signed_at_s(signature: str) -> int:
    for part in signature.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t" and value.isascii() and value.isdigit() and len(value) < 15:
            return int(value)
    return 0


def _details(shown: Mapping[str, object]) -> Details:
    """The needed fields and no others: no names, addresses, cards or texts."""
    kind, own_id = _text(shown, "object"), _text(shown, "id")
    metadata = shown.get("metadata")
    words = metadata if isinstance(metadata, dict) else {}
    amount = shown.get("amount_subtotal" if kind == "checkout.session" else "amount")
    card = shown.get("card") if kind == "payment_method" else None
    return Details(
        object=kind,
        id=own_id,
        session=own_id if kind == "checkout.session" else "",
        intent=own_id if kind == "payment_intent" else _text(shown, "payment_intent"),
        topup=_text(words, "topup") or _text(shown, "client_reference_id"),
        account=_text(words, "account"),
        currency=_text(shown, "currency"),
        amount=amount if isinstance(amount, int) and not isinstance(amount, bool) else None,
        status=_text(shown, "payment_status") or _text(shown, "status"),
        card=f"{_text(card, 'brand')} {_text(card, 'last4')}" if isinstance(card, dict) else "",
    )


def _text(shown: Mapping[str, object], name: str) -> str:
    value = shown.get(name)
    return value if isinstance(value, str) and _is_word(value) else ""


def _is_word(text: str) -> bool:
    return 0 < len(text) <= WORD_LENGTH_MAX and text.isprintable() and " " not in text
