"""Finds every log event that the program declares."""

import importlib
import pkgutil
from collections.abc import Iterator

import dragonfly
from dragonfly.infra.logging import Event


def declared_events() -> list[Event]:
    """The events at module level, also those inside tables; each once, in no particular order."""
    found: dict[int, Event] = {}
    for module in pkgutil.walk_packages(dragonfly.__path__, "dragonfly."):
        if ".migrations." in module.name or module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            found.update((id(event), event) for event in _events_in(value))
    return list(found.values())


def _events_in(value: object) -> Iterator[Event]:
    if isinstance(value, Event):
        yield value
    elif isinstance(value, dict):
        yield from (inner for inner in value.values() if isinstance(inner, Event))
