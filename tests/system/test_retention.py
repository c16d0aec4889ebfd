"""A live server is moved to day 89, 90 and 91: its usage rows are there, there, and gone from its files too."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from tests.postgres import PostgresServer, postgres_database
from tests.system.program import Program
from tests.system.served import Served, chat, served

DAY_S = 86_400
REQUESTS = 30


def day(number: float) -> str:
    return datetime.fromtimestamp(time.time() + number * DAY_S, UTC).isoformat()


def holding(request_id: str, folder: Path) -> list[str]:
    """Files with the id of a request."""
    pattern = re.compile(request_id.encode())
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and pattern.search(path.read_bytes())]


def server_files(url: str) -> Path:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        (folder,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    return Path(folder)


async def ids_of_requests(one: Served) -> list[str]:
    answers = [await one.ask(chat()) for _ in range(REQUESTS)]
    return [answer.headers["x-request-id"] for answer in answers]


async def test_usage_rows_are_there_on_day_89_there_on_day_90_and_gone_on_day_91(program: Program) -> None:
    async with served(program) as one:
        began_s = time.time()
        ids = await ids_of_requests(one)
        data = one.database.parent
        assert holding(ids[0], data)
        found = []
        for number in (89.0, 90.0 - (time.time() - began_s + 60) / DAY_S, 91.0):
            ended = program.run("retention", "run", "--at", day(number), "--json")
            assert ended.code == 0, ended.errors
            assert json.loads(ended.output)["erased_from_files"] is True
            found.append((await one.get(f"/v1/generation?id={ids[0]}")).status)
        assert found == [200, 200, 404]
        assert [name for request in ids for name in holding(request, data)] == []
        assert one.books_are_right()
        assert (await one.ask(chat())).status == 200
        assert one.books_are_right()


async def test_on_postgresql_the_rows_of_a_day_leave_the_servers_files(
    program: Program, own_postgresql: PostgresServer
) -> None:
    with postgres_database(own_postgresql.url) as url:
        async with served(program, url=url, workers=2) as one:
            ids = await ids_of_requests(one)
            tables = server_files(url) / "base"
            assert holding(ids[0], tables)
            found = []
            for number in (89.0, 89.99, 91.0):
                ended = program.run("retention", "run", "--at", day(number), "--json")
                assert ended.code == 0, ended.errors
                assert json.loads(ended.output)["erased_from_files"] is True
                found.append((await one.get(f"/v1/generation?id={ids[0]}")).status)
            assert found == [200, 200, 404]
            server_files(url)
            assert [name for request in ids for name in holding(request, tables)] == []
            assert one.books_are_right()
            assert (await one.ask(chat())).status == 200
            assert one.books_are_right()


async def test_a_backup_is_restored_with_right_books(program: Program) -> None:
    async with served(program) as one:
        ids = await ids_of_requests(one)
        made = program.run("backup")
        assert made.code == 0, made.errors
        before = await one.credits()
    backup = Path(made.output.strip())
    backup = backup if backup.is_absolute() else program.folder / backup
    assert backup.stat().st_mode & 0o077 == 0
    assert program.run("restore", str(backup)).code == 1, "there is a database"
    one.database.unlink()
    assert program.run("restore", str(backup)).code == 0
    assert one.books_are_right()
    async with one.start():
        assert (await one.credits())["total_usage"] == before["total_usage"]
        assert (await one.get(f"/v1/generation?id={ids[0]}")).status == 200


def test_a_damaged_backup_is_refused_and_nothing_is_left_behind(program: Program) -> None:
    (program.folder / "broken.db").write_bytes(b"SQLite format 3\0" + bytes(5_000))
    ended = program.run("restore", "broken.db")
    assert ended.code == 1
    assert "damaged" in ended.errors
    assert not [path for path in (program.folder / "data").rglob("*") if path.is_file()]


def test_backups_expire(program: Program) -> None:
    assert program.run("migrate").code == 0
    made = program.folder / program.run("backup").output.strip()
    program.run("retention", "run", "--at", day(6.9))
    assert made.exists()
    program.run("retention", "run", "--at", day(7.1))
    assert not made.exists()
