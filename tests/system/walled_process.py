"""A process that locks itself down and then does what its first argument says; one line tells how it went."""

import ctypes
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from dragonfly.core.clock import SystemClock
from dragonfly.infra.lockdown import LockdownUnavailable, Wants, lock_down
from dragonfly.infra.logging import EventLog

NOBODY = 65_534
PR_SET_DUMPABLE = 4


def write_inside(folder: Path, _port: int) -> None:
    (folder / "inside").mkdir()
    (folder / "inside/file").write_text("a")
    (folder / "inside/file").rename(folder / "moved")
    (folder / "moved").unlink()


def write_outside(folder: Path, _port: int) -> None:
    (folder.parent / "outside").write_text("a")


def overwrite_outside(folder: Path, _port: int) -> None:
    with (folder.parent / "there").open("ab") as file:
        file.write(b"a")


def shorten_outside(folder: Path, _port: int) -> None:
    os.truncate(folder.parent / "there", 0)


def link_outside(folder: Path, _port: int) -> None:
    (folder / "file").write_text("a")
    (folder / "file").rename(folder.parent / "moved")


def run_a_program(_folder: Path, _port: int) -> None:
    os.execv(sys.executable, [sys.executable, "-c", "print('ran')"])


def run_a_program_in_a_child(_folder: Path, _port: int) -> None:
    if os.fork() == 0:
        try:
            os.execv("/bin/true", ["true"])
        except OSError:
            os._exit(1)
    if os.wait()[1] != 0:
        raise PermissionError


def connect(_folder: Path, port: int) -> None:
    socket.create_connection(("127.0.0.1", port)).close()


def connect_elsewhere(_folder: Path, port: int) -> None:
    socket.create_connection(("127.0.0.1", port + 1 if port < 65_535 else port - 1)).close()


def listen(_folder: Path, _port: int) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))


def signal_the_parent(_folder: Path, _port: int) -> None:
    os.kill(os.getppid(), signal.SIGCONT)


def write_in_a_later_thread(folder: Path, port: int) -> None:
    failed: list[OSError] = []

    def attempt() -> None:
        try:
            write_outside(folder, port)
        except OSError as failure:
            failed.append(failure)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def become_nobody() -> None:
    """As somebody else, and readable by others of that user, as a program is that somebody else started."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def wait(_folder: Path, _port: int) -> None:
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    sys.stdin.read()


def main() -> None:
    what, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if what == "lock_down_with_two_threads":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    if what.startswith("wait"):
        become_nobody()
    if what == "wait_unlocked":
        wait(folder, port)
        return
    try:
        lock_down(Wants((folder,), (port,)), demanded=True, log=EventLog(sys.stderr.buffer, SystemClock()))
    except LockdownUnavailable as refusal:
        sys.stdout.write(f"missing {' '.join(refusal.missing)}\n")
        return
    try:
        globals()[what](folder, port)
    except PermissionError:
        sys.stdout.write("refused\n")
    else:
        sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
