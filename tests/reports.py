"""Makes reports of audits."""

from dragonfly.privacy.audit.report import Report


def a_report(**changes: object) -> Report:
    """A clean one, but for `changes`."""
    values: dict[str, object] = {
        "version": "1",
        "code_digest": "",
        "at_ns": 0,
        "took_s": 1.0,
        "database": "sqlite",
        "is_reduced": False,
        "cases": 1,
        "shapes": 1,
        "endings": 1,
        "statuses": {"200": 1},
        "places": 1,
        "bytes_seen": 1,
        "areas": {"pages": (1, 1)},
        "hits": (),
        "hits_beyond": 0,
        "decoys": 1,
        "decoys_missed": (),
        "not_seen": (),
        "lockdown": "complete",
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]
