"""The simulated API: paths, parameters, answers, idempotency keys, pages of lists."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar, cast

from stripe.params import (
    BalanceTransactionListParams,
    ChargeListParams,
    ChargeRetrieveParams,
    CustomerCreateParams,
    CustomerUpdateParams,
    DisputeCloseParams,
    DisputeListParams,
    DisputeRetrieveParams,
    DisputeUpdateParams,
    EventListParams,
    EventRetrieveParams,
    PaymentIntentCreateParams,
    PaymentIntentListParams,
    PaymentIntentRetrieveParams,
    PaymentMethodAttachParams,
    PaymentMethodDetachParams,
    PaymentMethodRetrieveParams,
    RefundCreateParams,
    RefundListParams,
    RefundRetrieveParams,
)
from stripe.params.checkout import (
    SessionCreateParams,
    SessionExpireParams,
    SessionListParams,
    SessionRetrieveParams,
)
from stripe.params.radar import EarlyFraudWarningListParams, EarlyFraudWarningRetrieveParams

from dragonfly.payments.simulated.cards import NAMED_CARDS
from dragonfly.payments.simulated.faults import StripeFault, invalid, missing
from dragonfly.payments.simulated.form import Params, decode
from dragonfly.payments.simulated.sessions import new_session
from dragonfly.payments.simulated.state import Customer, Intent, Json, Kept, PaymentMethod, Records
from dragonfly.payments.simulated.till import Till

PAGE_DEFAULT, PAGE_MAX = 10, 100
KEY_LENGTH_MAX = 255
KEY_KEPT_S = 86_400
MISSING_KINDS = {
    "sessions": "checkout.session", "intents": "payment_intent", "methods": "PaymentMethod",
    "warnings": "radar.early_fraud_warning", "movements": "balance_transaction",
}  # fmt: skip

K = TypeVar("K", bound=Kept)


class Call(NamedTuple):
    """One request."""

    method: str
    path: str
    text: str
    """The form of a POST, the query of a GET."""
    idempotency_key: str = ""


class Answer(NamedTuple):
    """One answer."""

    status: int
    body: Json
    is_replayed: bool = False


class _Kept(NamedTuple):
    call: Call
    answer: Answer
    at_s: int


Handler = Callable[[str, Params], Json]


class Route(NamedTuple):
    """A path, the SDK's type of its parameters, and what answers. One group at most: the object's id."""

    method: str
    path: re.Pattern[str]
    shape: type
    handle: Handler


class Api:
    """Answers calls; no sockets."""

    def __init__(self, till: Till, *, account_id: str) -> None:
        self._till = till
        self._account_id = account_id
        self._keys: dict[str, _Kept] = {}
        self._routes = self._table()

    def answer(self, call: Call) -> Answer:
        """What Stripe would answer: also to the same idempotency key a second time."""
        key = call.idempotency_key
        if call.method != "POST" or not key:
            return self._once(call)
        kept = self._keys.get(key)
        if kept is not None and self._till.now_s() - kept.at_s < KEY_KEPT_S:
            return self._replayed(kept, call)
        answer = self._once(call)
        if answer.status not in (400, 401, 404, 429):
            self._keys[key] = _Kept(call, answer, self._till.now_s())
        return answer

    def _replayed(self, kept: _Kept, call: Call) -> Answer:
        if (kept.call.path, kept.call.text) == (call.path, call.text):
            return kept.answer._replace(is_replayed=True)
        message = (
            "Keys for idempotent requests can only be used with the same parameters they were first used with."
            " Try using a key other than the one you used before if you meant to execute a different request."
        )
        return Answer(400, {"error": {"type": "idempotency_error", "message": message}})

    def _once(self, call: Call) -> Answer:
        try:
            if len(call.idempotency_key) > KEY_LENGTH_MAX:
                raise invalid("Idempotency keys have at most 255 characters.")
            route, object_id = self._find(call)
            params = decode(call.text, route.shape)
            body = route.handle(object_id, params)
            if body.get("object") == "list":
                body["url"] = call.path
            return Answer(200, self._expanded(body, params))
        except StripeFault as fault:
            return Answer(fault.status, {"error": fault.error})

    def _find(self, call: Call) -> tuple[Route, str]:
        for route in self._routes:
            if route.method == call.method and (found := route.path.fullmatch(call.path)):
                return route, found[1] if found.groups() else ""
        raise StripeFault(
            404, "invalid_request_error", f"Unrecognized request URL ({call.method}: {call.path[:100]})."
        )

    def _table(self) -> tuple[Route, ...]:
        state, shapes = self._till.state, self._till.shapes
        one, page = self._one, self._page
        return (
            _route("GET", "/v1/account", PaymentMethodRetrieveParams, self._account),
            _route("POST", "/v1/customers", CustomerCreateParams, self._create_customer),
            _route("POST", "/v1/customers/(ID)", CustomerUpdateParams, self._update_customer),
            _route("GET", "/v1/customers/(ID)", PaymentMethodRetrieveParams, one("customers", shapes.customer)),
            _route("GET", "/v1/payment_methods/(ID)", PaymentMethodRetrieveParams, one("methods", shapes.method)),
            _route("POST", "/v1/payment_methods/(ID)/attach", PaymentMethodAttachParams, self._attach),
            _route("POST", "/v1/payment_methods/(ID)/detach", PaymentMethodDetachParams, self._detach),
            _route("POST", "/v1/checkout/sessions", SessionCreateParams, self._create_session),
            _route("GET", "/v1/checkout/sessions", SessionListParams, page(state.sessions, shapes.session)),
            _route("GET", "/v1/checkout/sessions/(ID)", SessionRetrieveParams, one("sessions", shapes.session)),
            _route("POST", "/v1/checkout/sessions/(ID)/expire", SessionExpireParams, self._expire),
            _route("POST", "/v1/payment_intents", PaymentIntentCreateParams, self._create_intent),
            _route("GET", "/v1/payment_intents", PaymentIntentListParams, page(state.intents, shapes.intent)),
            _route("GET", "/v1/payment_intents/(ID)", PaymentIntentRetrieveParams, one("intents", shapes.intent)),
            _route("GET", "/v1/charges", ChargeListParams, page(state.charges, shapes.charge)),
            _route("GET", "/v1/charges/(ID)", ChargeRetrieveParams, one("charges", shapes.charge)),
            _route("POST", "/v1/refunds", RefundCreateParams, self._create_refund),
            _route("GET", "/v1/refunds", RefundListParams, page(state.refunds, shapes.refund)),
            _route("GET", "/v1/refunds/(ID)", RefundRetrieveParams, one("refunds", shapes.refund)),
            _route("GET", "/v1/disputes", DisputeListParams, page(state.disputes, shapes.dispute)),
            _route("GET", "/v1/disputes/(ID)", DisputeRetrieveParams, one("disputes", shapes.dispute)),
            _route("POST", "/v1/disputes/(ID)", DisputeUpdateParams, self._update_dispute),
            _route("POST", "/v1/disputes/(ID)/close", DisputeCloseParams, self._concede),
            _route(
                "GET",
                "/v1/radar/early_fraud_warnings",
                EarlyFraudWarningListParams,
                page(state.warnings, shapes.warning),
            ),
            _route(
                "GET",
                "/v1/radar/early_fraud_warnings/(ID)",
                EarlyFraudWarningRetrieveParams,
                one("warnings", shapes.warning),
            ),
            _route(
                "GET",
                "/v1/balance_transactions",
                BalanceTransactionListParams,
                page(state.movements, shapes.movement),
            ),
            _route("GET", "/v1/events", EventListParams, page(state.events, shapes.event)),
            _route("GET", "/v1/events/(ID)", EventRetrieveParams, one("events", shapes.event)),
        )

    # Reading

    def _one(self, table: str, shape: Callable[[K], Json]) -> Handler:
        def read(object_id: str, _params: Params) -> Json:
            records: Records[K] = getattr(self._till.state, table)
            found = records.get(object_id)
            if found is None:
                raise missing(MISSING_KINDS.get(table, table.removesuffix("s")), object_id)
            return shape(found)

        return read

    def _page(self, records: Records[K], shape: Callable[[K], Json]) -> Handler:
        def read(_object_id: str, params: Params) -> Json:
            limit = cast(int, params.get("limit", PAGE_DEFAULT))
            if not 1 <= limit <= PAGE_MAX:
                raise invalid("Limit must be between 1 and 100.", "limit")
            fitting = [shown for shown in map(shape, records.newest_first()) if _fits(shown, params)]
            after = params.get("starting_after")
            if after is not None:
                places = [place for place, shown in enumerate(fitting) if shown["id"] == after]
                if not places:
                    raise missing("object", str(after), "starting_after")
                fitting = fitting[places[0] + 1 :]
            return {"object": "list", "url": "", "has_more": len(fitting) > limit, "data": fitting[:limit]}

        return read

    def _expanded(self, body: Json, params: Params) -> Json:
        for path in cast(list[str], params.get("expand", [])):
            self._expand([body], path.split("."))
        return body

    def _expand(self, tables: Iterable[Json], path: list[str]) -> None:
        for table in tables:
            value = table.get(path[0])
            if isinstance(value, str):
                found = self._till.shapes.by_id(value)
                table[path[0]] = value = found if found is not None else value
            inner = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
            if len(path) > 1:
                self._expand([each for each in inner if isinstance(each, dict)], path[1:])

    def _account(self, _object_id: str, _params: Params) -> Json:
        return {
            "id": self._account_id, "object": "account", "business_type": None, "type": "standard",
            "charges_enabled": True, "country": "DE", "default_currency": "usd", "details_submitted": True,
            "email": None, "payouts_enabled": True,
        }  # fmt: skip

    # Writing

    def _create_customer(self, _object_id: str, params: Params) -> Json:
        till = self._till
        customer = Customer(
            till.new_id("cus"),
            till.now_s(),
            _text(params.get("email")),
            _text(params.get("name")),
            _metadata(params),
        )
        return till.shapes.customer(till.state.customers.put(customer))

    def _update_customer(self, object_id: str, params: Params) -> Json:
        customer = self._till.state.customers.get(object_id)
        if customer is None:
            raise missing("customer", object_id)
        customer.email = _text(params.get("email")) or customer.email
        customer.name = _text(params.get("name")) or customer.name
        customer.metadata |= _metadata(params)
        return self._till.shapes.customer(customer)

    def _attach(self, object_id: str, params: Params) -> Json:
        """A test card by the name that Stripe's test mode gives it."""
        card = NAMED_CARDS.get(object_id)
        customer = str(params["customer"])
        if card is None:
            raise missing("PaymentMethod", object_id, "payment_method")
        if self._till.state.customers.get(customer) is None:
            raise missing("customer", customer, "customer")
        made = PaymentMethod(self._till.new_id("pm"), self._till.now_s(), "card", card, customer)
        return self._till.shapes.method(self._till.state.methods.put(made))

    def _detach(self, object_id: str, _params: Params) -> Json:
        method = self._till.state.methods.get(object_id)
        if method is None or method.customer is None:
            raise invalid("The payment method is not attached to a customer, so detachment is impossible.")
        self._till.detach(method)
        return self._till.shapes.method(method)

    def _create_session(self, _object_id: str, params: Params) -> Json:
        session = new_session(self._till, params)
        return self._till.shapes.session(self._till.state.sessions.put(session))

    def _expire(self, object_id: str, _params: Params) -> Json:
        session = self._till.state.sessions.get(object_id)
        if session is None:
            raise missing("checkout.session", object_id, "session")
        if session.status != "open":
            raise invalid("Only Checkout Sessions with a status in [open] can be expired.")
        self._till.expire_session(session)
        return self._till.shapes.session(session)

    def _create_intent(self, _object_id: str, params: Params) -> Json:
        """Off-session payments with a saved method, confirmed at once: what automatic top-ups need."""
        till = self._till
        if params.get("confirm") is not True or params.get("off_session") is not True:
            raise invalid("The simulated Stripe takes payment intents that are confirmed off session only.")
        method = till.state.methods.get(str(params.get("payment_method")))
        customer = params.get("customer")
        if method is None:
            raise missing("PaymentMethod", str(params.get("payment_method")), "payment_method")
        if customer is None or method.customer != customer:
            raise invalid("The payment method does not belong to the customer.", "payment_method")
        amount_cents = cast(int, params["amount"])
        if amount_cents < 50:
            raise invalid("Amount must be at least $0.50 usd", "amount", "amount_too_small")
        intent = Intent(
            till.new_id("pi"),
            till.now_s(),
            amount_cents,
            str(params["currency"]),
            str(customer),
            _metadata(params),
            (method.kind,),
            description=_text(params.get("description")),
        )
        till.state.intents.put(intent)
        till.confirm_off_session(intent, method)
        return till.shapes.intent(intent)

    def _create_refund(self, _object_id: str, params: Params) -> Json:
        till = self._till
        charge_id = params.get("charge")
        if charge_id is None:
            charge_id = till.intent(str(params.get("payment_intent"))).charge
        amount = cast("int | None", params.get("amount"))
        refund = till.refund(till.charge(str(charge_id)), amount, _text(params.get("reason")), _metadata(params))
        return till.shapes.refund(refund)

    def _update_dispute(self, object_id: str, params: Params) -> Json:
        dispute = self._till.state.disputes.get(object_id)
        if dispute is None:
            raise missing("dispute", object_id)
        evidence = cast(Mapping[str, str], params.get("evidence") or {})
        self._till.answer_dispute(dispute, evidence, submits=params.get("submit", True) is True)
        return self._till.shapes.dispute(dispute)

    def _concede(self, object_id: str, _params: Params) -> Json:
        dispute = self._till.state.disputes.get(object_id)
        if dispute is None:
            raise missing("dispute", object_id)
        self._till.close_dispute(dispute, is_won=False)
        return self._till.shapes.dispute(dispute)


def _route(method: str, path: str, shape: object, handle: Handler) -> Route:
    return Route(method, re.compile(path.replace("ID", "[A-Za-z0-9_]{1,80}")), cast(type, shape), handle)


def _fits(shown: Json, params: Params) -> bool:
    """The filters of a list: equal fields, `type` and `types` of events, and bounds of `created`."""
    created = params.get("created")
    at_s = cast(int, shown["created"])
    if isinstance(created, int) and at_s != created:
        return False
    if isinstance(created, dict):
        bounds = cast(dict[str, int], created)
        if at_s < bounds.get("gte", at_s) or at_s > bounds.get("lte", at_s):
            return False
        if at_s <= bounds.get("gt", at_s - 1) or at_s >= bounds.get("lt", at_s + 1):
            return False
    types = params.get("types")
    if isinstance(types, list) and shown.get("type") not in types:
        return False
    same = ("payment_intent", "customer", "charge", "status", "type", "source")
    return all(shown.get(name) == params[name] for name in same if name in params)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _metadata(params: Params) -> dict[str, str]:
    found = params.get("metadata") or {}
    assert isinstance(found, dict)
    return {str(name): str(value) for name, value in found.items()}


def to_bytes(body: Json) -> bytes:
    """As Stripe prints JSON."""
    return json.dumps(body, indent=2).encode()
