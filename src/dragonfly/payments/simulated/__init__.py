"""A stand-in for Stripe: a stateful server on loopback that the real SDK talks to. It moves no money.

For `dragonfly demo` and the tests. Requests are checked against the SDK's typed parameters, answers have the shapes
of its resources. Test cards decide what happens, as in Stripe's own test mode.
"""

from dragonfly.payments.simulated.cards import CARDS, Card
from dragonfly.payments.simulated.server import SimulatedStripe

__all__ = ["CARDS", "Card", "SimulatedStripe"]
