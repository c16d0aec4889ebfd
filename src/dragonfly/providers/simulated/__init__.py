"""The simulated provider of `dragonfly demo`: a real HTTP server on loopback, and nothing behind it.

It speaks DeepSeek's wire format. Answers are made from a fixed text of our own, chosen by the prompt's hash: the
same prompt gives the same answer. Every answer begins by saying that it is simulated.
"""

from dragonfly.providers.simulated.faults import Fault
from dragonfly.providers.simulated.server import MODEL, SimulatedUpstream

__all__ = ["MODEL", "Fault", "SimulatedUpstream"]
