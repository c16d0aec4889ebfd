"""Finds every log event that the program declares."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import dragonfly
from dragonfly.infra.logging import Event


def declared_events() -> list[Event]:
    """The events at module level, also those inside tables; each once, in no particular order."""
    found: dict[int, Event] = {}
    for module in all_modules():
        for value in vars(module).values():
            found.update((id(event), event) for event in _events_in(value))
    return list(found.values())


def all_modules() -> Iterator[ModuleType]:
    """Every module of the program, imported; without migrations and the entry point."""
    for module in pkgutil.walk_packages(dragonfly.__path__, "dragonfly."):
        if ".migrations." not in module.name and not module.name.endswith("__main__"):
            yield importlib.import_module(module.name)


def _events_in(value: object) -> Iterator[Event]:
    if isinstance(value, Event):
        yield value
    elif isinstance(value, dict):
        yield from (inner for inner in value.values() if isinstance(inner, Event))
