"""The search searches for itself: words that the audit plants in every form and place; each must be found."""

import base64
import gzip
import os
import secrets
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path

from dragonfly.privacy.audit.needles import PIECE, needles_for
from dragonfly.privacy.audit.places import WINDOW_BYTES, Search
from dragonfly.privacy.audit.shapes import BASE62

LETTERS = 24
ROWS = 40

Writer = Callable[[str], bytes]


def _base64_at(offset: int) -> Writer:
    return lambda word: base64.b64encode(b"{" * offset + word.encode() + b"}")


def _archive(word: str) -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        inside = tarfile.TarInfo("file")
        inside.size = len(word)
        archive.addfile(inside, BytesIO(word.encode()))
    return packed.getvalue()


def _zip(word: str) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("file.csv", word)
    return packed.getvalue()


def _numbered(word: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in word)


CONTENTS: dict[str, Writer] = {
    "plain": lambda word: word.encode(),
    "upper case": lambda word: word.upper().encode(),
    "reversed": lambda word: word[::-1].encode(),
    "UTF-16": lambda word: word.encode("utf-16"),
    "base64, first offset": _base64_at(0),
    "base64, second offset": _base64_at(1),
    "base64, third offset": _base64_at(2),
    "base64url": lambda word: base64.urlsafe_b64encode(b"??>" + word.encode()),
    "hex": lambda word: word.encode().hex().encode(),
    "percent escapes": lambda word: "".join(f"%{ord(letter):02X}" for letter in word).encode(),
    "JSON escapes": lambda word: f'{{"a":"{_numbered(word)}"}}'.encode(),
    "a piece": lambda word: b"..." + word[PIECE : 2 * PIECE].encode() + b"...",
    "gzip": lambda word: b"before" + gzip.compress(word.encode()),
    "zlib in the middle": lambda word: os.urandom(500) + zlib.compress(word.encode()) + os.urandom(500),
    "base64 in gzip": lambda word: gzip.compress(base64.b64encode(word.encode())),
    "gzip in gzip": lambda word: gzip.compress(gzip.compress(word.encode())),
    "cut gzip": lambda word: gzip.compress(word.encode() + os.urandom(2_000))[:-600],
    "archive": _archive,
    "ZIP": _zip,
    "between two windows": lambda word: bytes(WINDOW_BYTES - LETTERS // 2) + word.encode(),
}


def missed_decoys(folder: Path) -> tuple[int, list[str]]:
    """Plants every decoy below `folder` and looks for it: how many there are, and those that were not found."""
    missed = []
    planted = 0
    for name, place in _decoys():
        planted += 1
        word = "".join(secrets.choice(BASE62) for _ in range(LETTERS))
        below = folder / f"decoy-{planted}"
        below.mkdir(parents=True)
        search = Search(((name, needles_for(word)),))
        with place(below, word):
            search.look_below("decoys", below)
            if not search.hits and Path("/proc/self/fd").is_dir():
                search.look_at_process(os.getpid())
        if not search.hits:
            missed.append(name)
    return planted, missed


Place = Callable[[Path, str], AbstractContextManager[None]]


def _decoys() -> Iterator[tuple[str, Place]]:
    for name, content in CONTENTS.items():
        yield f"a file: {name}", _in_a_file(content)
    yield "the name of a file", _named
    yield "the target of a link", _linked
    yield "a file that was deleted but is open", _deleted
    if hasattr(os, "memfd_create"):
        yield "a file in memory", _in_memory
    yield "a row of a database", _in_a_row
    yield "a deleted row of a database", _in_a_deleted_row
    yield "a database's journal", _in_a_journal


def _in_a_file(content: Writer) -> Place:
    @contextmanager
    def place(folder: Path, word: str) -> Iterator[None]:
        (folder / "file").write_bytes(content(word))
        yield

    return place


@contextmanager
def _named(folder: Path, word: str) -> Iterator[None]:
    (folder / f"a-{word}.txt").touch()
    yield


@contextmanager
def _linked(folder: Path, word: str) -> Iterator[None]:
    (folder / "link").symlink_to(f"/nowhere/{word}")
    yield


@contextmanager
def _deleted(folder: Path, word: str) -> Iterator[None]:
    with (folder / "gone").open("w+") as file:
        file.write(word)
        file.flush()
        (folder / "gone").unlink()
        yield


@contextmanager
def _in_memory(_folder: Path, word: str) -> Iterator[None]:
    descriptor = os.memfd_create("decoy")
    os.write(descriptor, word.encode())
    yield
    os.close(descriptor)


@contextmanager
def _in_a_row(folder: Path, word: str) -> Iterator[None]:
    database = sqlite3.connect(folder / "decoy.db")
    _fill(database, word)
    yield
    database.close()


@contextmanager
def _in_a_deleted_row(folder: Path, word: str) -> Iterator[None]:
    """SQLite's default leaves what was deleted in pages that are free."""
    database = sqlite3.connect(folder / "decoy.db")
    database.execute("PRAGMA secure_delete = OFF")
    _fill(database, word)
    database.execute("DELETE FROM decoys")
    database.commit()
    yield
    database.close()


@contextmanager
def _in_a_journal(folder: Path, word: str) -> Iterator[None]:
    database = sqlite3.connect(folder / "decoy.db")
    database.execute("PRAGMA journal_mode = WAL")
    _fill(database, word)
    yield
    database.close()


def _fill(database: sqlite3.Connection, word: str) -> None:
    database.execute("CREATE TABLE decoys (text TEXT)")
    database.executemany("INSERT INTO decoys VALUES (?)", [(word,)] * ROWS)
    database.commit()
