"""Puts the parts of mail together, for the serving process and for commands."""

import ssl
from typing import TextIO
from urllib.parse import urlsplit

from fastapi import APIRouter

from dragonfly.api.admin_tickets import admin_ticket_routes
from dragonfly.api.desk import Desk
from dragonfly.api.identity import Identity
from dragonfly.api.mail import resend_routes, unsubscribe_routes
from dragonfly.api.preferences import preferences_routes
from dragonfly.api.support import stranger_routes, ticket_routes
from dragonfly.core.credentials import Seal
from dragonfly.core.secrets import Secret
from dragonfly.infra.logging import EventLog
from dragonfly.keys.rules import Peppers
from dragonfly.mail.alerts import Operator
from dragonfly.mail.notices import secret_key
from dragonfly.mail.pages import OptOutPage
from dragonfly.mail.rendering import Press, Site
from dragonfly.mail.rules import is_mail_address
from dragonfly.mail.seals import Seals
from dragonfly.mail.sending import Postman, PostOffice
from dragonfly.mail.transports.opening import open_transport
from dragonfly.notices.jobs import alerting, watching_balances, welcoming
from dragonfly.rights.actions import RightsTools
from dragonfly.settings import MailSettings, Settings, SettingsInvalid
from dragonfly.support.jobs import closing_silent_tickets
from dragonfly.worker import Job

SEND_EVERY_S = 1.0
TICKETS_EVERY_S = 3_600.0
WELCOME_EVERY_S = 300.0
BALANCES_EVERY_S = 60.0
ALERTS_EVERY_S = 60.0
SEALS_VERSION = 1
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def seals_of(peppers: Peppers) -> Seals:
    """Links and digests under the installation's first pepper, which stays when newer ones hash new keys."""
    secret = peppers.digest(SEALS_VERSION, b"mail") or peppers.digest(peppers.current, b"mail")
    assert secret is not None, "there is always a current pepper"
    return Seals(secret)


def site_of(settings: Settings) -> Site:
    """Where links in mails lead."""
    url = settings.server.public_url or f"http://{settings.server.host}:{settings.server.port}"
    return Site(settings.mail.from_name, url.rstrip("/"))


def open_post_office(settings: Settings, peppers: Peppers, seal: Seal, console: TextIO) -> PostOffice:
    """Templates, seals and the transport of the settings. SettingsInvalid when `mail.ca_file` is unusable."""
    try:
        transport = open_transport(settings.mail, console)
    except (OSError, ssl.SSLError):
        raise SettingsInvalid(("mail.ca_file: cannot be read as certificates in PEM form.",)) from None
    return PostOffice(Press(site_of(settings)), seals_of(peppers), seal, transport)


def mail_jobs(settings: Settings, desk: Desk, postman: Postman, log: EventLog) -> tuple[Job, ...]:
    """What a serving process does for mail, support and notices."""
    engine, threads, clock, ids = desk.engine, desk.threads, desk.clock, desk.ids
    mail = settings.mail
    operator = Operator(mail.operator_address, mail.operator_language)
    watching = watching_balances(engine, threads, clock, ids, default_nusd=mail.low_balance_nusd)
    return (
        Job("mail", SEND_EVERY_S, postman.run),
        Job("tickets", TICKETS_EVERY_S, closing_silent_tickets(engine, threads, clock)),
        Job("welcome", WELCOME_EVERY_S, welcoming(engine, threads, clock, ids)),
        Job("balances", BALANCES_EVERY_S, watching),
        Job("alerts", ALERTS_EVERY_S, alerting(engine, threads, clock, ids, log, operator=operator)),
    )


def mail_routers(
    settings: Settings, desk: Desk, office: PostOffice, identity: Identity, rights: RightsTools
) -> tuple[APIRouter, ...]:
    """What answers under /api for mail and support. Without a webhook secret nobody can post notices."""
    routers = [
        stranger_routes(desk, identity, rights),
        ticket_routes(desk, rights),
        admin_ticket_routes(desk),
        unsubscribe_routes(desk, office.seals, OptOutPage(office.press.site)),
        preferences_routes(desk, low_balance_default_nusd=settings.mail.low_balance_nusd),
    ]
    if settings.mail.resend_webhook_secret.get_secret_value():
        key = secret_key(Secret(settings.mail.resend_webhook_secret.get_secret_value()))
        routers.append(resend_routes(desk, office.seals, key))
    return tuple(routers)


def mail_problems(settings: Settings) -> list[str]:
    """What is wrong with the [mail] section as a whole."""
    mail = settings.mail
    addresses = {
        "from_address": mail.from_address,
        "reply_to": mail.reply_to,
        "operator_address": mail.operator_address,
    }
    problems = [
        f"mail.{name}: needs one plain address, such as hello@example.com."
        for name, address in addresses.items()
        if address and not is_mail_address(address)
    ]
    if not (mail.from_name and mail.from_name.isprintable() and len(mail.from_name) <= 100):
        problems.append("mail.from_name: needs 1 to 100 printable characters.")
    if webhook := mail.resend_webhook_secret.get_secret_value():
        try:
            secret_key(Secret(webhook))
        except ValueError:
            problems.append("mail.resend_webhook_secret: needs the whole secret, whsec_ and what follows.")
    if mail.transport == "console":
        return problems
    needed = {"mail.from_address": mail.from_address, "server.public_url": settings.server.public_url}
    problems += [
        f'{name}: needed by mail.transport = "{mail.transport}".' for name, value in needed.items() if not value
    ]
    return problems + (_resend_problems(mail) if mail.transport == "resend" else _smtp_problems(mail))


def _resend_problems(mail: MailSettings) -> list[str]:
    problems = []
    key = mail.resend_api_key.get_secret_value()
    if not key or not key.isascii() or not key.isprintable():
        problems.append('mail.resend_api_key: needed by mail.transport = "resend", as the dashboard shows it.')
    url = urlsplit(mail.resend_url)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
        problems.append("mail.resend_url: needs an address that begins with https://.")
    return problems


def _smtp_problems(mail: MailSettings) -> list[str]:
    problems = []
    if not mail.smtp_host:
        problems.append('mail.smtp_host: needed by mail.transport = "smtp".')
    if mail.smtp_tls == "none" and mail.smtp_host not in LOOPBACK:
        problems.append("mail.smtp_tls: none is for a server on this machine; choose starttls or implicit.")
    if mail.smtp_user and not mail.smtp_password.get_secret_value():
        problems.append("mail.smtp_password: needed by mail.smtp_user.")
    return problems
