"""Every root field is closed without its scope, and open with that scope alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    is_required_input_field,
    parse,
    validate,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter

from graph.schema import build_schema
from graph.scopes import RequiresScope
from resolvers.budget_alerts import BudgetAlert
from resolvers.principal import Scope

from .stage import EVERY_SCOPE, Stage, refusals

DEFINITION = GraphQLCoreConverter.DEFINITION_BACKREF
SCHEMA = build_schema()._schema
NOW = datetime.now(UTC)
ALERT = BudgetAlert("acme", "organisation", "", "usd_per_day", 50, Decimal(10), Decimal(5), NOW, NOW)
LITERALS = {
    "String": '"alpha/a-1"',
    "ID": '"cmp_1"',
    "Int": "1",
    "Float": "0.5",
    "Boolean": "true",
    "BigInt": "1",
    "Decimal": '"1"',
    "DateTime": '"2026-01-01T00:00:00Z"',
    "JSON": "{}",
}


@dataclass(frozen=True)
class RootField:
    operation: str
    name: str
    field: GraphQLField

    def __str__(self) -> str:
        return f"{self.operation} {self.name}"

    @property
    def scope(self) -> str:
        definition = self.field.extensions[DEFINITION]
        (directive,) = (each for each in definition.directives if isinstance(each, RequiresScope))
        return directive.scope

    @property
    def document(self) -> str:
        arguments = required(self.field.args)
        given = f"({arguments})" if arguments else ""
        selection = " { __typename }" if is_composite_type(get_named_type(self.field.type)) else ""
        return f"{self.operation} {{ {self.name}{given}{selection} }}"


def required(places: dict[str, GraphQLArgument] | dict[str, GraphQLInputField]) -> str:
    """A literal for everything that has to be given."""
    return ", ".join(
        f"{name}: {literal(place.type)}"
        for name, place in places.items()
        if (is_required_argument(place) if isinstance(place, GraphQLArgument) else is_required_input_field(place))
    )


def literal(kind: Any) -> str:
    if is_non_null_type(kind):
        return literal(kind.of_type)
    if is_list_type(kind):
        return f"[{literal(kind.of_type)}]"
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    if isinstance(kind, GraphQLInputObjectType):
        if kind.extensions[DEFINITION].is_one_of:
            name, field = next(iter(kind.fields.items()))
            return f"{{ {name}: {literal(field.type)} }}"
        return f"{{ {required(kind.fields)} }}"
    return LITERALS[kind.name]


def root_fields() -> list[RootField]:
    roots = {"query": SCHEMA.query_type, "mutation": SCHEMA.mutation_type, "subscription": SCHEMA.subscription_type}
    return [
        RootField(operation, name, field)
        for operation, root in roots.items()
        if root is not None
        for name, field in root.fields.items()
    ]


EVERY_FIELD = pytest.mark.parametrize("field", root_fields(), ids=str)


@EVERY_FIELD
async def test_without_its_scope_a_field_is_forbidden(stage: Stage, field: RootField) -> None:
    _, errors = await stage.ask(field.document, scopes=EVERY_SCOPE - {field.scope})
    assert refusals(errors) == [("FORBIDDEN", None)]
    assert field.scope in errors[0]["message"]
    assert stage.scene.alpha.calls == []


@EVERY_FIELD
async def test_its_scope_is_all_that_a_field_needs(stage: Stage, field: RootField) -> None:
    asking = asyncio.create_task(stage.ask(field.document, scopes={field.scope}))
    while not asking.done():
        await stage.scene.services.alerts.publish(ALERT)  # what waits for one gets it
        await asyncio.wait([asking], timeout=0.05)
    _, errors = await asking
    assert "FORBIDDEN" not in dict(refusals(errors))
    assert validate(SCHEMA, parse(field.document)) == [], "else it was refused before any field ran"


def test_a_scope_is_one_that_tokens_carry() -> None:
    assert {field.scope for field in root_fields()} <= {scope.value for scope in Scope}
