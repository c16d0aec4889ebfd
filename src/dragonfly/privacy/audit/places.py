"""Where is looked: files with their names and link targets, and what the kernel still holds for a process."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dragonfly.privacy.audit.needles import Needles

WINDOW_BYTES = 8 * 1024 * 1024
HITS_MAX = 100
"""More are counted, not listed."""
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Hit:
    """A canary that was kept."""

    place: str
    form: str


@dataclass(slots=True)
class Search:
    """Looks everywhere for some words and counts what it has seen."""

    needles: tuple[tuple[str, Needles], ...]
    """(name of the canary, its forms)"""
    hits: list[Hit] = field(default_factory=list)
    hits_beyond: int = 0
    bytes_seen: int = 0
    places_seen: int = 0
    unreadable: list[str] = field(default_factory=list)
    hits_max: int = HITS_MAX
    areas: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What was looked at, by the part of a place's name before the colon: (pieces, bytes)."""

    @property
    def found(self) -> set[str]:
        """Names of the canaries that were found."""
        return {hit.form.partition(":")[0] for hit in self.hits}

    def look_at(self, place: str, data: bytes) -> None:
        """One piece of data; `place` says where it was."""
        self.bytes_seen += len(data)
        area = place.partition(":")[0]
        pieces, size = self.areas.get(area, (0, 0))
        self.areas[area] = pieces + 1, size + len(data)
        for name, needles in self.needles:
            form = needles.found_in(data)
            if form and len(self.hits) < self.hits_max:
                self.hits.append(Hit(place, f"{name}: {form}"))
            elif form:
                self.hits_beyond += 1

    def look_into(self, place: str, path: Path) -> None:
        """The content of one file in windows that overlap."""
        self.places_seen += 1
        try:
            descriptor = os.open(path, _READ_FLAGS if not str(path).startswith("/proc/") else os.O_RDONLY)
        except OSError:
            self.unreadable.append(place)
            return
        with os.fdopen(descriptor, "rb") as file:
            overlap = max(needles.length_max for _, needles in self.needles)
            before = b""
            while data := file.read(WINDOW_BYTES):
                self.look_at(place, before + data)
                before = data[-overlap:]

    def look_below(self, name: str, folder: Path) -> None:
        """Every file below `folder`: name, link target, content."""
        for path in sorted(folder.rglob("*")):
            place = f"{name}: {path.relative_to(folder)}"
            self.look_at(f"{place} (name)", os.fsencode(path.name))
            try:
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    self.look_at(f"{place} (link)", os.fsencode(os.readlink(path)))
                elif stat.S_ISREG(mode):
                    self.look_into(place, path)
            except OSError:
                self.unreadable.append(place)

    def look_at_process(self, process_id: int) -> None:
        """What the kernel tells of a running process: its open files, also deleted ones and those in memory, its
        arguments, environment and names of threads. Its sockets and pipes hold nothing that stays."""
        base = Path(f"/proc/{process_id}")
        try:
            descriptors = sorted((base / "fd").iterdir())
        except OSError:
            self.unreadable.append("files that the process holds open")
            return
        for descriptor in descriptors:
            target = _target(descriptor)
            if target.startswith(("/", "memfd:")) and not target.startswith("/dev/"):
                self.look_at("an open file (name)", target.encode())
                self.look_into(
                    f"an open file{' that was deleted' if target.endswith('(deleted)') else ''}", descriptor
                )
        for name in ("cmdline", "environ"):
            self.look_into(f"the process's {name}", base / name)
        for task in sorted((base / "task").iterdir()):
            self.look_into("the name of a thread", task / "comm")


def _target(link: Path) -> str:
    try:
        target = os.readlink(link)
    except OSError:
        return ""
    return target.removeprefix("/") if target.startswith("/memfd:") else target


def new_files(folder: Path, since_s: float) -> Iterator[Path]:
    """Files right in a shared folder such as /tmp that were made or changed after `since_s`."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for path in entries:
        try:
            status = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and max(status.st_mtime, status.st_ctime) >= since_s:
            yield path
