"""The schema as a list of places where something can be named, and the operations that name it there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)

from graph.schema import build_schema

SCHEMA: GraphQLSchema = build_schema()._schema
ROOTS = {"Query": "query", "Mutation": "mutation", "Subscription": "subscription"}
NO_REFERENCES = frozenset({"Boolean", "Int", "Float", "BigInt", "Decimal", "DateTime"})
"""Scalars that name nothing by themselves; an enum's values are everybody's. Every other scalar has to be declared."""


@dataclass(frozen=True)
class Place:
    """Where a text or an id is given: `path` leads to it, from the argument on, in a field of the type `on`."""

    on: str
    field: str
    path: tuple[str, ...]
    names: tuple[str, ...]
    """What a table may know it by, the most particular first: Query.completions.filter.label.name,
    CompletionFilter.label.name, LabelInput.name."""

    def __str__(self) -> str:
        return f"{self.on}.{self.field}({'.'.join(self.path)})"

    @property
    def root(self) -> str:
        return f"{self.on}.{self.field}"


def places() -> Iterator[Place]:
    """All of them, those of fields that are no root fields too."""
    for kind in SCHEMA.type_map.values():
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not kind.name.startswith("__"):
            for field, made in kind.fields.items():
                for name, argument in made.args.items():
                    for path, names in _leaves(argument.type, (name,), (f"{kind.name}.{field}.{name}",)):
                        yield Place(kind.name, field, path, names)


def _leaves(
    kind: GraphQLInputType, path: tuple[str, ...], names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    named = get_named_type(kind)
    if isinstance(named, GraphQLInputObjectType):
        if any(name.startswith(f"{named.name}.") for name in names):
            return  # within itself: the same places once more
        for name, field in named.fields.items():
            longer = (*(f"{each}.{name}" for each in names), f"{named.name}.{name}")
            yield from _leaves(field.type, (*path, name), longer)
    elif isinstance(named, GraphQLScalarType) and named.name not in NO_REFERENCES:
        yield path, names


def outputs() -> Iterator[str]:
    """Every field of an answer that is of type ID, or whose name ends like one's."""
    for kind in SCHEMA.type_map.values():
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                if get_named_type(field.type).name == "ID" or name == "id" or name.endswith("Id"):
                    yield f"{kind.name}.{name}"


def node_types() -> Iterator[str]:
    """The types that `node` may find."""
    node = SCHEMA.type_map["Node"]
    assert is_abstract_type(node)
    yield from (kind.name for kind in SCHEMA.get_possible_types(node))


PAGE, PAGE_WITHIN = 15, 2
"""With all that each tells, more would cost more than an operation may."""


def document(on: str, field: str, given: Iterable[str], depth: int) -> str:
    """An operation of this root field alone, the arguments in `given` as variables of the same names, with all that it
    tells."""
    made = _fields(on)[field]
    declared = ", ".join(f"${name}: {made.args[name].type}" for name in given)
    named = [f"{name}: ${name}" for name in given]
    passed = ", ".join([*named, f"first: {PAGE}"] if "first" in made.args and "first" not in given else named)
    return (
        f"{ROOTS[on]}{f'({declared})' if declared else ''} "
        f"{{ {field}{f'({passed})' if passed else ''} {selection(made.type, depth)} }}"
    )


def selection(kind: GraphQLOutputType, depth: int) -> str:
    """Every field that needs no argument, so deep; of an abstract type, those of each type that it may be."""
    named = get_named_type(kind)
    if is_leaf_type(named):
        return ""
    parts = ["__typename"]
    if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
        parts += _selected(named, depth)
    if is_abstract_type(named):
        known = set(getattr(named, "fields", {}))
        for each in SCHEMA.get_possible_types(named):
            more = [f"{each.name}_{field}: {text}" for field, text in _by_name(each, depth) if field not in known]
            parts.append(f"... on {each.name} {{ {' '.join(['__typename', *more])} }}")
    return f"{{ {' '.join(parts)} }}"


def _selected(kind: GraphQLObjectType | GraphQLInterfaceType, depth: int) -> list[str]:
    return [text for _, text in _by_name(kind, depth)]


def _by_name(kind: GraphQLObjectType | GraphQLInterfaceType, depth: int) -> Iterator[tuple[str, str]]:
    for name, field in kind.fields.items():
        if any(is_required_argument(argument) for argument in field.args.values()):
            continue
        if is_leaf_type(get_named_type(field.type)):
            yield name, name
        elif depth > 0 and not (kind.name.endswith("Edge") and name == "node"):  # the connection's `nodes` has it
            page = f"(first: {PAGE_WITHIN})" if "first" in field.args else ""
            yield name, f"{name}{page} {selection(field.type, depth - 1)}"


def arguments(on: str, field: str, path: tuple[str, ...], value: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The field's arguments with `value` at `path`. What else is required, and what `defaults` has for a whole input
    type, is filled in."""
    given: dict[str, Any] = {}
    for name, argument in _fields(on)[field].args.items():
        if path[:1] == (name,):
            given[name] = _valued(argument.type, path[1:], value, defaults)
        elif is_required_argument(argument):
            given[name] = _filled(f"{on}.{field}.{name}", argument.type, defaults)
    return given


def _valued(kind: GraphQLInputType, path: tuple[str, ...], value: str, defaults: Mapping[str, Any]) -> Any:
    nullable = get_nullable_type(kind)
    if isinstance(nullable, GraphQLList):
        return [_valued(nullable.of_type, path, value, defaults)]
    if isinstance(nullable, GraphQLInputObjectType):
        rest = {} if nullable.is_one_of else _whole(nullable, defaults, apart_from=path[0])
        return rest | {path[0]: _valued(nullable.fields[path[0]].type, path[1:], value, defaults)}
    return value


def _filled(name: str, kind: GraphQLInputType, defaults: Mapping[str, Any]) -> Any:
    if name in defaults:
        return defaults[name]
    nullable = get_nullable_type(kind)
    if isinstance(nullable, GraphQLList):
        return [_filled(name, nullable.of_type, defaults)]
    if isinstance(nullable, GraphQLInputObjectType) and not nullable.is_one_of:
        return _whole(nullable, defaults)
    whole = get_named_type(kind).name
    assert whole in defaults, f"{name} is required: enter it among DEFAULTS in references.py"
    return defaults[whole]


def _whole(kind: GraphQLInputObjectType, defaults: Mapping[str, Any], apart_from: str = "") -> dict[str, Any]:
    usual: dict[str, Any] = dict(defaults.get(kind.name, {}))
    for name, field in kind.fields.items():
        if is_required_input_field(field) and name != apart_from and name not in usual:
            usual[name] = _filled(f"{kind.name}.{name}", field.type, defaults)
    return usual


def _fields(on: str) -> Mapping[str, GraphQLField]:
    kind = SCHEMA.type_map[on]
    assert isinstance(kind, GraphQLObjectType)
    return dict(kind.fields)


def mutations() -> Iterator[str]:
    yield from _fields("Mutation")


def lists() -> Iterator[str]:
    """The root queries that tell without being asked for something."""
    for name, field in _fields("Query").items():
        if not any(is_required_argument(argument) for argument in field.args.values()):
            yield name
