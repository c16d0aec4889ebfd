"""What a process that is to be killed does: it erases an account and stops inside the transaction, half-way."""

from multiprocessing.connection import Connection as Pipe

from sqlalchemy import Connection, event

from dragonfly.infra.database import open_engine
from dragonfly.rights.jobs import carry_out_due
from tests.store.callers import make_rights_tools

DELETIONS = 8
"""After so many tables: some of what goes is gone, some is still there, and no certificate is written."""


def main(url: str, now_ns: int, told: Pipe) -> None:
    """Tells that it is half-way, and waits for the end."""
    engine = open_engine(url)
    seen = 0

    def count(connection: Connection, cursor: object, statement: str, *_: object) -> None:
        nonlocal seen
        seen += statement.startswith("DELETE")
        if seen == DELETIONS:
            told.send(seen)
            told.recv()

    event.listen(engine, "after_cursor_execute", count)
    carry_out_due(engine, make_rights_tools(), now_ns=now_ns)
