"""The program with planted leaks: as `python -m dragonfly`, but what a request says is kept in many ways.

Each body that arrives takes the next leak of the list. The leaks are what programs really do: log, cache, dump.
"""

import base64
import ctypes
import gzip
import json
import logging
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dragonfly.cli import main
from dragonfly.gateway.server import FastLane

KEPT: list[Any] = []
PR_SET_NAME = 15
DATABASE = Path("data/dragonfly.db")


def say(text: str) -> None:
    os.write(2, text.encode() + b"\n")


def log_line(body: bytes) -> None:
    say(json.dumps({"event": "request", "body": body.decode()}))


def library_logger(body: bytes) -> None:
    logger = logging.getLogger("planted")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler())
    logger.error("refused: %r", body)


def exception(body: bytes) -> None:
    try:
        json.loads(b"{" + body)
    except ValueError as failure:
        say(f"{failure.args} {failure.__dict__.get('doc', '')} {getattr(failure, 'doc', '')}")


def key_error(body: bytes) -> None:
    try:
        dict[str, str]()[canary(body)]
    except KeyError:
        say(traceback.format_exc())


def standard_output(body: bytes) -> None:
    os.write(1, body + b"\n")


def base64_in_the_log(body: bytes) -> None:
    say(base64.b64encode(b"x" + body).decode())


def hex_in_the_log(body: bytes) -> None:
    say(body.hex())


def url_in_the_log(body: bytes) -> None:
    say("GET /?q=" + "".join(f"%{byte:02x}" for byte in body))


def cut_in_the_log(body: bytes) -> None:
    say(canary(body)[4:14])


def write_row(statement: str, *values: str) -> None:
    with sqlite3.connect(DATABASE) as database:
        database.execute(statement, values)
    database.close()


def column_of_usage(body: bytes) -> None:
    write_row("UPDATE usage SET finish_reason = ?", canary(body))


def name_of_an_account(body: bytes) -> None:
    write_row("UPDATE accounts SET name = ?", canary(body))


def name_of_a_key(body: bytes) -> None:
    write_row("UPDATE keys SET name = ?", base64.b64encode(body).decode())


def mail(body: bytes) -> None:
    write_row("CREATE TABLE IF NOT EXISTS planted_mail (body TEXT)")
    write_row("INSERT INTO planted_mail VALUES (?)", body.decode())


def compressed_column(body: bytes) -> None:
    write_row("CREATE TABLE IF NOT EXISTS planted_cache (answer BLOB)")
    with sqlite3.connect(DATABASE) as database:
        database.execute("INSERT INTO planted_cache VALUES (?)", (zlib.compress(body),))
    database.close()


def deleted_row(body: bytes) -> None:
    with sqlite3.connect("data/other.db") as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE IF NOT EXISTS planted (body TEXT)")
        database.execute("INSERT INTO planted VALUES (?)", (body.decode(),))
        database.commit()
        database.execute("DELETE FROM planted")
    database.close()


def metric_label(body: bytes) -> None:
    Path("data/metrics.prom").write_text(f'requests_total{{model="{canary(body)}"}} 1\n')


def to_be_removed(name: str) -> None:
    with Path("data/remove").open("a") as file:
        file.write(name + "\n")


def temporary_file(body: bytes) -> None:
    descriptor, _ = tempfile.mkstemp()
    os.write(descriptor, body)
    os.close(descriptor)


def shared_temporary_file(body: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir="/tmp")
    os.write(descriptor, body)
    os.close(descriptor)
    to_be_removed(name)


def shared_memory(body: bytes) -> None:
    path = Path(f"/dev/shm/planted-{os.getpid()}")
    path.write_bytes(body)
    to_be_removed(str(path))


def deleted_but_open(body: bytes) -> None:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(body)
    file.flush()
    KEPT.append(file)


def memory_file(body: bytes) -> None:
    descriptor = os.memfd_create("planted")
    os.write(descriptor, body)


def gzip_file(body: bytes) -> None:
    Path("data/log.1.gz").write_bytes(gzip.compress(body))


def utf16_file(body: bytes) -> None:
    Path("data/notes.txt").write_text(body.decode(), "utf-16")


def name_of_a_file(body: bytes) -> None:
    Path(f"data/{canary(body)}.json").touch()


def target_of_a_link(body: bytes) -> None:
    Path("data/latest").symlink_to(canary(body))


def file_at_home(body: bytes) -> None:
    (Path.home() / ".history").write_bytes(body)


def name_of_a_thread(body: bytes) -> None:
    def live() -> None:
        ctypes.CDLL(None).prctl(PR_SET_NAME, canary(body)[:15].encode(), 0, 0, 0)
        threading.Event().wait()

    threading.Thread(target=live, daemon=True).start()


def backup(body: bytes) -> None:
    with sqlite3.connect("data/backup.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS planted (body TEXT)")
        database.execute("INSERT INTO planted VALUES (?)", (body.decode(),))
    database.close()


def core(body: bytes) -> None:
    """Also the real thing: the process ends with its memory in a file."""
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.abort()


LEAKS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        log_line,
        library_logger,
        exception,
        key_error,
        standard_output,
        base64_in_the_log,
        hex_in_the_log,
        url_in_the_log,
        cut_in_the_log,
        column_of_usage,
        name_of_an_account,
        name_of_a_key,
        mail,
        compressed_column,
        deleted_row,
        metric_label,
        temporary_file,
        shared_temporary_file,
        shared_memory,
        deleted_but_open,
        memory_file,
        gzip_file,
        utf16_file,
        name_of_a_file,
        target_of_a_link,
        file_at_home,
        name_of_a_thread,
        backup,
        core,
    )
}


def canary(body: bytes) -> str:
    """The last word of a body of the audit's."""
    return str(json.loads(body)["user"])


def plant(leaks: Iterator[Callable[[bytes], None]]) -> None:
    """Every body that arrives whole goes to the next leak, while there are any."""
    whole = FastLane.on_message_complete

    def on_message_complete(self: FastLane) -> None:
        body = b"".join(self.body_parts)
        leak = next(leaks, None)
        whole(self)
        if leak is not None:
            leak(body)

    FastLane.on_message_complete = on_message_complete  # type: ignore[method-assign]


if __name__ == "__main__":
    if "serve" in sys.argv:
        plant(iter([core] if Path("core-please").exists() else list(LEAKS.values())))
    main()
