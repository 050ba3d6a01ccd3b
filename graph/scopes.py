"""Scopes, declared on the fields that they guard: seen in the schema, enforced before the field runs."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver, SyncExtensionResolver
from strawberry.schema_directive import Location
from strawberry.types.field import StrawberryField

from resolvers.principal import Scope

from .context import GraphInfo


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="requiresScope",
    description="The token must carry this scope, else the field is FORBIDDEN.",
)
class RequiresScope:
    scope: str = strawberry.field(description="The scope's name, as in the token.")


class Guarded(FieldExtension):
    """`extensions=[Guarded(Scope.X)]` on a field: declares the scope in the schema and checks it."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def apply(self, field: StrawberryField) -> None:
        """Runs for each schema that is built of the same fields: the directive replaces its earlier self."""
        others = [each for each in field.directives if not isinstance(each, RequiresScope)]
        field.directives = [*others, RequiresScope(scope=self.scope.value)]

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: GraphInfo, **kwargs: Any) -> Any:
        info.context.principal.require(self.scope)
        return next_(source, info, **kwargs)

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: GraphInfo, **kwargs: Any) -> Any:
        info.context.principal.require(self.scope)
        result: Any = next_(source, info, **kwargs)
        return await result if isawaitable(result) else result  # a subscription's is the generator itself
