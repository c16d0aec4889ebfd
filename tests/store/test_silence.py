"""A PostgreSQL that accepts everything and answers nothing is away, not a place where threads wait for ever."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select, text

from dragonfly.infra.changes import change_counter, current_revision, record_change
from dragonfly.infra.database import DatabaseAway, allow_long_statements, hold_for_writing, open_engine, read, write
from dragonfly.infra.postgresql import BoundedConnection
from tests.fakes.stalling import StallingLine, stalling_line

SILENCE_S = 0.3
WAIT_S = 30.0


@pytest.fixture
def line(postgresql_url: str) -> Iterator[StallingLine]:
    with stalling_line(postgresql_url) as made:
        yield made


@pytest.fixture
def engine(postgresql_url: str, line: StallingLine) -> Iterator[Engine]:
    made = open_engine(line.url(postgresql_url))
    yield made
    line.resume()
    made.dispose()


def driver_of(engine: Engine) -> BoundedConnection:
    """The driver's connection that the pool gives to the next who asks."""
    with engine.connect() as connection:
        driver: object = connection.connection.dbapi_connection
        assert isinstance(driver, BoundedConnection)
        return driver


def test_a_statement_that_gets_no_answer_ends_and_the_next_one_works(engine: Engine, line: StallingLine) -> None:
    driver = driver_of(engine)
    driver.silence_s_max = SILENCE_S
    with pytest.raises(DatabaseAway), read(engine) as connection:
        driver.silence_s_max = SILENCE_S
        line.stall()
        current_revision(connection)
    assert driver.closed
    line.resume()
    with read(engine) as connection:
        assert current_revision(connection) >= 0


def test_a_commit_that_gets_no_answer_is_uncertain(engine: Engine, line: StallingLine) -> None:
    driver = driver_of(engine)
    with pytest.raises(DatabaseAway) as caught, write(engine) as connection:
        record_change(connection, "key/alice")
        driver.silence_s_max = SILENCE_S
        line.stall()
    assert caught.value.is_uncertain
    assert driver.closed


def test_a_connection_that_nobody_answers_is_given_up(engine: Engine, line: StallingLine) -> None:
    line.stall()
    ended = threading.Event()

    def connect() -> None:
        with pytest.raises(DatabaseAway):
            hold_for_writing(engine)
        ended.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    assert ended.wait(WAIT_S)
    thread.join()


def test_a_server_that_works_long_is_not_taken_for_silent_where_that_is_allowed(engine: Engine) -> None:
    driver = driver_of(engine)
    usual_s = driver.silence_s_max
    with read(engine) as connection:
        allow_long_statements(connection)
        patient_s = driver.silence_s_max
        connection.execute(text("SELECT pg_sleep(0.3)"))
    assert driver.silence_s_max == usual_s < patient_s
    assert not driver.closed


def test_an_answer_that_comes_in_many_pieces_is_not_silence(engine: Engine) -> None:
    driver = driver_of(engine)
    with read(engine) as connection:
        driver.silence_s_max = SILENCE_S
        slowly = "SELECT repeat('a', 65536), pg_sleep(0.1) FROM generate_series(1, 8)"
        assert len(connection.execute(text(slowly)).all()) == 8
        connection.execute(select(change_counter.c.revision))
