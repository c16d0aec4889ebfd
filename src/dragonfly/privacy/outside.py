"""The part of the inventory that is not in the database: fields of log lines, mails, and hosts that data goes to."""

from typing import NamedTuple
from urllib.parse import urlsplit

from dragonfly.catalog.builtin import load_builtin
from dragonfly.mail.kinds import RULES, MailKind
from dragonfly.privacy.inventory import BASES, Category, Entry

METRIC_LIFETIME = "while the process lives; as long as the operator keeps what was read"
LOG_LIFETIME = "as long as the operator keeps the log"


class Said(NamedTuple):
    """What a field of log lines is for."""

    purpose: str
    category: Category = Category.OPERATION


LOG_FIELDS: dict[str, Said] = {
    "account": Said("Whose money", Category.PAYMENT),
    "attempts": Said("How often it was tried"),
    "channel": Said("Which way to a provider"),
    "checks": Said("Names of the checks of the books that found something"),
    "code": Said("The code of an error"),
    "connections": Said("How many are open"),
    "count": Said("How many"),
    "credit_nusd": Said("How much was credited", Category.PAYMENT),
    "descriptors_max": Said("How many files and sockets the process may hold"),
    "dispute": Said("Which dispute", Category.PAYMENT),
    "disputes": Said("How many payments were disputed"),
    "exceptions": Said("Types of a failure and its causes, without their words"),
    "exit_status": Said("How a worker ended; below zero: by which signal"),
    "failure": Said("Why it failed, a word from a closed list"),
    "frames": Said("Places in the code, without values"),
    "host": Said("The address that is listened on"),
    "is_alarm": Said("Whether it is more than a warning"),
    "job": Said("Which recurring work"),
    "kind": Said("A word from a closed list"),
    "landlock_abi": Said("Which version of the kernel's walls"),
    "logger": Said("Which library"),
    "looked_at": Said("How many payments were compared"),
    "mail": Said("Which mail, to look for in the outbox", Category.ACCOUNT),
    "missing": Said("Names of walls that do not stand"),
    "models": Said("How many are on offer"),
    "notes": Said("How many remarks the catalogue has"),
    "number": Said("Which worker of this machine"),
    "oldest_s": Said("How long the oldest has waited"),
    "payments": Said("How many payments by card"),
    "per_mille": Said("Disputes in a thousand payments"),
    "place": Said("Where in a library's code"),
    "port": Said("The port that is listened on"),
    "providers": Said("How many are connected"),
    "reason": Said("A word from a closed list"),
    "refund": Said("Which refund", Category.PAYMENT),
    "repaired": Said("How many payments were put right"),
    "request_id": Said("Which request, to look for in the books", Category.USAGE),
    "response": Said("What was done, a word from a closed list"),
    "restart_s": Said("When the next worker takes the place"),
    "source": Said("Which last resort caught it"),
    "state": Said("How far it is, a word from a closed list"),
    "status": Said("An HTTP status"),
    "step": Said("Which step of stopping"),
    "topup": Said("Which payment", Category.PAYMENT),
    "tries": Said("How often it was tried"),
    "type": Said("What happened, a word of the payment provider"),
    "waiting": Said("How many settlements or mails wait"),
    "workers": Said("How many serve"),
}
"""Every field of every event. Category USAGE where it leads to one customer's request, ACCOUNT to a person."""


METRIC_LABELS: dict[str, Said] = {
    "code": Said("The code of an error"),
    "kind": Said("Which tokens: prompt, completion, cached"),
    "le": Said("The upper bound of a step of a histogram, in seconds"),
    "model": Said("Which model answered, a public id of the catalogue"),
    "outcome": Said("How requests ended, from a closed list"),
    "provider": Said("Which provider answered"),
    "version": Said("Which version serves"),
    "worker": Said("Which process of this machine"),
}
"""Every label of /metrics. None leads to a person, an account, a key or a request."""


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
        host="api.stripe.com",
        who="Stripe",
        purpose="Takes payments",
        category=Category.PAYMENT,
        receives="The account's id and address, amounts; cards are typed at Stripe and never come here",
        policy_url="https://stripe.com/privacy",
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


def metric_entries() -> tuple[Entry, ...]:
    """The labels of metrics as entries of the inventory."""
    return tuple(
        Entry(name, said.purpose, said.category, METRIC_LIFETIME, BASES[said.category])
        for name, said in sorted(METRIC_LABELS.items())
    )


MAILS: dict[MailKind, str] = {
    MailKind.VERIFY_EMAIL: "Proves that an address is its owner's",
    MailKind.ACCOUNT_EXISTS: "Tells the owner of an address that somebody tried to register it",
    MailKind.PASSWORD_RESET: "Lets the owner choose a new password",
    MailKind.PASSWORD_CHANGED: "Tells of a new password, so that a thief is noticed",
    MailKind.EMAIL_CHANGE: "Proves a new address",
    MailKind.EMAIL_CHANGED: "Tells the old address that there is a new one",
    MailKind.NEW_SIGN_IN: "Tells of a sign-in from a browser that was not seen before",
    MailKind.SECOND_FACTOR_CHANGED: "Tells that the second factor was switched on or off",
    MailKind.KEY_CREATED: "Tells of a new key, by its name and hint",
    MailKind.KEY_CHANGED: "Tells that a key has a new secret, or what an operator did to it",
    MailKind.WELCOME_START: "Shows how to begin",
    MailKind.WELCOME_ROUTES: "Shows how models are chosen",
    MailKind.WELCOME_HELP: "Says where help is",
    MailKind.LOW_BALANCE: "Warns before requests are refused for want of money",
    MailKind.SPEND_BREAKER: "Tells that a key was stopped because it spent unusually much",
    MailKind.RECEIPT: "Says what was paid",
    MailKind.RECHARGE_FAILED: "Tells that a payment that was agreed on did not succeed",
    MailKind.RECHARGE_CONFIRM: "Asks to confirm an automatic top-up that the bank stopped",
    MailKind.REFUND: "Says what was paid back",
    MailKind.DISPUTE_OPENED: "Tells that a bank demands a payment back",
    MailKind.DISPUTE_CLOSED: "Tells how that ended",
    MailKind.DATA_REQUEST_STATUS: "Tells how far a request for a copy or for deletion is",
    MailKind.DATA_REQUEST_REFUSED: "Tells why such a request was refused",
    MailKind.EXPORT_READY: "Tells that a copy of one's data can be fetched, and until when",
    MailKind.DELETION_SCHEDULED: "Tells when an account will be deleted, and how to keep it",
    MailKind.DELETION_WAITS: "Tells what a deletion waits for",
    MailKind.DELETION_DONE: "Hands over the certificate of a deletion",
    MailKind.TICKET_OPENED: "Confirms a message to support",
    MailKind.TICKET_REPLY: "Carries the answer of support",
    MailKind.ANNOUNCEMENT: "Tells of changes",
    MailKind.OPERATOR_ALERT: "Tells the operator what needs a person",
    MailKind.TEST: "Shows the operator that mail works",
}
"""What each kind of mail is for. None carries a key, a prompt, an answer or an exact balance."""
MAIL_BASES = {True: "contract", False: "legitimate interest; can be switched off with one click"}


def mail_entries() -> tuple[Entry, ...]:
    """Kinds of mail as entries of the inventory."""
    return tuple(
        Entry(
            kind.value,
            f"{MAILS[kind]}; fills in: {', '.join(RULES[kind].fields) or 'nothing'}",
            Category.ACCOUNT,
            "values until it is sent, the rest as mail_outbox",
            MAIL_BASES[RULES[kind].choice is None],
        )
        for kind in MailKind
    )
