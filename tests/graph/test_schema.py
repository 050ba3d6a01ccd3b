"""The schema is a product: described throughout, guarded at its roots, and the same as the file that clients read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    parse,
)
from graphql.language import ObjectTypeDefinitionNode, StringValueNode

from graph import schema as product
from resolvers.principal import Scope

FILE = Path(__file__).parents[2] / "schema.graphql"
ROOTS = ("Query", "Mutation", "Subscription")


@pytest.fixture(scope="module")
def sdl() -> str:
    return product.build_schema().as_str() + "\n"


@pytest.fixture(scope="module")
def schema(sdl: str) -> GraphQLSchema:
    return build_schema(sdl)


def described(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Every type, field, argument and enum value with its description."""
    for name, kind in schema.type_map.items():
        if name.startswith("__") or name in ("String", "Int", "Float", "Boolean", "ID"):
            continue
        yield name, kind.description
        if isinstance(kind, GraphQLEnumType):
            yield from ((f"{name}.{value}", each.description) for value, each in kind.values.items())
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            yield from ((f"{name}.{field}", each.description) for field, each in kind.fields.items())
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field, each in kind.fields.items():
                yield from ((f"{name}.{field}({arg})", given.description) for arg, given in each.args.items())


def test_the_file_is_what_the_code_says(sdl: str) -> None:
    assert FILE.read_text() == sdl, "make schema"


def test_everything_has_a_description(schema: GraphQLSchema) -> None:
    everything = dict(described(schema))
    assert len(everything) > 100
    assert [place for place, text in everything.items() if not text] == []


def test_every_root_field_declares_a_scope_that_exists(sdl: str) -> None:
    guarded = {}
    for definition in parse(sdl).definitions:
        if isinstance(definition, ObjectTypeDefinitionNode) and definition.name.value in ROOTS:
            for field in definition.fields:
                (directive,) = (each for each in field.directives if each.name.value == "requiresScope")
                value = directive.arguments[0].value
                assert isinstance(value, StringValueNode)
                guarded[field.name.value] = Scope(value.value)
    assert guarded["complete"] is Scope.COMPLETIONS_WRITE
    assert guarded["completionStream"] is Scope.COMPLETIONS_WRITE


def test_root_fields_of_queries_and_mutations_are_nullable(schema: GraphQLSchema) -> None:
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    for root in (schema.query_type, schema.mutation_type):
        for name, field in root.fields.items():
            assert not isinstance(field.type, GraphQLNonNull), f"{root.name}.{name} would take its siblings with it"
