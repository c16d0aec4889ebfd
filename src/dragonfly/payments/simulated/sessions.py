"""New Checkout Sessions: the rules of Stripe's that matter for a top-up."""

from collections.abc import Mapping
from typing import cast

from dragonfly.payments.simulated.faults import invalid, missing
from dragonfly.payments.simulated.form import Params
from dragonfly.payments.simulated.state import Line, Session
from dragonfly.payments.simulated.till import Till

EXPIRY_S_MIN, EXPIRY_S_MAX = 1_800, 86_400
TAX_BASIS_POINTS = 1_900
CENTS_MIN = 50
METHODS = ("card", "link", "alipay", "wechat_pay")
SINGLE_USE = ("alipay", "wechat_pay")
CURRENCY = "usd"


def new_session(till: Till, params: Params) -> Session:
    """A session that nobody has paid; StripeFault for parameters that contradict each other."""
    if params.get("mode") != "payment":
        raise invalid("The simulated Stripe knows the mode `payment` only.", "mode")
    lines = tuple(_line(item) for item in cast(list[Params], params.get("line_items") or []))
    if not lines:
        raise invalid("`line_items` must be given.", "line_items", "parameter_missing")
    customer = cast("str | None", params.get("customer"))
    if customer is not None and till.state.customers.get(customer) is None:
        raise missing("customer", customer, "customer")
    methods = tuple(cast(list[str], params.get("allowed_payment_method_types") or ["card"]))
    intent_data = cast(Params, params.get("payment_intent_data") or {})
    options = cast(dict[str, Params], params.get("payment_method_options") or {})
    _check_methods(methods, intent_data, options)
    is_taxed = cast(Params, params.get("automatic_tax") or {}).get("enabled") is True
    tax_cents = sum(_tax_cents(line) for line in lines) if is_taxed else 0
    added_cents = sum(_tax_cents(line) for line in lines if line.tax_behavior == "exclusive") if is_taxed else 0
    total_cents = sum(line.unit_cents * line.quantity for line in lines) + added_cents
    if total_cents < CENTS_MIN:
        raise invalid("The Checkout Session's total amount must convert to at least 50 cents.", "line_items")
    session_id = till.new_id("cs_test")
    return Session(
        id=session_id,
        created_s=till.now_s(),
        expires_s=_expiry_s(till, params),
        customer=customer,
        lines=lines,
        currency=CURRENCY,
        methods=methods,
        tax_cents=tax_cents,
        total_cents=total_cents,
        is_taxed=is_taxed,
        success_url=_success_url(params, session_id),
        cancel_url=cast("str | None", params.get("cancel_url")),
        reference=cast("str | None", params.get("client_reference_id")),
        metadata=_words(params.get("metadata")),
        intent_metadata=_words(intent_data.get("metadata")),
        setup_future_usage=cast("str | None", intent_data.get("setup_future_usage")),
        card_setup=cast("str | None", options.get("card", {}).get("setup_future_usage")),
        locale=cast("str | None", params.get("locale")),
        url=till.page_url(f"pay/{session_id}"),
    )


def _line(item: Params) -> Line:
    price = cast("Params | None", item.get("price_data"))
    if price is None:
        raise invalid("The simulated Stripe takes inline `price_data` only.", "line_items[0][price_data]")
    if price["currency"] != CURRENCY:
        raise invalid("The simulated Stripe knows US dollars only.", "line_items[0][price_data][currency]")
    product = cast("Params | None", price.get("product_data"))
    unit_cents, quantity = price.get("unit_amount"), item.get("quantity")
    if product is None or not isinstance(unit_cents, int) or not isinstance(quantity, int):
        raise invalid("A line needs `product_data`, `unit_amount` and `quantity`.", "line_items[0]")
    if unit_cents < 0 or quantity < 1:
        raise invalid("Amounts and quantities are not negative.", "line_items[0]")
    return Line(str(product["name"]), unit_cents, quantity, str(price.get("tax_behavior", "exclusive")))


def _tax_cents(line: Line) -> int:
    """The tax on a line, or the tax in it; half up."""
    cents = line.unit_cents * line.quantity
    base = 10_000 + TAX_BASIS_POINTS if line.tax_behavior == "inclusive" else 10_000
    return (2 * cents * TAX_BASIS_POINTS + base) // (2 * base)


def _check_methods(methods: tuple[str, ...], intent_data: Params, options: Mapping[str, Params]) -> None:
    for place, method in enumerate(methods):
        if method not in METHODS:
            raise invalid(
                f"The payment method type provided: {method} is invalid.", f"allowed_payment_method_types[{place}]"
            )
        if method in SINGLE_USE and (
            "setup_future_usage" in intent_data or "setup_future_usage" in options.get(method, {})
        ):
            raise invalid(f"`setup_future_usage` cannot be used with {method}.", "setup_future_usage")
    if "wechat_pay" in methods and options.get("wechat_pay", {}).get("client") != "web":
        raise invalid("`client` must be given for wechat_pay.", "payment_method_options[wechat_pay][client]")


def _expiry_s(till: Till, params: Params) -> int:
    now_s = till.now_s()
    expires_s = params.get("expires_at")
    if expires_s is None:
        return now_s + EXPIRY_S_MAX
    assert isinstance(expires_s, int)
    if not now_s + EXPIRY_S_MIN <= expires_s <= now_s + EXPIRY_S_MAX:
        raise invalid("The `expires_at` timestamp must be between 30 minutes and 24 hours from now.", "expires_at")
    return expires_s


def _success_url(params: Params, session_id: str) -> str:
    url = params.get("success_url")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise invalid("Not a valid URL", "success_url", "url_invalid")
    return url.replace("{CHECKOUT_SESSION_ID}", session_id)


def _words(value: object) -> dict[str, str]:
    found = value or {}
    assert isinstance(found, dict)
    return {str(name): str(word) for name, word in found.items()}
