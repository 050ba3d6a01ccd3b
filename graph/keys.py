"""API keys and minted tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

import strawberry

from graph.completions.inputs import aware
from graph.completions.types import PageInfo
from graph.context import GraphInfo
from graph.inputs import planned
from graph.node import Node
from graph.scopes import Guarded
from persistence import key_records as records
from resolvers import api_keys
from resolvers.principal import Scope
from resolvers.tokens import MAX_LIFETIME_S, mint_token

_SCOPES = "What it may do, as `@requiresScope` names it."
_ROLES = (
    "Named sets of scopes: caller, viewer, developer, billing, admin. A role grows when the API gets new scopes for it."
)
_MODELS = "All that it may use, as provider/model, or provider/* for all of a provider's; null for any."
_CONFIGS = "Slugs of the configs that it may use, and then no completion without one; null for any."
_NETWORKS = "Where it may be used from: addresses and networks such as 203.0.113.0/24 or 2001:db8::/32; null for any."
_ONCE = "The key itself. It is told here and never again: of it only a keyed hash is kept."


@strawberry.type(description="What a key may do.")
class Grant:
    scopes: list[str] = strawberry.field(description=_SCOPES)
    roles: list[str] = strawberry.field(description=_ROLES)
    models: list[str] | None = strawberry.field(description=_MODELS)
    configs: list[str] | None = strawberry.field(description=_CONFIGS)
    networks: list[str] | None = strawberry.field(description=_NETWORKS)

    @classmethod
    def of(cls, grant: records.Grant) -> Self:
        return cls(
            scopes=list(grant.scopes),
            roles=list(grant.roles),
            models=_listed(grant.models),
            configs=_listed(grant.configs),
            networks=_listed(grant.networks),
        )


@strawberry.type(description="A credential for a server, which sends it as a Bearer token.")
class ApiKey(Node):
    id: strawberry.ID = strawberry.field(
        description="Begins with key_, and sorts by time. What is done with the key is booked under it."
    )
    name: str = strawberry.field(description="For people.")
    hint: str = strawberry.field(description="How the key begins.")
    grant: Grant = strawberry.field(description="What it may do.")
    revision: int = strawberry.field(description="Counts the writes; `expectedRevision` is held against it.")
    created_at: datetime = strawberry.field(description="When it was made, UTC.")
    created_by: str = strawberry.field(description="The subject of the token that made it.")
    updated_at: datetime = strawberry.field(description="When it was written last, UTC.")
    expires_at: datetime | None = strawberry.field(description="From then on it is refused, UTC; null for never.")
    revoked_at: datetime | None = strawberry.field(description="From then on it is refused, UTC; null for not.")
    revoked_by: str | None = strawberry.field(description="The subject of the token that revoked it.")
    last_used_at: datetime | None = strawberry.field(
        description="When it was used last, UTC, with half a minute's delay; null for never."
    )

    @classmethod
    def of(cls, key: records.ApiKey) -> Self:
        return cls(
            id=strawberry.ID(key.id),
            name=key.name,
            hint=key.hint,
            grant=Grant.of(key.grant),
            revision=key.revision,
            created_at=key.created_at,
            created_by=key.created_by,
            updated_at=key.updated_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            revoked_by=key.revoked_by,
            last_used_at=key.last_used_at,
        )


@strawberry.type(description="A key that has just been made.")
class CreatedApiKey:
    key: str = strawberry.field(description=_ONCE)
    api_key: ApiKey = strawberry.field(description="What is known of it from now on.")


@strawberry.type(description="A token that has just been made.")
class MintedToken:
    token: str = strawberry.field(description="The token itself, for `Authorization: Bearer …`.")
    expires_at: datetime = strawberry.field(description="From then on it is refused, UTC.")


@strawberry.type(description="An API key and its place in the list.")
class ApiKeyEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: ApiKey = strawberry.field(description="The key.")


@strawberry.type(description="A page of API keys, newest first (Relay).")
class ApiKeyConnection:
    edges: list[ApiKeyEdge] = strawberry.field(description="The page.")
    nodes: list[ApiKey] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: api_keys.KeyPage, after: str | None) -> Self:
        edges = [ApiKeyEdge(cursor=key.id, node=ApiKey.of(key)) for key in page.keys]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                has_next_page=page.more,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


@planned
@strawberry.input(description="Which API keys.")
class ApiKeyFilter:
    active: bool | None = strawberry.field(
        default=strawberry.UNSET, description="True: without those that are revoked or have expired."
    )


@planned
@strawberry.input(description="What a key or token shall be allowed: no more than you are yourself.")
class GrantInput:
    scopes: list[str] | None = strawberry.field(default=strawberry.UNSET, description=_SCOPES)
    roles: list[str] | None = strawberry.field(default=strawberry.UNSET, description=_ROLES)
    models: list[str] | None = strawberry.field(default=strawberry.UNSET, description=_MODELS)
    configs: list[str] | None = strawberry.field(default=strawberry.UNSET, description=_CONFIGS)
    networks: list[str] | None = strawberry.field(default=strawberry.UNSET, description=_NETWORKS)

    def grant(self) -> records.Grant:
        return records.Grant(
            scopes=tuple(self.scopes or ()),
            roles=tuple(self.roles or ()),
            models=_tuple(self.models),
            configs=_tuple(self.configs),
            networks=_tuple(self.networks),
        )


@planned
@strawberry.input(description="A new API key.")
class CreateApiKeyInput:
    name: str = strawberry.field(description="For people: 1 to 100 characters.")
    grant: GrantInput = strawberry.field(description="What it may do.")
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="From then on it is refused, within ten years; absent for never."
    )


@planned
@strawberry.input(description="What is to change of an API key; what is absent stays.")
class UpdateApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The key.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="For people: 1 to 100 characters.")
    grant: GrantInput | None = strawberry.field(
        default=strawberry.UNSET, description="What it may do, as a whole: it takes the place of what it might before."
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="From then on it is refused, within ten years."
    )
    never_expires: bool | None = strawberry.field(default=strawberry.UNSET, description="True takes its end away.")
    expected_revision: int | None = strawberry.field(
        default=strawberry.UNSET, description="CONFLICT where the key has another revision by now."
    )


@planned
@strawberry.input(description="Which API key gets a successor, and for how long both serve.")
class RotateApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The key.")
    overlap_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="For how long the old one still serves, up to a week; absent: an hour."
    )


@planned
@strawberry.input(description="Which API key is to open nothing any more.")
class RevokeApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The key.")


@planned
@strawberry.input(description="A token for a browser.")
class MintTokenInput:
    grant: GrantInput = strawberry.field(description="What it may do; never to make tokens or keys.")
    lifetime_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description=f"For how long, 60 to {MAX_LIFETIME_S}; absent: a quarter of an hour."
    )


First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
Filter = Annotated[ApiKeyFilter | None, strawberry.argument(description="Which keys.")]
Create = Annotated[CreateApiKeyInput, strawberry.argument(description="The key.")]
Update = Annotated[UpdateApiKeyInput, strawberry.argument(description="Which key, and what of it.")]
Rotate = Annotated[RotateApiKeyInput, strawberry.argument(description="Which key, and for how long both serve.")]
Revoke = Annotated[RevokeApiKeyInput, strawberry.argument(description="Which key.")]
Mint = Annotated[MintTokenInput, strawberry.argument(description="What it may do, and for how long.")]

_AN_HOUR, _A_QUARTER = 3600, 900


@strawberry.type
class KeyQueries:
    @strawberry.field(description="The organisation's API keys, newest first.", extensions=[Guarded(Scope.KEYS_READ)])
    async def api_keys(
        self,
        info: GraphInfo,
        first: First = 50,
        after: After = None,
        filter: Filter = None,  # noqa: A002  # the argument's name
    ) -> ApiKeyConnection | None:
        context = info.context
        active = filter is not None and bool(filter.active)
        page = await context.services.api_keys.page(context.principal, first=first, after=after, active=active)
        return ApiKeyConnection.of(page, after)


@strawberry.type
class KeyMutations:
    @strawberry.mutation(
        description="Makes an API key. FORBIDDEN where it might do what you may not; CONFLICT where the organisation "
        "has 1000 that open.",
        extensions=[Guarded(Scope.KEYS_WRITE)],
    )
    async def create_api_key(
        self,
        info: GraphInfo,
        input: Create,  # noqa: A002  # the argument's name
    ) -> CreatedApiKey | None:
        context = info.context
        asked = api_keys.NewKey(input.name, input.grant.grant(), aware(input.expires_at, ("input", "expiresAt")))
        secret, key = await context.services.api_keys.create(context.principal, asked)
        return CreatedApiKey(key=secret, api_key=ApiKey.of(key))

    @strawberry.mutation(
        description="Changes an API key. It holds for every server within a second.",
        extensions=[Guarded(Scope.KEYS_WRITE)],
    )
    async def update_api_key(
        self,
        info: GraphInfo,
        input: Update,  # noqa: A002  # the argument's name
    ) -> ApiKey | None:
        context = info.context
        change = api_keys.KeyChange(
            name=input.name,
            grant=None if input.grant is None else input.grant.grant(),
            expires_at=aware(input.expires_at, ("input", "expiresAt")),
            endless=bool(input.never_expires),
        )
        return ApiKey.of(
            await context.services.api_keys.change(
                context.principal, input.id, change, expected_revision=input.expected_revision
            )
        )

    @strawberry.mutation(
        description="Gives an API key a successor: the same id, another key. The old one serves for a while.",
        extensions=[Guarded(Scope.KEYS_WRITE)],
    )
    async def rotate_api_key(
        self,
        info: GraphInfo,
        input: Rotate,  # noqa: A002  # the argument's name
    ) -> CreatedApiKey | None:
        context = info.context
        overlap_s = _AN_HOUR if input.overlap_seconds is None else input.overlap_seconds
        secret, key = await context.services.api_keys.rotate(context.principal, input.id, overlap_s=overlap_s)
        return CreatedApiKey(key=secret, api_key=ApiKey.of(key))

    @strawberry.mutation(
        description="Takes an API key back, for good: within a second it opens nothing on any server, nor does a token "
        "that it has minted, and their sockets are closed.",
        extensions=[Guarded(Scope.KEYS_WRITE)],
    )
    async def revoke_api_key(
        self,
        info: GraphInfo,
        input: Revoke,  # noqa: A002  # the argument's name
    ) -> ApiKey | None:
        context = info.context
        return ApiKey.of(await context.services.api_keys.revoke(context.principal, input.id))

    @strawberry.mutation(
        description="Makes a token that lives shortly and may do little, for a browser, which can keep no key. It "
        "bears your subject, may do no more than you, never makes tokens or keys itself, and ends with the API key "
        "that made it.",
        extensions=[Guarded(Scope.TOKENS_MINT)],
    )
    async def mint_token(
        self,
        info: GraphInfo,
        input: Mint,  # noqa: A002  # the argument's name
    ) -> MintedToken | None:
        context = info.context
        services = context.services
        lifetime_s = _A_QUARTER if input.lifetime_seconds is None else input.lifetime_seconds
        minted = await mint_token(
            services.tokens,
            context.audit,
            context.principal,
            input.grant.grant(),
            lifetime_s=lifetime_s,
            now=services.api_keys.now,
        )
        return MintedToken(token=minted.token, expires_at=minted.expires_at)


def _listed(given: tuple[str, ...] | None) -> list[str] | None:
    return None if given is None else list(given)


def _tuple(given: list[str] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(given)
