"""Routes of API keys: they are listed, created and revoked.

A caller creates and revokes no key that may more than it may itself, and sees keys of its own
dataset groups only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta

from api.access.access_check import AccessCheck
from api.access.callers import Caller
from api.dependencies import Services
from api.openapi import documented
from api.request_params import parse_body
from api.schemas import ResponseBody, json_response
from models.api_keys import ALL_GROUPS, MAX_NAME_CHARACTERS, MAX_ORIGINS, ApiKey, Role, new_key
from models.errors import Forbidden, InvalidRequest, InvalidSetting, LimitExceeded
from models.state.groups import key_store

DAY_S = 86400.0
MAX_GROUPS = 100
"""Dataset groups that one key may name, unless it is for all."""

router = APIRouter()


class KeyRequest(
    msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True
):
    """An API key to be created."""

    name: Annotated[
        str,
        Meta(min_length=1, max_length=MAX_NAME_CHARACTERS, description="Printable characters."),
    ]
    roles: Annotated[list[Role], Meta(min_length=1, max_length=len(Role))]
    groups: (
        Annotated[
            list[Annotated[str, Meta(pattern=r"^(\*|[A-Za-z0-9_-]{1,63})$(?!\n)")]],
            Meta(
                min_length=1,
                max_length=MAX_GROUPS,
                description="Dataset groups it is for, or * for all; by default the settings' one.",
            ),
        ]
        | None
    ) = None
    origins: Annotated[
        list[str],
        Meta(
            max_length=MAX_ORIGINS,
            description="Origins of web pages: then the key is public, and may only send and read.",
        ),
    ] = []
    days: Annotated[
        Annotated[float, Meta(gt=0, le=36500)] | None, Meta(description="It ends after this long.")
    ] = None
    per_second: Annotated[
        float, Meta(ge=0, le=1e6, description="Most requests of each API process; 0: no limit.")
    ] = 0.0
    per_day: Annotated[
        int, Meta(ge=0, le=10**12, description="Most requests in a day of UTC; 0: no limit.")
    ] = 0


class ListedKey(ResponseBody, frozen=True):
    """An API key without its secret; times in Unix seconds."""

    id: str
    name: str
    roles: tuple[Role, ...]
    groups: tuple[str, ...]
    origins: tuple[str, ...]
    created_at: float
    expires_at: Annotated[float | None, Meta(description="null: never.")]
    per_second: float
    per_day: int
    made_by: Annotated[
        str, Meta(description="Who created it: a key's or a person's id; empty: a command.")
    ]
    is_session: Annotated[
        bool, Meta(description="True for the session of a person of the login's provider.")
    ]


class ListedKeys(ResponseBody, frozen=True):
    """API keys, oldest first."""

    keys: list[ListedKey]


class CreatedKey(ResponseBody, frozen=True):
    """A new API key."""

    key: ListedKey
    secret: Annotated[str, Meta(description="Its text, shown this once: it is stored nowhere.")]


class RevokedKeys(ResponseBody, frozen=True):
    """Number of revoked keys."""

    revoked: Annotated[int, Meta(description="1, or 0 if the caller sees no such key.")]


@router.get("/keys", **documented(ListedKeys, "List API keys"))
async def list_keys(request: Request) -> Response:
    """Keys of the caller's dataset groups, and sessions of people, without their secrets."""
    services: Services = request.app.state.services
    caller: Caller = request.scope["caller"]
    return json_response(ListedKeys([_listed(key) for key in await _visible(services, caller)]))


@router.post(
    "/keys",
    **documented(
        CreatedKey,
        "Create an API key",
        body=KeyRequest,
        example={"name": "shop backend", "roles": ["read"], "groups": ["shop"]},
    ),
)
async def create_key(request: Request) -> Response:
    """Answers with the key's secret, once; the audit log has an entry of it.

    A caller gives no role and no group that it has not, and no longer life than its own key has.
    """
    services: Services = request.app.state.services
    caller: Caller = request.scope["caller"]
    asked = parse_body(await request.body(), KeyRequest)
    now_s = services.clock()
    groups = asked.groups or [services.settings.group]
    _check_may(caller, asked.roles, groups)
    ends_s = now_s + asked.days * DAY_S if asked.days else 0.0
    try:
        made = new_key(
            asked.name,
            asked.roles,
            groups,
            now_s=now_s,
            origins=asked.origins,
            expires_s=_within(_own_end_s(request, caller), ends_s),
            requests_per_s=asked.per_second,
            requests_per_day=asked.per_day,
            maker=caller.id,
        )
    except InvalidSetting as error:
        raise InvalidRequest(str(error)) from error
    key = made.key
    targets = [key.id, key.name, *key.roles, *key.groups]
    await services.audit(request.scope, "create_key", targets, _group(key))
    try:
        with services.redis_gate:
            await key_store.add_key(services.store.redis, key, now_s=now_s)
    except LimitExceeded as error:
        raise InvalidRequest(str(error)) from error
    await _read_again(request)
    return json_response(CreatedKey(_listed(key), made.text))


@router.delete("/keys/{key_id}", **documented(RevokedKeys, "Revoke an API key"))
async def revoke_key(
    request: Request, key_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Every API process refuses the key within a second, and its sessions with it."""
    services: Services = request.app.state.services
    caller: Caller = request.scope["caller"]
    key = next((one for one in await _visible(services, caller) if one.id == key_id), None)
    if key is None:
        return json_response(RevokedKeys(0))
    _check_may(caller, key.roles, key.groups)
    await services.audit(request.scope, "revoke_key", [key.id, key.name], _group(key))
    with services.redis_gate:
        removed = await key_store.remove_key(services.store.redis, key.id)
    await _read_again(request)
    return json_response(RevokedKeys(int(removed is not None)))


async def _visible(services: Services, caller: Caller) -> list[ApiKey]:
    """Keys of no other groups than the caller operates."""
    with services.redis_gate:
        stored = await key_store.stored_keys(services.store.redis)
    return [
        key
        for key in stored
        if key.is_listed and all(caller.may(Role.OPERATE, group) for group in key.groups)
    ]


def _check_may(caller: Caller, roles: Sequence[Role], groups: Sequence[str]) -> None:
    """Raise `Forbidden` unless the caller has all these roles in all these groups."""
    for group in groups:
        for role in roles:
            if not caller.may(role, group):
                where = "every group" if group == ALL_GROUPS else f"the group {group}"
                text = f"only who has the role {role} in {where} may give or take it"
                raise Forbidden(text)


async def _read_again(request: Request) -> None:
    """Let a change take effect in this process at once; in others it does within a second."""
    access: AccessCheck = request.app.state.access
    if access.keys is not None:
        await access.keys.read_again()


def _own_end_s(request: Request, caller: Caller) -> float:
    """Unix time at which the caller's own key ends; 0 for never."""
    access: AccessCheck = request.app.state.access
    own = None if access.keys is None else access.keys.get(caller.id)
    return 0.0 if own is None else own.key.expires_s


def _within(most_s: float, ends_s: float) -> float:
    """The earlier of two ends, of which 0 is none."""
    return min(filter(None, (most_s, ends_s)), default=0.0)


def _group(key: ApiKey) -> str:
    """The group of an entry about a key; empty for several."""
    only = key.groups[0]
    return only if len(key.groups) == 1 and only != ALL_GROUPS else ""


def _listed(key: ApiKey) -> ListedKey:
    return ListedKey(
        key.id,
        key.name,
        key.roles,
        key.groups,
        key.origins,
        key.created_s,
        key.expires_s or None,
        key.requests_per_s,
        key.requests_per_day,
        key.maker,
        key.is_of_person,
    )
