"""Databases for tests: every test that asks for `empty_url`, `url` or `engine` runs on SQLite and on PostgreSQL.

PostgreSQL is the server that TEST_POSTGRESQL_URL names (its user may create databases, and as a superuser is faster),
else one that is started for each process of the run. A test gets a database of its own, or one that is emptied
before it.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dragonfly.infra.database import open_engine
from dragonfly.migrations import upgrade
from tests.factories import MovableClock, make_database
from tests.postgres import WHEEL, PostgresServer, find_wheel, postgres_database, postgres_server
from tests.reused import ReusedDatabase

SERVER_VARIABLE = "TEST_POSTGRESQL_URL"


@pytest.fixture(scope="session")
def postgresql_server_url() -> Iterator[str]:
    """A server that all tests share; skips where there is none."""
    if named := os.environ.get(SERVER_VARIABLE):
        yield named
        return
    with postgres_server(_wheel()) as server:
        yield server.url


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server_url: str) -> Iterator[str]:
    """A migrated database that is only copied."""
    with postgres_database(postgresql_server_url) as url:
        engine = open_engine(url)
        upgrade(engine)
        engine.dispose()
        yield url


@pytest.fixture(scope="session")
def reused_postgresql(postgresql_server_url: str, postgresql_template: str) -> Iterator[ReusedDatabase]:
    """A migrated database that tests have one after the other."""
    with closing(ReusedDatabase(postgresql_server_url, postgresql_template)) as reused:
        yield reused


@pytest.fixture
def postgresql_url(reused_postgresql: ReusedDatabase) -> str:
    """The URL of a migrated PostgreSQL database without rows."""
    return reused_postgresql.take()


@pytest.fixture
def own_postgresql() -> Iterator[PostgresServer]:
    """A server for one test, which may stop it."""
    with postgres_server(_wheel()) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/dragonfly.db"
        return
    with postgres_database(request.getfixturevalue("postgresql_server_url")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated database."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    make_database(tmp_path).dispose()
    return f"sqlite:///{tmp_path}/dragonfly.db"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine on a migrated database."""
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


def _wheel() -> Path:
    wheel = find_wheel()
    if wheel is None:
        pytest.skip(f"no PostgreSQL: {WHEEL} is not installed, and {SERVER_VARIABLE} names no server")
    return wheel
