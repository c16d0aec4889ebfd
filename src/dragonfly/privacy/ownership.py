"""Which rows belong to an account, found from the inventory: by their account_id, else by what they refer to."""

from sqlalchemy import ColumnElement, Table, select

from dragonfly.core.ids import AccountId
from dragonfly.privacy.inventory import TableEntry, all_tables, personal_tables

OWNER = "account_id"
HOME = "accounts"
VIA = {"entries": "book_id"}
"""Of several references, the one that leads to the owner."""
OWNED_BY_NOBODY = {
    "attempt_budgets": "keyed digests that count attempts for an hour; they lead to no account",
    "audit_log": "what operators did, by ids; it proves who acted and is theirs, not the customer's",
    "changes": "ids alone, and only the last 10,000",
    "mail_dead_addresses": "a keyed digest of an address, so that mail to it stays stopped; it leads to no account",
    "mail_notices": "ids of the mail provider's notices",
    "shown_proofs": "hashes of random numbers, kept for an hour",
    "trial_persons": "a keyed digest of an address, so that trial credit is given once; it leads to no account",
}
"""Tables without a way to an account, and why; a new one fails the tests until it is either."""

EMPTIED: dict[str, dict[str, str | None]] = {
    "topups": {
        "client_key": None,
        "session_url": None,
        "receipt_url": None,
        "country": None,
        "method": None,
        "address_digest": None,
    },
}
"""Of tables whose rows stay after an erasure, columns beside amounts and ids, and what stands there then."""


def owned_tables() -> tuple[tuple[Table, TableEntry], ...]:
    """Tables whose rows can be found for an account; those that others refer to come first."""
    return tuple((table, entry) for table, entry in personal_tables() if table.name not in OWNED_BY_NOBODY)


def rows_of(table: Table, account_id: AccountId) -> ColumnElement[bool]:
    """The condition under which a row of `table` is this account's; LookupError where there is no way to tell."""
    if table.name == HOME:
        return table.c.id == account_id
    if OWNER in table.c:
        return table.c[OWNER] == account_id
    column_name = VIA.get(table.name)
    for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
        target = key.column.table
        assert isinstance(target, Table), "foreign keys lead to tables"
        if (column_name in (None, key.parent.name)) and target.name in {owned.name for owned, _ in owned_tables()}:
            owned = select(key.column).where(rows_of(target, account_id))
            return table.c[key.parent.name].in_(owned)
    raise LookupError(f"{table.name} leads to no account: give it account_id, or say why not in OWNED_BY_NOBODY")


def unowned_tables() -> set[str]:
    """Names in OWNED_BY_NOBODY that no longer exist."""
    return set(OWNED_BY_NOBODY) - {table.name for table in all_tables()}
