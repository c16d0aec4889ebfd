"""The gate in front of every inference route: who may spend what, and what each request cost.

`admit(ask) -> Grant` before dispatch, `settle(grant, settlement)` exactly once after it. The data plane
(gateway/) knows money only through this package.
"""
