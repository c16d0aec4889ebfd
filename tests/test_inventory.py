"""Whatever is kept, said or sent has an entry in the inventory, and docs/data-map.md shows it."""

import ast
import re
from pathlib import Path

import pytest
from sqlalchemy import Column, MetaData, Table, Text

from dragonfly.mail.kinds import MailKind
from dragonfly.privacy.datamap import data_map
from dragonfly.privacy.inventory import (
    MODULES_OF_TABLES,
    Category,
    InventoryIncomplete,
    TableEntry,
    all_tables,
    describe_table,
    described_tables,
)
from dragonfly.privacy.outside import LOG_FIELDS, MAILS, SERVICES, mail_entries, provider_hosts
from tests.events import declared_events

ROOT = Path(__file__).resolve().parents[1]
CONTENT_WORDS = {
    "prompt",
    "prompts",
    "messages",
    "content",
    "completion",
    "body",
    "answer",
    "input",
    "output",
    "text",
}
NOT_HOSTS = {"example.com", "api.example.com", "dragonfly-api.com", "localhost", "127.0.0.1", "example.invalid"}
"""Of examples, and our own."""


def a_table(*columns: Column[str], **info: object) -> Table:
    return Table("things", MetaData(), *columns, info=info)


WHOLE = {"purpose": "Things", "category": "usage", "lifetime": "90 days"}


def test_every_table_and_column_has_an_entry() -> None:
    assert [described.entry.name for described in described_tables()] == sorted(table.name for table in all_tables())
    assert all(entry.purpose for described in described_tables() for entry in described.columns)


def test_tables_are_declared_only_where_the_inventory_looks_for_them() -> None:
    declaring = [path for path in (ROOT / "src").rglob("*.py") if re.search(r"= Table\(\n", path.read_text())]
    assert declaring
    # A module of tables, or a folder of its name whose `__init__.py` imports them all.
    inside = [path.relative_to(ROOT / "src/dragonfly").with_suffix("").parts for path in declaring]
    assert all(2 <= len(parts) <= 3 and parts[1] in MODULES_OF_TABLES for parts in inside)


def test_the_data_map_is_what_the_inventory_says() -> None:
    shown = (ROOT / "docs/data-map.md").read_text()
    assert shown == data_map(), "run: dragonfly privacy map > docs/data-map.md"


@pytest.mark.parametrize("missing", ["purpose", "category", "lifetime"])
def test_a_table_without_an_entry_is_found(missing: str) -> None:
    info = {name: value for name, value in WHOLE.items() if name != missing}
    with pytest.raises(InventoryIncomplete, match=missing):
        describe_table(a_table(**info))


def test_a_column_without_a_purpose_is_found() -> None:
    with pytest.raises(InventoryIncomplete, match=r"things\.prompt"):
        describe_table(a_table(Column("prompt", Text), **WHOLE))


def test_a_purpose_for_a_column_that_is_not_there_is_found() -> None:
    with pytest.raises(InventoryIncomplete, match="not there"):
        describe_table(a_table(columns={"gone": "Nothing"}, **WHOLE))


def test_nothing_can_be_entered_as_content() -> None:
    with pytest.raises(InventoryIncomplete, match="content is never kept"):
        describe_table(a_table(Column("a", Text, info={"purpose": "What was said", "category": "content"}), **WHOLE))


def test_a_column_says_itself_where_it_differs_from_its_table() -> None:
    own = {"purpose": "Where from", "lifetime": "7 days", "basis": "legitimate interest"}
    (column,) = describe_table(a_table(Column("address", Text, info=own), **WHOLE)).columns
    assert (column.lifetime, column.basis, column.category) == ("7 days", "legitimate interest", Category.USAGE)


def test_usage_rows_are_entered_with_the_90_days_of_the_policy() -> None:
    found = {described.entry.name: described.lifetime_ns for described in described_tables()}
    assert found["usage"] == found["usage_days"] == 90 * 86_400 * 10**9


@pytest.mark.parametrize("described", described_tables(), ids=lambda described: str(described.entry.name))
def test_no_column_is_named_as_content_would_be(described: TableEntry) -> None:
    assert not {entry.name.split(".")[1] for entry in described.columns} & CONTENT_WORDS


def test_every_field_of_a_log_line_has_an_entry_and_no_entry_is_left_over() -> None:
    assert {field for event in declared_events() for field in event.fields} == set(LOG_FIELDS)


def test_every_kind_of_mail_has_an_entry() -> None:
    assert set(MAILS) == set(MailKind)
    assert [entry.name for entry in mail_entries()] == [kind.value for kind in MailKind]


def hosts_in(path: Path) -> set[str]:
    """Hosts of addresses that stand as text in a module, its docstrings apart."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]
    return {host for text in texts for host in re.findall(r"https?://([a-z0-9.-]+\.[a-z]{2,}|localhost)", text)}


def test_every_host_in_the_code_has_an_entry() -> None:
    known = {host.host for host in (*SERVICES, *provider_hosts())} | NOT_HOSTS
    for path in sorted((ROOT / "src").rglob("*.py")):
        policies = {host.policy_url for host in SERVICES}
        assert not {host for host in hosts_in(path) - known if not any(host in url for url in policies)}, path.name


def test_every_provider_has_a_policy_to_link_to() -> None:
    assert all(host.policy_url.startswith("https://") for host in provider_hosts())
