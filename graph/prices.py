"""An organisation's own prices: overrides and discounts."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Self

import strawberry

from graph.completions.inputs import aware
from graph.completions.types import PageInfo
from graph.context import GraphInfo
from graph.inputs import planned
from graph.node import Node
from graph.scopes import Guarded
from persistence import price_records as records
from resolvers import prices
from resolvers.principal import Scope

_SINCE = "From this time on, this moment included. Not past; absent, from now on."
_UNTIL = "Up to this moment, which is no longer included; absent, for good."
_MODEL = "The vendor's name of the model, exactly as completions give it; absent, every model of the provider."


@strawberry.interface(
    description="What an organisation pays where that is not the published price. The moment that a completion was "
    "asked for decides which rule it is priced by: an override before any discount; the rule for the model before the "
    "one for its provider, and that before the one for all providers; then the one that began last; then the one made "
    "last. "
    "An override also stands above a cost that the vendor itself tells; a discount does not touch that. What a vendor "
    "bills by another service tier than its standard one has no known cost under either. Nothing of a rule changes but "
    "its end, so that the rules explain what was booked."
)
class PriceRule(Node):
    id: strawberry.ID = strawberry.field(description="Begins with prc_, and sorts by time. Bookings name it.")
    provider: str | None = strawberry.field(description="Whose models; null for all providers, as a discount may be.")
    model: str | None = strawberry.field(description="The vendor's name of the model; null for all of the provider's.")
    since: datetime = strawberry.field(description="From this time on, this moment included, UTC.")
    until: datetime | None = strawberry.field(
        description="Up to this moment, which is no longer included, UTC; null for good. One that is not after since "
        "says that the rule never holds."
    )
    note: str | None = strawberry.field(description="As it was given.")
    created_at: datetime = strawberry.field(description="When it was made, UTC.")
    created_by: str = strawberry.field(description="The subject of the token that made it.")


@strawberry.type(description="Prices of one's own, in USD for a million tokens.")
class PriceOverride(PriceRule):
    input: Decimal = strawberry.field(description="Input that is neither read from a cache nor written to one.")
    output: Decimal = strawberry.field(description="Output without reasoning.")
    cached_input: Decimal | None = strawberry.field(
        description="Input read from the vendor's prompt cache; null where it costs what other input does."
    )
    cache_write: Decimal | None = strawberry.field(
        description="Input written to the vendor's prompt cache; null where it costs what other input does."
    )
    reasoning: Decimal | None = strawberry.field(
        description="Output spent on reasoning; null where it costs what other output does."
    )

    @classmethod
    def of(cls, rule: records.PriceRule, terms: records.Override) -> Self:
        return cls(
            **_shared(rule),
            input=terms.input,
            output=terms.output,
            cached_input=terms.cached_input,
            cache_write=terms.cache_write,
            reasoning=terms.reasoning,
        )


@strawberry.type(description="A share off the published prices.")
class PriceDiscount(PriceRule):
    percent: Decimal = strawberry.field(description="How much less is paid: above 0 and up to 100.")

    @classmethod
    def of(cls, rule: records.PriceRule, terms: records.Discount) -> Self:
        return cls(**_shared(rule), percent=terms.percent)


def rule_of(rule: records.PriceRule) -> PriceRule:
    terms = rule.terms
    if isinstance(terms, records.Override):
        return PriceOverride.of(rule, terms)
    return PriceDiscount.of(rule, terms)


def _shared(rule: records.PriceRule) -> dict[str, Any]:
    return {
        "id": strawberry.ID(rule.id),
        "provider": rule.provider,
        "model": rule.model,
        "since": rule.since,
        "until": rule.until,
        "note": rule.note,
        "created_at": rule.created_at,
        "created_by": rule.created_by,
    }


@strawberry.type(description="A price rule and its place in the list.")
class PriceRuleEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: PriceRule = strawberry.field(description="The rule.")


@strawberry.type(description="A page of price rules, newest first (Relay).")
class PriceRuleConnection:
    edges: list[PriceRuleEdge] = strawberry.field(description="The page.")
    nodes: list[PriceRule] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: prices.PricePage, after: str | None) -> Self:
        edges = [PriceRuleEdge(cursor=cursor, node=rule_of(rule)) for cursor, rule in page.rules]
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
@strawberry.input(description="Which price rules to list. All conditions hold at once.")
class PriceFilter:
    provider: str | None = strawberry.field(default=strawberry.UNSET, description="Made for this provider.")
    model: str | None = strawberry.field(
        default=strawberry.UNSET, description="Made for this model, by the vendor's name."
    )
    active_at: datetime | None = strawberry.field(default=strawberry.UNSET, description="Holding at this time.")

    def conditions(self) -> records.PriceFilter:
        """Raises BadUserInputError."""
        active_at = aware(self.active_at, ("filter", "activeAt"))
        return records.PriceFilter(self.provider, self.model, active_at)


@planned
@strawberry.input(description="Prices of one's own, 0 to 1000000 USD for a million tokens.")
class CreatePriceOverrideInput:
    provider: str = strawberry.field(description="The provider's name.")
    model: str | None = strawberry.field(default=strawberry.UNSET, description=_MODEL)
    input: Decimal = strawberry.field(description="Input that is neither read from a cache nor written to one.")
    output: Decimal = strawberry.field(description="Output without reasoning.")
    cached_input: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="Input read from the vendor's prompt cache; absent, as other input."
    )
    cache_write: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="Input written to the vendor's prompt cache; absent, as other input."
    )
    reasoning: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="Output spent on reasoning; absent, as other output."
    )
    since: datetime | None = strawberry.field(default=strawberry.UNSET, description=_SINCE)
    until: datetime | None = strawberry.field(default=strawberry.UNSET, description=_UNTIL)
    note: str | None = strawberry.field(
        default=strawberry.UNSET, description="For people, such as a contract's number. Up to 1000 characters."
    )

    def terms(self) -> records.Override:
        return records.Override(self.input, self.output, self.cached_input, self.cache_write, self.reasoning)


@planned
@strawberry.input(description="A discount of one's own.")
class CreateDiscountInput:
    provider: str | None = strawberry.field(
        default=strawberry.UNSET, description="The provider's name; absent, all providers."
    )
    model: str | None = strawberry.field(default=strawberry.UNSET, description=_MODEL)
    percent: Decimal = strawberry.field(description="How much less is paid: above 0 and up to 100.")
    since: datetime | None = strawberry.field(default=strawberry.UNSET, description=_SINCE)
    until: datetime | None = strawberry.field(default=strawberry.UNSET, description=_UNTIL)
    note: str | None = strawberry.field(
        default=strawberry.UNSET, description="For people, such as a contract's number. Up to 1000 characters."
    )

    def terms(self) -> records.Discount:
        return records.Discount(self.percent)


def _new_rule(
    asked: CreatePriceOverrideInput | CreateDiscountInput, terms: records.Override | records.Discount
) -> prices.NewRule:
    """Raises BadUserInputError."""
    return prices.NewRule(
        terms=terms,
        provider=asked.provider,
        model=asked.model,
        since=aware(asked.since, ("input", "since")),
        until=aware(asked.until, ("input", "until")),
        note=asked.note,
    )


@planned
@strawberry.input(description="Which price rule is to end, and when.")
class EndPriceInput:
    id: strawberry.ID = strawberry.field(description="The rule.")
    at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="The rule's new end: the first moment without it. Not past; absent, now."
    )


First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
Filter = Annotated[PriceFilter | None, strawberry.argument(description="Which price rules.")]
NewOverride = Annotated[CreatePriceOverrideInput, strawberry.argument(description="The prices, and where they hold.")]
NewDiscount = Annotated[CreateDiscountInput, strawberry.argument(description="The discount, and where it holds.")]
End = Annotated[EndPriceInput, strawberry.argument(description="Which rule, and when.")]


@strawberry.type
class PriceQueries:
    @strawberry.field(
        description="The organisation's price rules, newest first, ended ones too.",
        extensions=[Guarded(Scope.PRICES_READ)],
    )
    async def prices(
        self,
        info: GraphInfo,
        first: First = 50,
        after: After = None,
        filter: Filter = None,  # noqa: A002  # the argument's name
    ) -> PriceRuleConnection | None:
        context = info.context
        where = records.PriceFilter() if filter is None else filter.conditions()
        page = await context.services.prices.page(context.principal, first=first, after=after, where=where)
        return PriceRuleConnection.of(page, after)


@strawberry.type
class PriceMutations:
    @strawberry.mutation(
        description="Sets prices of one's own. Completions asked for from then on are booked by them; where several "
        "servers run, the others follow within a minute. CONFLICT where 1000 rules have not ended.",
        extensions=[Guarded(Scope.PRICES_WRITE)],
    )
    async def create_price_override(
        self,
        info: GraphInfo,
        input: NewOverride,  # noqa: A002  # the argument's name
    ) -> PriceOverride | None:
        context = info.context
        terms = input.terms()
        return PriceOverride.of(await context.services.prices.create(context.principal, _new_rule(input, terms)), terms)

    @strawberry.mutation(
        description="Sets a discount off the published prices; the rest is as with createPriceOverride.",
        extensions=[Guarded(Scope.PRICES_WRITE)],
    )
    async def create_discount(
        self,
        info: GraphInfo,
        input: NewDiscount,  # noqa: A002  # the argument's name
    ) -> PriceDiscount | None:
        context = info.context
        terms = input.terms()
        return PriceDiscount.of(await context.services.prices.create(context.principal, _new_rule(input, terms)), terms)

    @strawberry.mutation(
        description="Ends a price rule, or moves an end that is still to come; a rule that has not begun by then will "
        "never hold. What is booked stays as it is. CONFLICT for a rule that has ended.",
        extensions=[Guarded(Scope.PRICES_WRITE)],
    )
    async def end_price(
        self,
        info: GraphInfo,
        input: End,  # noqa: A002  # the argument's name
    ) -> PriceRule | None:
        context = info.context
        at = aware(input.at, ("input", "at"))
        return rule_of(await context.services.prices.end(context.principal, input.id, at))
