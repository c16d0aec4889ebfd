"""The part of the inventory that is not in the database: fields of log lines, and hosts that data goes to."""

from typing import NamedTuple
from urllib.parse import urlsplit

from dragonfly.catalog.builtin import load_builtin
from dragonfly.privacy.inventory import BASES, Category, Entry

LOG_LIFETIME = "as long as the operator keeps the log"


class Said(NamedTuple):
    """What a field of log lines is for."""

    purpose: str
    category: Category = Category.OPERATION


LOG_FIELDS: dict[str, Said] = {
    "attempts": Said("How often it was tried"),
    "channel": Said("Which way to a provider"),
    "checks": Said("Names of the checks of the books that found something"),
    "code": Said("The code of an error"),
    "connections": Said("How many are open"),
    "count": Said("How many"),
    "descriptors_max": Said("How many files and sockets the process may hold"),
    "exceptions": Said("Types of a failure and its causes, without their words"),
    "exit_status": Said("How a worker ended; below zero: by which signal"),
    "failure": Said("Why it failed, a word from a closed list"),
    "frames": Said("Places in the code, without values"),
    "host": Said("The address that is listened on"),
    "job": Said("Which recurring work"),
    "kind": Said("A word from a closed list"),
    "landlock_abi": Said("Which version of the kernel's walls"),
    "logger": Said("Which library"),
    "missing": Said("Names of walls that do not stand"),
    "mail": Said("Which mail, to look for in the outbox", Category.ACCOUNT),
    "models": Said("How many are on offer"),
    "notes": Said("How many remarks the catalogue has"),
    "number": Said("Which worker of this machine"),
    "place": Said("Where in a library's code"),
    "port": Said("The port that is listened on"),
    "providers": Said("How many are connected"),
    "request_id": Said("Which request, to look for in the books", Category.USAGE),
    "restart_s": Said("When the next worker takes the place"),
    "source": Said("Which last resort caught it"),
    "status": Said("An HTTP status"),
    "step": Said("Which step of stopping"),
    "waiting": Said("How many settlements wait"),
    "workers": Said("How many serve"),
}
"""Every field of every event. Category USAGE where it leads to one customer's request, ACCOUNT to a person."""


class Host(NamedTuple):
    """Somebody else's computer, and what it is told."""

    host: str
    who: str
    purpose: str
    category: Category
    receives: str
    policy_url: str


SERVICES: tuple[Host, ...] = (
    Host(
        host="api.resend.com",
        who="Resend",
        purpose="Delivers mail",
        category=Category.ACCOUNT,
        receives="The address, subject and words of each mail",
        policy_url="https://resend.com/legal/privacy-policy",
    ),
    Host(
        host="accounts.google.com",
        who="Google",
        purpose="Vouches for people who choose to sign in with Google",
        category=Category.ACCOUNT,
        receives="That somebody signs in here; no name or address from us",
        policy_url="https://policies.google.com/privacy",
    ),
    Host(
        host="discord.com",
        who="Discord",
        purpose="Vouches for people who choose to sign in with Discord",
        category=Category.ACCOUNT,
        receives="That somebody signs in here; no name or address from us",
        policy_url="https://discord.com/privacy",
    ),
)
"""Hosts that are not model providers; none is called unless its feature is switched on."""


def provider_hosts() -> tuple[Host, ...]:
    """Every address of the built-in catalogue. Used only when its key is configured."""
    found: dict[str, Host] = {}
    for provider in load_builtin().providers.values():
        for address in (provider.base_url, *(site.base_url for site in provider.sites.values())):
            host = urlsplit(str(address)).hostname or ""
            found[host] = Host(
                host=host,
                who=provider.name,
                purpose="Answers requests to its models",
                category=Category.USAGE,
                receives="The request's body as the customer sent it; never who sent it",
                policy_url=str(provider.privacy_policy_url or ""),
            )
    return tuple(found[host] for host in sorted(found))


def log_entries() -> tuple[Entry, ...]:
    """The fields of log lines as entries of the inventory."""
    return tuple(
        Entry(name, said.purpose, said.category, LOG_LIFETIME, BASES[said.category])
        for name, said in sorted(LOG_FIELDS.items())
    )
