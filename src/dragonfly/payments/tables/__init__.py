"""Money from outside: top-ups, what Stripe told, refunds, disputes, automatic top-ups, promotional codes.

No column can hold a card number: Stripe never tells it. The label of a saved card is its brand and last four digits.
"""

from dragonfly.payments.tables.paying import auto_recharges, billing_details, payment_customers, topups
from dragonfly.payments.tables.promo import promo_codes, promo_redemptions
from dragonfly.payments.tables.returned import fraud_warnings, payment_disputes, payment_freezes, payment_refunds
from dragonfly.payments.tables.told import external_events, payment_refusals

__all__ = [
    "auto_recharges",
    "billing_details",
    "external_events",
    "fraud_warnings",
    "payment_customers",
    "payment_disputes",
    "payment_freezes",
    "payment_refunds",
    "payment_refusals",
    "promo_codes",
    "promo_redemptions",
    "topups",
]
