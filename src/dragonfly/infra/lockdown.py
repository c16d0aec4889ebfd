"""Takes from this process what it does not need, before the first request: nothing that it holds can then be written
elsewhere, dumped, or handed to another program.

- no core dumps: RLIMIT_CORE 0, an empty dump filter, and PR_SET_DUMPABLE 0, which also keeps other processes of the
  same user from reading its memory;
- no new privileges;
- Landlock: files can be made and written below named folders only, programs cannot be started, TCP connections can
  be opened to named ports only and no further port bound, processes outside cannot be signalled.

What stays possible: descriptors that were opened before, UDP (name servers), UNIX sockets that have a path. The walls
hold for the calling thread and for what it starts, so this runs while there is one thread. Sources: prctl(2),
core(5), landlock(7).
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dragonfly.core.errors import DragonflyError
from dragonfly.infra.logging import Event, EventLog, Level

LOCKED_DOWN = Event("locked_down", Level.INFO, {"landlock_abi": int})
LOCKDOWN_INCOMPLETE = Event("lockdown_incomplete", Level.WARNING, {"missing": tuple})

_PR_SET_DUMPABLE, _PR_GET_DUMPABLE = 4, 3
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_MACHINES = ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x")
"""Where the three system calls have the numbers below."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_RULE_PATH, _RULE_PORT = 1, 2
_EXECUTE, _WRITE_FILE = 1 << 0, 1 << 1
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO = 1 << 7, 1 << 8, 1 << 9, 1 << 10
_MAKE_CHAR, _MAKE_BLOCK, _MAKE_SYM = 1 << 6, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1
_ABI_REFER, _ABI_TRUNCATE, _ABI_TCP, _ABI_IOCTL, _ABI_SCOPES = 2, 3, 4, 5, 6
_WRITES = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO
_NEVER = _EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SYM
_NULL = Path("/dev/null")


class LockdownUnavailable(DragonflyError):
    """privacy.lockdown demands what this machine cannot give."""

    code = "lockdown_unavailable"

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(
            f'privacy.lockdown is "required", but this machine cannot provide: {", ".join(missing)}.'
            ' Use Linux 5.13 or newer with Landlock enabled, or set "available" to serve without.'
        )
        self.missing = missing


class Wants(NamedTuple):
    """What the process may still do."""

    folders: Sequence[Path]
    """Files may be made and written below these."""
    ports: Sequence[int]
    """TCP connections may go to these."""


@dataclass(frozen=True, slots=True)
class Lockdown:
    """What was reached."""

    missing: tuple[str, ...]
    """Walls that could not be put up, by name; empty: all stand."""
    landlock_abi: int
    """0: there is no Landlock."""
    is_wanted: bool = True
    """False: switched off by the settings."""

    @property
    def is_complete(self) -> bool:
        return self.is_wanted and not self.missing


OFF = Lockdown(missing=("everything",), landlock_abi=0, is_wanted=False)


def lock_down(wants: Wants, *, demanded: bool, log: EventLog) -> Lockdown:
    """Puts up every wall that this machine has; call with one thread. LockdownUnavailable when `demanded` and one is
    missing; else the log tells which."""
    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    missing = []
    if not _no_cores(library):
        missing.append("core_dumps")
    has_no_way_up = library is not None and library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if not has_no_way_up:
        missing.append("no_new_privileges")
    abi = _landlock(library, wants) if library is not None and has_no_way_up else 0
    if abi < 1:
        missing.append("landlock")
    elif abi < _ABI_TCP:
        missing.append("landlock_tcp")
    if _threads() != 1:
        missing.append("one_thread")
    reached = Lockdown(tuple(missing), abi)
    if demanded and missing:
        raise LockdownUnavailable(reached.missing)
    if missing:
        log.write(LOCKDOWN_INCOMPLETE, missing=reached.missing)
    else:
        log.write(LOCKED_DOWN, landlock_abi=abi)
    return reached


def _no_cores(library: ctypes.CDLL | None) -> bool:
    """The limit stops cores in files; being not dumpable stops those that go to a program, which know no limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if library is None:
        return False
    with contextlib.suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0")
    library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return int(library.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)) == 0


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def _landlock(library: ctypes.CDLL, wants: Wants) -> int:
    """Applies the rules; the version of Landlock, 0 when there is none."""
    if platform.machine() not in _LANDLOCK_MACHINES:
        return 0
    abi = int(library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))
    if abi < 1:
        return 0
    writes = _WRITES | (_REFER if abi >= _ABI_REFER else 0) | (_TRUNCATE if abi >= _ABI_TRUNCATE else 0)
    handled = _Ruleset(
        writes | _NEVER | (_IOCTL_DEV if abi >= _ABI_IOCTL else 0),
        _BIND_TCP | _CONNECT_TCP if abi >= _ABI_TCP else 0,
        _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= _ABI_SCOPES else 0,
    )
    size = 24 if abi >= _ABI_SCOPES else 16 if abi >= _ABI_TCP else 8
    rules = _checked(library.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(size), 0))
    try:
        for folder in wants.folders:
            _allow_path(library, rules, folder, writes)
        _allow_path(library, rules, _NULL, _WRITE_FILE | (_TRUNCATE if abi >= _ABI_TRUNCATE else 0))
        for port in wants.ports if abi >= _ABI_TCP else ():
            rule = _PortRule(_CONNECT_TCP, port)
            _checked(library.syscall(_ADD_RULE, rules, _RULE_PORT, ctypes.byref(rule), 0))
        _checked(library.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)
    return abi


def _allow_path(library: ctypes.CDLL, rules: int, path: Path, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathRule(access, descriptor)
        _checked(library.syscall(_ADD_RULE, rules, _RULE_PATH, ctypes.byref(rule), 0))
    finally:
        os.close(descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
    return result


def _threads() -> int:
    """Threads of this process; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0
