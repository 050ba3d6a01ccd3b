"""What can be called here: providers with their health, and models with what is known of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from enum import Enum
from typing import Annotated, Self

import strawberry

from graph.completions.types import PageInfo
from graph.context import GraphInfo
from graph.cost import ListSize
from graph.inputs import planned
from graph.node import Node
from graph.scopes import Guarded
from providers import capabilities, prices
from resolvers import health, models
from resolvers import prices as own
from resolvers.principal import Scope


@strawberry.enum(
    description="Whether calls go through. A circuit opens on consecutive failures, and on consecutive refusals for a "
    "vendor's limit."
)
class CircuitState(Enum):
    CLOSED = strawberry.enum_value("CLOSED", description="Calls go through.")
    HALF_OPEN = strawberry.enum_value("HALF_OPEN", description="One call goes through, and decides.")
    OPEN = strawberry.enum_value("OPEN", description="No call goes through for a few seconds.")


@strawberry.enum(description="Whether a key is used.")
class ProviderKeyState(Enum):
    READY = strawberry.enum_value("ready", description="By its weight among the others.")
    LIMITED = strawberry.enum_value(
        "limited", description="It was over its limit, and rests as long as the vendor asks."
    )
    REFUSED = strawberry.enum_value(
        "refused", description="The vendor refused it, or nobody has paid for it: it rests five minutes."
    )


@strawberry.type(description="One of the keys that this deployment calls a provider by. Nothing of it is told.")
class ProviderKeyHealth:
    name: str = strawberry.field(description='Its place in the provider\'s setting: "1" is the first.')
    state: ProviderKeyState = strawberry.field(description="Whether it is used. The only key of a provider always is.")


@strawberry.type(description="A provider, and how it does: seen by this server, over all organisations.")
class Provider:
    name: str = strawberry.field(description='As it stands before the slash of a model: "openai".')
    configured: bool = strawberry.field(description="True where it can be called here: it has a key.")
    circuit: CircuitState = strawberry.field(description="The worst of its models' circuits.")
    attempts: int = strawberry.field(
        description="How many calls of the last five minutes the figures are of, up to 500."
    )
    error_rate: float | None = strawberry.field(
        description="The share of these that failed by the provider's own fault, 0 to 1; null where there are none."
    )
    latency_ms: int | None = strawberry.field(
        description="The median of the calls that were answered, in milliseconds; null where there are none."
    )
    keys: list[ProviderKeyHealth] = strawberry.field(description="The keys that it is called by.")

    @classmethod
    def of(cls, provider: health.ProviderHealth) -> Self:
        return cls(
            name=provider.name,
            configured=provider.configured,
            circuit=CircuitState(provider.circuit.name),
            attempts=provider.attempts,
            error_rate=provider.error_rate,
            latency_ms=provider.latency_ms,
            keys=[ProviderKeyHealth(name=name, state=ProviderKeyState(state.value)) for name, state in provider.keys],
        )


@strawberry.enum(description="What a model can do.")
class ModelCapability(Enum):
    TOOLS = strawberry.enum_value("tools", description="It calls tools.")
    IMAGES = strawberry.enum_value("images", description="It reads images.")
    STRUCTURED_OUTPUT = strawberry.enum_value("structured_output", description="It keeps to a JSON Schema.")
    REASONING = strawberry.enum_value("reasoning", description="It reasons before it answers, or can.")


@strawberry.type(description="Published prices, in USD for a million tokens; null where none is published.")
class ModelPrices:
    input: Decimal | None = strawberry.field(description="Input that is neither read from a cache nor written to one.")
    cached_input: Decimal | None = strawberry.field(description="Input read from the vendor's prompt cache.")
    cache_write: Decimal | None = strawberry.field(description="Input written to the vendor's prompt cache.")
    output: Decimal | None = strawberry.field(description="Output without reasoning.")
    reasoning: Decimal | None = strawberry.field(description="Output spent on reasoning.")
    tiered: bool = strawberry.field(description="True where a long input costs more; these are the lowest prices.")
    version: str = strawberry.field(description="The edition of the price table.")

    @classmethod
    def of(cls, published: prices.ListPrices) -> Self:
        return cls(
            input=published.input,
            cached_input=published.cache_read,
            cache_write=published.cache_write,
            output=published.output,
            reasoning=published.reasoning,
            tiered=published.tiered,
            version=prices.PRICE_VERSION,
        )


@strawberry.type(description="What one's organisation pays, in USD for a million tokens; null where nothing is known.")
class OrganisationPrices:
    input: Decimal | None = strawberry.field(description="Input that is neither read from a cache nor written to one.")
    cached_input: Decimal | None = strawberry.field(description="Input read from the vendor's prompt cache.")
    cache_write: Decimal | None = strawberry.field(description="Input written to the vendor's prompt cache.")
    output: Decimal | None = strawberry.field(description="Output without reasoning.")
    reasoning: Decimal | None = strawberry.field(description="Output spent on reasoning.")
    tiered: bool = strawberry.field(description="True where a long input costs more; these are the lowest prices.")
    rule: strawberry.ID = strawberry.field(description="The PriceRule that says so.")

    @classmethod
    def of(cls, paid: own.OrganisationPrices) -> Self:
        each = paid.prices
        return cls(
            input=each.input,
            cached_input=each.cache_read,
            cache_write=each.cache_write,
            output=each.output,
            reasoning=each.reasoning,
            tiered=each.tiered,
            rule=strawberry.ID(paid.rule),
        )


@strawberry.type(description="A model that the price table lists. Others can be called all the same.")
class Model(Node):
    id: strawberry.ID = strawberry.field(description="Begins with mdl_.")
    model: str = strawberry.field(description='"provider/model", as completions take it.')
    provider: str = strawberry.field(description="The provider's name.")
    name: str = strawberry.field(description="The vendor's name of the model.")
    context_window: int | None = strawberry.field(description="In tokens; null where the price table has none.")
    max_output_tokens: int | None = strawberry.field(
        description="The most tokens that it writes in one answer; null where `source` is."
    )
    capabilities: list[ModelCapability] | None = strawberry.field(
        description="What `source` says that it can do; null where that is."
    )
    source: str | None = strawberry.field(
        description="The vendor's page that output limit and capabilities are from; null where none is on record."
    )
    prices: ModelPrices | None = strawberry.field(description="In force now; null where none are published.")

    @strawberry.field(
        description="In force now for one's organisation; null where it pays the published prices, or what the vendor "
        "tells.",
        extensions=[Guarded(Scope.PRICES_READ)],
    )
    async def organisation_prices(self, info: GraphInfo) -> OrganisationPrices | None:
        context = info.context
        paid = await context.services.prices.paid(context.principal, self.provider, self.name)
        return None if paid is None else OrganisationPrices.of(paid)

    @classmethod
    def of(cls, model: models.Model) -> Self:
        facts = model.facts
        return cls(
            id=strawberry.ID(model.id),
            model=f"{model.provider}/{model.name}",
            provider=model.provider,
            name=model.name,
            context_window=model.context_window,
            max_output_tokens=facts.max_output_tokens if facts else None,
            capabilities=[ModelCapability(each.value) for each in sorted(facts.capabilities)] if facts else None,
            source=facts.source if facts else None,
            prices=ModelPrices.of(model.prices) if model.prices else None,
        )


@strawberry.type(description="A model and its place in the list.")
class ModelEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: Model = strawberry.field(description="The model.")


@strawberry.type(description="A page of models, by provider and name (Relay).")
class ModelConnection:
    edges: list[ModelEdge] = strawberry.field(description="The page.")
    nodes: list[Model] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: models.ModelPage, after: str | None) -> Self:
        edges = [ModelEdge(cursor=cursor, node=Model.of(model)) for cursor, model in page.models]
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
@strawberry.input(description="Which models to list. All conditions hold at once.")
class ModelFilter:
    provider: str | None = strawberry.field(default=strawberry.UNSET, description="Of this provider.")
    search: str | None = strawberry.field(
        default=strawberry.UNSET, description='"provider/model" contains this, in upper or lower case.'
    )
    capability: ModelCapability | None = strawberry.field(
        default=strawberry.UNSET, description="Known to be able to do this."
    )

    def conditions(self) -> models.ModelFilter:
        wanted = self.capability
        return models.ModelFilter(
            provider=self.provider,
            search=self.search,
            capability=None if wanted is None else capabilities.ModelCapability[wanted.name],
        )


First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
Filter = Annotated[ModelFilter | None, strawberry.argument(description="Which models.")]


@strawberry.type
class ModelQueries:
    @strawberry.field(
        description="Every provider that this server knows, by name, with its health.",
        extensions=[Guarded(Scope.COMPLETIONS_READ)],
        directives=[ListSize(assumed_size=10)],
    )
    async def providers(self, info: GraphInfo) -> list[Provider] | None:
        return [Provider.of(each) for each in info.context.services.health.providers()]

    @strawberry.field(
        description="The models of the providers that can be called here, as far as the price table lists them.",
        extensions=[Guarded(Scope.COMPLETIONS_READ)],
    )
    async def models(
        self,
        info: GraphInfo,
        first: First = 50,
        after: After = None,
        filter: Filter = None,  # noqa: A002  # the argument's name
    ) -> ModelConnection | None:
        where = models.ModelFilter() if filter is None else filter.conditions()
        vendors = await info.context.services.vendors_of(info.context.principal)
        return ModelConnection.of(models.models(vendors, first=first, after=after, where=where), after)


@strawberry.type
class ModelSubscriptions:
    @strawberry.subscription(
        description="Each provider as it is now, then again whenever its health has changed, within a second. "
        "A reader that is slow misses states, never the last one.",
        extensions=[Guarded(Scope.COMPLETIONS_READ)],
    )
    async def provider_health(self, info: GraphInfo) -> AsyncGenerator[Provider, None]:
        async with aclosing(info.context.services.health.changes()) as changes:
            async for each in changes:
                yield Provider.of(each)
