"""Modules that are imported when something of them is first used.

For adapters of what an installation may never use, and for libraries of many megabytes that only rare requests
need: a process that serves without them neither loads nor keeps them. Everything else is imported at the top.
"""

import importlib


class Lazily:
    """Stands for a module; give type checkers the import itself, under TYPE_CHECKING."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self._name), attribute)
