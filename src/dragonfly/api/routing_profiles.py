"""/api/routing/profiles: named routing policies that keys are bound to."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dragonfly.api.desk import Desk
from dragonfly.api.principal import Principal, requires
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, Strict, Usd, cursor_position, page_of
from dragonfly.catalog.actions import (
    NAME_LENGTH_MAX,
    NAMES_MAX,
    RoutingProfileNotFound,
    change_profile,
    create_profile,
    delete_profile,
)
from dragonfly.catalog.queries import RoutingProfile, profile_of_account, profiles_of_account
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.ids import AccountId
from dragonfly.core.money import usd_text
from dragonfly.core.routing import RoutingRules, Sort
from dragonfly.keys.management import Scope

Reader = Annotated[Principal, Depends(requires(Scope.ROUTING_READ.value))]
Writer = Annotated[Principal, Depends(requires(Scope.ROUTING_WRITE.value))]
ProfileId = Annotated[str, Path(min_length=1, max_length=64, description="rtp-…")]
Names = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(max_length=NAMES_MAX, description="Provider slugs or ids of channels.", examples=[["deepseek"]]),
]
SortName = Literal["price", "latency", "throughput"]


class MaxPriceWanted(Strict):
    """Ceilings in USD per million tokens; channels above one are left out."""

    prompt: Usd | None = None
    completion: Usd | None = None


class RulesWanted(Strict):
    """The fields of a request's `provider` object. Requests can narrow what stands here, never widen it."""

    order: Annotated[Names, Field(default_factory=list)]
    only: Annotated[Names, Field(default_factory=list)]
    ignore: Annotated[Names, Field(default_factory=list)]
    allow_fallbacks: bool = True
    sort: SortName | None = None
    max_price: MaxPriceWanted = MaxPriceWanted()
    data_collection: Annotated[
        Literal["allow", "deny"], Field(description="deny: only providers known not to train on what they get.")
    ] = "allow"
    zdr: Annotated[bool, Field(description="true: only providers known to keep nothing.")] = False


class ProfileWanted(Strict):
    """A routing profile. PUT replaces all of it."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, examples=["private and cheap"])]
    rules: Annotated[RulesWanted, Field(default_factory=RulesWanted)]


class MaxPriceShown(BaseModel):
    """Ceilings in USD per million tokens."""

    prompt: str | None
    completion: str | None


class RulesShown(BaseModel):
    """The fields of a request's `provider` object."""

    order: list[str]
    only: list[str]
    ignore: list[str]
    allow_fallbacks: bool
    sort: SortName | None
    max_price: MaxPriceShown
    data_collection: Literal["allow", "deny"]
    zdr: bool


class ProfileShown(BaseModel):
    """A routing profile."""

    id: Annotated[str, Field(examples=["rtp-019a…"])]
    name: str
    rules: RulesShown
    created_at: str
    updated_at: str


class Deleted(BaseModel):
    """What is gone."""

    id: str
    deleted: bool = True


def routing_profile_routes(desk: Desk) -> APIRouter:
    """The routes; management keys with the scopes routing:read and routing:write may use them too."""
    routes = APIRouter(prefix="/api/routing/profiles", tags=["routing profiles"])

    @routes.get("", operation_id="list_routing_profiles", summary="List routing profiles")
    async def list_profiles(
        principal: Reader, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
    ) -> Page[ProfileShown]:
        position = cursor_position("profiles", cursor, str)
        after = "" if position is None else str(position[0])

        def find(connection: Connection) -> Page[ProfileShown]:
            found = profiles_of_account(connection, principal.account_id, after=after, limit=limit + 1)
            stored, next_cursor = page_of(found, limit, "profiles", lambda profile: (profile.id,))
            return Page(data=[_shown(profile) for profile in stored], next_cursor=next_cursor)

        return await desk.read(find)

    @routes.post(
        "", status_code=201, operation_id="create_routing_profile", summary="Create a profile", openapi_extra=kept()
    )
    async def create(principal: Writer, wanted: ProfileWanted) -> ProfileShown:
        """Bind keys to it with their field `routing_profile_id`."""
        rules, now_ns = _rules(wanted.rules), desk.clock.now_ns()

        def work(connection: Connection) -> ProfileShown:
            account_id = principal.account_id
            made = create_profile(connection, desk.ids, account_id, name=wanted.name, rules=rules, now_ns=now_ns)
            return _one(connection, made, account_id)

        return await desk.write(work)

    @routes.get("/{profile_id}", operation_id="get_routing_profile", summary="One routing profile")
    async def get(principal: Reader, profile_id: ProfileId) -> ProfileShown:
        return await desk.read(lambda connection: _one(connection, profile_id, principal.account_id))

    @routes.put("/{profile_id}", operation_id="replace_routing_profile", summary="Replace a routing profile")
    async def put(principal: Writer, profile_id: ProfileId, wanted: ProfileWanted) -> ProfileShown:
        """Every key that is bound to it follows within a second."""
        rules, now_ns = _rules(wanted.rules), desk.clock.now_ns()

        def work(connection: Connection) -> ProfileShown:
            account_id = principal.account_id
            change_profile(
                connection, profile_id, account_id=account_id, name=wanted.name, rules=rules, now_ns=now_ns
            )
            return _one(connection, profile_id, account_id)

        return await desk.write(work)

    @routes.delete("/{profile_id}", operation_id="delete_routing_profile", summary="Delete a routing profile")
    async def remove(principal: Writer, profile_id: ProfileId) -> Deleted:
        """Refused while keys are bound to it: nothing ever widens what a key may do by accident."""
        await desk.write(lambda connection: delete_profile(connection, profile_id, account_id=principal.account_id))
        return Deleted(id=profile_id)

    return routes


def _one(connection: Connection, profile_id: str, account_id: AccountId) -> ProfileShown:
    stored = profile_of_account(connection, profile_id, account_id=account_id)
    if stored is None:
        raise RoutingProfileNotFound
    return _shown(stored)


def _rules(wanted: RulesWanted) -> RoutingRules:
    return RoutingRules(
        order=tuple(wanted.order),
        only=tuple(wanted.only),
        ignore=tuple(wanted.ignore),
        allow_fallbacks=wanted.allow_fallbacks,
        sort=None if wanted.sort is None else Sort(wanted.sort),
        prompt_nusd_per_mtok_max=wanted.max_price.prompt,
        completion_nusd_per_mtok_max=wanted.max_price.completion,
        deny_data_collection=wanted.data_collection == "deny",
        zero_retention=wanted.zdr,
    )


def _shown(stored: RoutingProfile) -> ProfileShown:
    rules = stored.rules
    prompt, completion = rules.prompt_nusd_per_mtok_max, rules.completion_nusd_per_mtok_max
    return ProfileShown(
        id=stored.id,
        name=stored.name,
        rules=RulesShown(
            order=list(rules.order),
            only=list(rules.only),
            ignore=list(rules.ignore),
            allow_fallbacks=rules.allow_fallbacks,
            sort=None if rules.sort is None else rules.sort.value,
            max_price=MaxPriceShown(
                prompt=None if prompt is None else usd_text(prompt),
                completion=None if completion is None else usd_text(completion),
            ),
            data_collection="deny" if rules.deny_data_collection else "allow",
            zdr=rules.zero_retention,
        ),
        created_at=moment_text(stored.created_at_ns),
        updated_at=moment_text(stored.updated_at_ns),
    )
