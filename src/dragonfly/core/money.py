"""Money as integers of nano-USD (1 USD = 1,000,000,000 nano-USD), never floats.

64 bits hold about 9.2 billion USD. One rounding per request, half up.
"""

from decimal import Decimal
from typing import NewType

NanoUsd = NewType("NanoUsd", int)

NUSD_PER_USD = 1_000_000_000
TOKENS_PER_PRICE_UNIT = 1_000_000
NUSD_MAX = 2**63 - 1
ZERO = NanoUsd(0)


def from_usd(amount: Decimal | str | int) -> NanoUsd:
    """Exact nano-USD of a decimal amount of dollars; ValueError when it has more than nine decimals."""
    scaled = Decimal(amount) * NUSD_PER_USD
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise ValueError("an amount of money needs a finite decimal with at most nine places")
    value = int(scaled)
    if abs(value) > NUSD_MAX:
        raise ValueError("an amount of money must fit into 64 bits of nano-USD")
    return NanoUsd(value)


def usd_text(amount_nusd: int) -> str:
    """Decimal dollars without exponent or trailing zeros: 1_250_000 -> "0.00125"; zero -> "0"."""
    sign = "-" if amount_nusd < 0 else ""
    whole, rest = divmod(abs(amount_nusd), NUSD_PER_USD)
    if not rest:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{rest:09d}".rstrip("0")


def divide_half_up(numerator: int, denominator: int) -> int:
    """Integer division of non-negative numbers, halves rounded up."""
    assert numerator >= 0, "a charge is never negative"
    assert denominator > 0
    return (2 * numerator + denominator) // (2 * denominator)
