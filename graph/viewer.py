"""Who asks, and whatever has an id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from math import isinf
from typing import Annotated

import strawberry

from graph.batches.types import Batch
from graph.completions.fields import record_of
from graph.configs.types import Config
from graph.context import Context, GraphInfo
from graph.keys import ApiKey
from graph.limits import LimitState
from graph.models import Model
from graph.node import Node
from graph.prices import rule_of
from graph.scopes import Guarded
from resolvers import api_keys, configs, history, ids, models, prices
from resolvers.batches import submitting
from resolvers.errors import NotFoundError
from resolvers.principal import Scope
from resolvers.types import CompletionRef, ConfigBy

Id = Annotated[strawberry.ID, strawberry.argument(description="The object's id.")]


@strawberry.type(description="Who asks: what the token says.")
class Viewer:
    subject: str = strawberry.field(description="The token's subject; completions are booked under it.")
    organisation: str = strawberry.field(description="Whose data the token opens.")
    scopes: list[str] = strawberry.field(description="What the token may do, as `@requiresScope` names it.")
    token_expires_at: datetime | None = strawberry.field(
        description="From then on the token or key is refused, UTC; null where a key has no end."
    )

    @strawberry.field(
        description="How the limits stand that one's calls may meet: the organisation's, one's own key's, models'."
    )
    async def limits(self, info: GraphInfo) -> list[LimitState] | None:
        context = info.context
        return [LimitState.of(state) for state in await context.services.limit_rules.states_for(context.principal)]


@strawberry.type
class ViewerQueries:
    @strawberry.field(description="Who asks.", extensions=[Guarded(Scope.COMPLETIONS_READ)])
    async def viewer(self, info: GraphInfo) -> Viewer | None:
        principal = info.context.principal
        return Viewer(
            subject=principal.subject,
            organisation=principal.organisation,
            scopes=sorted(principal.scopes),
            token_expires_at=None if isinf(principal.expires_at) else datetime.fromtimestamp(principal.expires_at, UTC),
        )

    @strawberry.field(
        description="An object by its id. NOT_FOUND where the organisation has none such. Configs, price "
        "rules, API keys and batches need the scope that reads them, too.",
        extensions=[Guarded(Scope.COMPLETIONS_READ)],
    )
    async def node(self, info: GraphInfo, id: Id) -> Node | None:  # noqa: A002  # the argument's name
        for prefix, find in _FINDERS.items():
            if id.startswith(prefix):
                return await find(info.context, id)
        raise NotFoundError("no such object")


async def _completion(context: Context, completion_id: str) -> Node:
    ref = CompletionRef(id=completion_id)
    return record_of(await history.completion(context.services.ledger, context.principal, ref))


async def _model(context: Context, model_id: str) -> Node:
    return Model.of(models.model(await context.services.vendors_of(context.principal), model_id))


async def _config(context: Context, config_id: str) -> Node:
    context.principal.require(Scope.CONFIGS_READ)
    return Config.of(await context.services.configs.get(context.principal, ConfigBy(id=config_id)))


async def _price_rule(context: Context, rule_id: str) -> Node:
    context.principal.require(Scope.PRICES_READ)
    return rule_of(await context.services.prices.get(context.principal, rule_id))


async def _api_key(context: Context, key_id: str) -> Node:
    context.principal.require(Scope.KEYS_READ)
    return ApiKey.of(await context.services.api_keys.get(context.principal, key_id))


async def _batch(context: Context, batch_id: str) -> Node:
    context.principal.require(Scope.BATCHES_READ)
    return Batch.of(await context.services.batches.get(context.principal, batch_id))


_FINDERS: Mapping[str, Callable[[Context, str], Awaitable[Node]]] = {
    ids.COMPLETION_PREFIX: _completion,
    models.ID_PREFIX: _model,
    configs.ID_PREFIX: _config,
    prices.ID_PREFIX: _price_rule,
    api_keys.ID_PREFIX: _api_key,
    submitting.ID_PREFIX: _batch,
}
