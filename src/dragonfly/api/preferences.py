"""/api/preferences: in which language and about what an account wants mail.

The language is that of the person, as in /api/me: an account that an operator made for a program has none.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dragonfly.accounts.people import person_of, rename_person
from dragonfly.api.desk import Desk
from dragonfly.api.principal import Principal, customer
from dragonfly.api.shapes import Strict, Usd
from dragonfly.core.ids import AccountId
from dragonfly.core.money import usd_text
from dragonfly.mail.actions import set_choices, set_low_balance
from dragonfly.mail.kinds import Choice
from dragonfly.mail.queries import preferences_of

Customer = Annotated[Principal, Depends(customer)]


class MailChoices(Strict):
    """Mails that can be switched off; those about security, payments and support always come."""

    welcome: bool | None = None
    low_balance: bool | None = None
    announcements: bool | None = None


class PreferencesShown(BaseModel):
    """What the account wants."""

    language: Literal["en", "zh"]
    mail: dict[str, bool] = Field(description="Which mails are switched on.")
    low_balance_usd: str | None = Field(description="Below which balance a mail comes; null: the usual one.")
    low_balance_default_usd: str = Field(description="The usual one.")


class PreferencesChanged(Strict):
    """Only what is to change; fields that are left out stay as they are."""

    language: Literal["en", "zh"] | None = None
    mail: MailChoices = MailChoices()
    low_balance_usd: Usd | None = Field(None, description="null: the usual one.")


def preferences_routes(desk: Desk, *, low_balance_default_nusd: int) -> APIRouter:
    """Reading and changing one's own preferences."""
    routes = APIRouter(tags=["account"])

    def shown(connection: Connection, account_id: AccountId) -> PreferencesShown:
        wanted = preferences_of(connection, account_id)
        person = person_of(connection, account_id)
        own = wanted.low_balance_nusd
        return PreferencesShown(
            language="zh" if person is not None and person.language == "zh" else "en",
            mail={choice.value: choice in wanted.choices for choice in Choice},
            low_balance_usd=None if own is None else usd_text(own),
            low_balance_default_usd=usd_text(low_balance_default_nusd),
        )

    @routes.get("/api/preferences")
    async def read_preferences(principal: Customer) -> PreferencesShown:
        """The account's preferences; the defaults until something is changed."""
        return await desk.read(lambda connection: shown(connection, principal.account_id))

    @routes.patch("/api/preferences")
    async def change_preferences(principal: Customer, changed: PreferencesChanged) -> PreferencesShown:
        """Changes what is given and leaves the rest."""
        now_ns = desk.clock.now_ns()

        def change(connection: Connection) -> PreferencesShown:
            _apply(connection, principal.account_id, changed, now_ns)
            return shown(connection, principal.account_id)

        return await desk.write(change)

    return routes


def _apply(connection: Connection, account_id: AccountId, changed: PreferencesChanged, now_ns: int) -> None:
    if changed.language is not None:
        rename_person(connection, account_id, name=None, language=changed.language)
    wanted = {choice: getattr(changed.mail, choice.value) for choice in Choice}
    given = {choice: is_on for choice, is_on in wanted.items() if is_on is not None}
    if given:
        set_choices(connection, account_id, given, now_ns=now_ns)
    if "low_balance_usd" in changed.model_fields_set:
        set_low_balance(connection, account_id, changed.low_balance_usd, now_ns=now_ns)
