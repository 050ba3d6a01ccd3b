"""Keys of one's own at providers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

import strawberry

from graph.context import GraphInfo
from graph.inputs import planned
from graph.scopes import Guarded
from persistence.provider_key_records import StoredProviderKey
from resolvers.principal import Scope


@strawberry.type(description="A key of the organisation's own at a provider. The key itself is never told again.")
class ProviderKey:
    provider: str = strawberry.field(description="Whose key it is.")
    hint: str = strawberry.field(description="How it ends.")
    created_at: datetime = strawberry.field(description="When it was set, UTC.")
    created_by: str = strawberry.field(description="The subject of the token that set it.")

    @classmethod
    def of(cls, key: StoredProviderKey) -> Self:
        return cls(provider=key.provider, hint=key.hint, created_at=key.created_at, created_by=key.created_by)


@planned
@strawberry.input(description="A key at a provider.")
class SetProviderKeyInput:
    provider: str = strawberry.field(description="Which provider, as models name it.")
    key: str = strawberry.field(description="The key, as the provider gave it.")


@planned
@strawberry.input(description="Which key is to be forgotten.")
class DeleteProviderKeyInput:
    provider: str = strawberry.field(description="Which provider's.")


@strawberry.type(description="What was forgotten.")
class DeletedProviderKey:
    provider: str = strawberry.field(description="Whose key it was.")


Set = Annotated[SetProviderKeyInput, strawberry.argument(description="The key, and whose it is.")]
Delete = Annotated[DeleteProviderKeyInput, strawberry.argument(description="Whose key.")]


@strawberry.type
class ProviderKeyQueries:
    @strawberry.field(
        description="The organisation's own keys at providers, by the providers' names.",
        extensions=[Guarded(Scope.PROVIDER_KEYS_READ)],
    )
    async def provider_keys(self, info: GraphInfo) -> list[ProviderKey] | None:
        context = info.context
        return [ProviderKey.of(key) for key in await context.services.provider_keys.listed(context.principal)]


@strawberry.type
class ProviderKeyMutations:
    @strawberry.mutation(
        description="Sets the organisation's own key at a provider, in the place of the one before. From then on its "
        "calls to that provider go by this key alone; with several servers, within a second.",
        extensions=[Guarded(Scope.PROVIDER_KEYS_WRITE)],
    )
    async def set_provider_key(
        self,
        info: GraphInfo,
        input: Set,  # noqa: A002  # the argument's name
    ) -> ProviderKey | None:
        context = info.context
        return ProviderKey.of(await context.services.provider_keys.put(context.principal, input.provider, input.key))

    @strawberry.mutation(
        description="Forgets the organisation's own key at a provider. Its calls go by the deployment's key again, "
        "where there is one.",
        extensions=[Guarded(Scope.PROVIDER_KEYS_WRITE)],
    )
    async def delete_provider_key(
        self,
        info: GraphInfo,
        input: Delete,  # noqa: A002  # the argument's name
    ) -> DeletedProviderKey | None:
        context = info.context
        await context.services.provider_keys.delete(context.principal, input.provider)
        return DeletedProviderKey(provider=input.provider)
