"""Records that hold content: what a person said, what a model answered, what a provider wrote.

Such a record shows its kind and nothing else, whoever formats it: a log, an exception, a failed assertion, a
debugger's list of locals. It cannot be pickled, and so not be handed to another process, either.
"""

from typing import NoReturn, SupportsIndex, TypeVar

Record = TypeVar("Record", bound=type)


def holds_content(record: Record) -> Record:
    """Decorates a class whose fields hold content."""
    record.__repr__ = _unshown  # type: ignore[assignment]
    record.__str__ = _unshown  # type: ignore[assignment]
    record.__reduce_ex__ = _unpicklable  # type: ignore[assignment]
    return record


def _unshown(self: object) -> str:
    return f"<{type(self).__name__}: content is not shown>"


def _unpicklable(self: object, protocol: SupportsIndex, /) -> NoReturn:
    raise TypeError(f"{type(self).__name__} holds content, which cannot be pickled")
