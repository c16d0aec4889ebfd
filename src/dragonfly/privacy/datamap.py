"""docs/data-map.md: the inventory as a page."""

from collections.abc import Sequence

from dragonfly.privacy.inventory import Entry, TableEntry, described_tables
from dragonfly.privacy.outside import SERVICES, Host, log_entries, mail_entries, metric_entries, provider_hosts

HEAD = """\
# Data map

Everything that Dragonfly keeps, says in its log, or sends to others, with purpose, category, lifetime and legal
basis. Made by `dragonfly privacy map` from the code: tables say what their columns are for, and a column, a log field
or a host without an entry fails the tests. There is no category for content: prompts and answers have no column.

**Lifetimes.** "N days": deleted by retention, counted from the named column. "account": until the account is erased.
"books": with the ledger, as bookkeeping demands; erasure leaves amounts under a random id that leads to nobody.
"installation": not about people.

**Legal bases** (GDPR, Article 6(1)): contract (b), legal obligation (c), legitimate interest (f), consent (a).
"""


def data_map() -> str:
    """The whole page, Markdown."""
    parts = [HEAD, "## Database\n"]
    parts += [_table(described) for described in described_tables()]
    parts += ["## Log lines\n", LOGS, _rows(log_entries())]
    parts += ["## Metrics\n", METRICS, _rows(metric_entries(), "Label")]
    parts += ["## Mails\n", MAILS, _rows(mail_entries(), "Mail")]
    parts += ["## Hosts\n", HOSTS, _hosts((*SERVICES, *provider_hosts()))]
    return "\n".join(parts).rstrip("\n") + "\n"


LOGS = """\
JSON lines on standard error; each is a declared event whose fields are numbers, truth values or names
([logs](operate/logs.md)). They hold no address, no header, no text of a request, an answer or an exception.
"""
METRICS = """\
Numbers on `/metrics`, when the operator sets a token ([metrics](operate/metrics.md)). These are all their labels.
"""
MAILS = """\
Every mail is one of these kinds, and holds only the values that its kind names.
"""
HOSTS = """\
Where data goes. A model provider is called only when the operator has set its key, and providers that the operator
adds come on top; `/privacy` names the ones that are switched on.
"""


def _table(described: TableEntry) -> str:
    entry = described.entry
    since = f", counted from `{described.since}`" if described.since else ""
    lines = [
        f"### `{entry.name}`\n",
        f"{entry.purpose}. Category: {entry.category.value}. Lifetime: {entry.lifetime}{since}. "
        f"Basis: {entry.basis}.\n",
        "| Column | Purpose | Differs |",
        "|---|---|---|",
    ]
    lines += [f"| `{one.name.split('.')[1]}` | {one.purpose} | {_differs(one, entry)} |" for one in described.columns]
    return "\n".join(lines) + "\n"


def _differs(column: Entry, table: Entry) -> str:
    """Where a column is not as its table."""
    own = []
    if column.category is not table.category:
        own.append(f"category {column.category.value}")
    if column.lifetime != table.lifetime:
        own.append(f"lifetime: {column.lifetime}")
    if column.basis != table.basis:
        own.append(f"basis: {column.basis}")
    return ", ".join(own)


def _rows(entries: Sequence[Entry], what: str = "Field") -> str:
    lines = [f"| {what} | Purpose | Category | Lifetime | Basis |", "|---|---|---|---|---|"]
    lines += [
        f"| `{one.name}` | {one.purpose} | {one.category.value} | {one.lifetime} | {one.basis} |" for one in entries
    ]
    return "\n".join(lines) + "\n"


def _hosts(hosts: Sequence[Host]) -> str:
    lines = ["| Host | Who | Purpose | Receives | Their policy |", "|---|---|---|---|---|"]
    for one in hosts:
        policy = f"[policy]({one.policy_url})" if one.policy_url else ""
        lines.append(f"| `{one.host}` | {one.who} | {one.purpose} | {one.receives} | {policy} |")
    return "\n".join(lines) + "\n"
