"""Compares JSON with the resource classes of Stripe's SDK, which are generated from its OpenAPI description."""

import types
import typing
from collections.abc import Mapping
from typing import ClassVar, ForwardRef, Literal, Union, get_args, get_origin

import stripe
from stripe.checkout import Session

RESOURCES: Mapping[str, type] = {
    "checkout.session": Session,
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "balance_transaction": stripe.BalanceTransaction,
    "customer": stripe.Customer,
    "payment_method": stripe.PaymentMethod,
    "event": stripe.Event,
    "radar.early_fraud_warning": stripe.radar.EarlyFraudWarning,
    "account": stripe.Account,
}


def differences(shown: Mapping[str, object]) -> list[str]:
    """Where an object of the API differs from its class: unknown or missing fields, wrong types or words."""
    kind = str(shown["object"])
    found = _of_class(shown, RESOURCES[kind], kind)
    if kind == "event":
        data = shown["data"]
        assert isinstance(data, dict)
        found += differences(data["object"])
    return found


def _of_class(shown: Mapping[str, object], resource: type, path: str) -> list[str]:
    hints = {name: hint for name, hint in resource.__annotations__.items() if get_origin(hint) is not ClassVar}
    found = [f"{path}.{name} is unknown" for name in shown if name not in hints]
    for name, hint in hints.items():
        if name in shown:
            found += _of_hint(shown[name], hint, f"{path}.{name}")
        elif type(None) not in get_args(hint):
            found.append(f"{path}.{name} is missing")
    return found


def _of_hint(value: object, hint: object, path: str) -> list[str]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return []
        kinds = [kind for kind in inner if kind is not type(None)]
        closed = [kind for kind in kinds if get_origin(kind) is Literal]
        if closed and isinstance(value, str):
            kinds = closed  # `Union[Literal[…], str]`: the SDK leaves room for words of later versions
        problems = [_of_hint(value, kind, path) for kind in kinds]
        return min(problems, key=len)
    if origin is Literal:
        return [] if value in inner else [f"{path} has another word"]
    if origin in (list, typing.List):  # noqa: UP006
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [problem for each in value for problem in _of_hint(each, inner[0], f"{path}[]")]
    if isinstance(hint, ForwardRef):
        return differences(value) if isinstance(value, dict) else [f"{path} is not expanded"]
    if isinstance(hint, type) and issubclass(hint, stripe.StripeObject):
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        return [] if hint.__name__ == "UntypedStripeObject" else _of_class(value, hint, path)
    if isinstance(hint, type):
        return [] if type(value) is hint else [f"{path} is a {type(value).__name__}"]
    return []
