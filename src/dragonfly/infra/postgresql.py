"""Connections to PostgreSQL that do not wait for ever.

The server's own time-outs help nobody when it, or what stands before it, accepts everything and answers nothing.
"""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

T = TypeVar("T")

SILENCE_S_MAX = 15.0
"""More than the server's time-outs: one that works says at least that a statement took too long."""


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that is given up when the server is silent for `silence_s_max` while something waits for it."""

    silence_s_max = SILENCE_S_MAX

    def wait(  # type: ignore[override]  # versions of the driver differ in what follows the steps
        self, gen: PQGen[T], *args: float, **kwargs: float
    ) -> T:
        """As the driver's; an OperationalError, and the connection closed, after the silence."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, steps: PQGen[T]) -> PQGen[T]:
        # The driver resumes its steps when the socket is ready, and with 0 now and then when it is not.
        last_s = monotonic() + self.silence_s_max
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                now_s = monotonic()
                if ready:
                    last_s = now_s + self.silence_s_max
                elif now_s >= last_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server does not answer")
                wanted = steps.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer


def connect_bounded(dialect: object, record: object, arguments: Sequence[str], options: Mapping[str, Any]) -> object:
    """For SQLAlchemy's event do_connect."""
    return BoundedConnection.connect(*arguments, **options)
