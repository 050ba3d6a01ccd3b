"""Plans: what completes a value by attribute access alone, compiled once per selection.

A plan covers selections of *plain* fields: Strawberry fields without resolver, extensions or permissions. It raises
wherever the answer would not be a plain value (a null in a non-null place, a scalar that can't be written, an
awaitable, a class that the schema doesn't name); graphql-core then completes the same value again, which costs nothing
but time, as plain fields have no resolver to run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from operator import is_
from typing import Any
from uuid import UUID
from weakref import ref

from graphql import (
    FragmentDefinitionNode,
    GraphQLAbstractType,
    GraphQLBoolean,
    GraphQLError,
    GraphQLField,
    GraphQLID,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    SelectionSetNode,
    Undefined,
    VariableNode,
    is_abstract_type,
    is_interface_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetails, FieldDetailsList
from graphql.pyutils import is_awaitable
from graphql.type.introspection import TypeNameMetaFieldDef
from strawberry.schema.schema_converter import CustomGraphQLEnumType, GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.cast import get_strawberry_type_cast
from strawberry.types.field import StrawberryField

Plan = Callable[[Any], Any]
"""Completes one value. Any exception means: complete it without a plan."""

Collect = Callable[[GraphQLObjectType, FieldDetailsList], CollectedFields]

MAX_FIELDS = 300
"""Of one plan. A larger selection is left to graphql-core, which visits only what the data reaches."""

MAX_PLANS = 32
"""Of one operation, over all its positions and all values of its @include and @skip."""

_CONDITIONS = frozenset({"include", "skip"})
_DEFINITION = GraphQLCoreConverter.DEFINITION_BACKREF
_CACHE = "graph.plan.PlanCache"

# Neither exceptions nor awaitables, for sure: the check that every other value needs is left out.
_SAFE = frozenset({str, int, float, bool, list, tuple, dict, datetime, date, time, Decimal, UUID})


class UnplannedError(Exception):
    """No plan covers this selection, or this value. It never leaves the executor."""


class _Never:
    """No value is of this type."""


_VERBATIM: dict[GraphQLLeafType, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
"""Built-in scalars that write a value of exactly this type as it is."""


@dataclass(frozen=True, slots=True)
class _Position:
    """Where values go: one of type `verbatim` as it is, any other through `plan`."""

    verbatim: type
    plan: Plan


class Compiler:
    """Compiles selections of one operation. `collect` gives the sub-fields of a list of fields for an object type."""

    def __init__(self, schema: GraphQLSchema, collect: Collect) -> None:
        self._schema = schema
        self._collect = collect
        self._fields_left = MAX_FIELDS
        self._objects: dict[tuple[object, ...], Plan] = {}

    def compile(self, type_: GraphQLOutputType, details: FieldDetailsList) -> Plan:
        """The plan of a field's value, lists and nulls included. Raises UnplannedError."""
        if any(not is_usual(detail) for detail in details):
            raise UnplannedError
        return self._position(type_, details).plan

    def _position(self, type_: GraphQLOutputType, details: FieldDetailsList) -> _Position:
        required = is_non_null_type(type_)
        inner: Any = type_.of_type if is_non_null_type(type_) else type_
        verbatim: type = _Never
        if is_list_type(inner):
            plan = _list(self._position(inner.of_type, details).plan)
        elif is_leaf_type(inner):
            verbatim = _VERBATIM.get(inner, _Never)
            plan = _leaf(inner)
        elif is_abstract_type(inner):
            plan = self._abstract(inner, details)
        else:
            plan = self._checked_object(inner, details)
        return _Position(verbatim, _checked(plan, required=required))

    def _abstract(self, type_: GraphQLAbstractType, details: FieldDetailsList) -> Plan:
        """By the value's exact class, as Strawberry decides unless told otherwise."""
        definition = _definition(type_)
        if getattr(definition, "resolve_type", None) is not None:
            raise UnplannedError
        plans: dict[type, Plan] = {}
        for possible in self._schema.get_possible_types(type_):
            with suppress(UnplannedError):
                origin = _origin(possible)
                if is_interface_type(type_) and not self._is_named(possible, origin, definition):
                    continue
                plans[origin] = self._object(possible, details)

        def plan(value: Any) -> Any:
            if get_strawberry_type_cast(value) is not None:
                raise UnplannedError
            return plans[type(value)](value)

        return plan

    def _is_named(self, type_: GraphQLObjectType, origin: type, interface: Any) -> bool:
        """Whether Strawberry's interface finds `type_` for instances of `origin`."""
        name = _definition(type_).name
        return issubclass(origin, interface.origin) and self._schema.get_type(name) is type_

    def _checked_object(self, type_: GraphQLObjectType, details: FieldDetailsList) -> Plan:
        if type_.is_type_of is None:
            return self._object(type_, details)
        origin = _origin(type_)
        complete = self._object(type_, details)

        def plan(value: Any) -> Any:
            if type(value) is not origin or get_strawberry_type_cast(value) is not None:
                raise UnplannedError
            return complete(value)

        return plan

    def _object(self, type_: GraphQLObjectType, details: FieldDetailsList) -> Plan:
        key = (type_, *(id(detail.node) for detail in details))
        plan = self._objects.get(key)
        if plan is None:
            plan = self._objects[key] = self._compiled_object(type_, details)
        return plan

    def _compiled_object(self, type_: GraphQLObjectType, details: FieldDetailsList) -> Plan:
        if self._fields_left <= 0:
            raise UnplannedError
        collected = self._collect(type_, details)
        self._fields_left -= len(collected.grouped_field_set)
        template: dict[str, Any] = {}
        fields: list[tuple[str, str, type, Plan]] = []
        for name, found in collected.grouped_field_set.items():
            if any(not is_usual(detail) for detail in found):
                raise UnplannedError
            field = self._schema.get_field(type_, found[0].node.name.value)
            template[name] = None
            if field is TypeNameMetaFieldDef:
                template[name] = type_.name
            elif field is not None and (attribute := _attribute(field)) is not None:
                position = self._position(field.type, found)
                fields.append((name, attribute, position.verbatim, position.plan))
            else:
                raise UnplannedError

        def plan(source: Any) -> dict[str, Any]:
            result = template.copy()
            for name, attribute, verbatim, complete in fields:
                value = getattr(source, attribute)
                result[name] = value if type(value) is verbatim else complete(value)
            return result

        return plan


def is_usual(detail: FieldDetails) -> bool:
    """No incremental delivery, no fragment arguments, no directive but @include and @skip."""
    return (
        detail.defer_usage is None
        and detail.fragment_variable_values is None
        and all(directive.name.value in _CONDITIONS for directive in detail.node.directives or ())
    )


def _definition(type_: Any) -> Any:
    return type_.extensions.get(_DEFINITION)


def _origin(type_: GraphQLObjectType) -> type:
    """The class whose instances, and no other object's, are certainly of this type."""
    definition = _definition(type_)
    if (
        not isinstance(definition, StrawberryObjectDefinition)
        or definition.is_type_of is not None
        or definition.concrete_of is not None
        or definition.is_graphql_generic
        or vars(definition.origin).get("__strawberry_definition__") is not definition
    ):
        raise UnplannedError
    return definition.origin


def _attribute(field: GraphQLField) -> str | None:
    """What a plain field reads; None for a field that is more than an attribute."""
    definition = _definition(field)
    if (
        isinstance(definition, StrawberryField)
        and definition.is_basic_field
        and not definition.is_subscription
        and definition.default_resolver is getattr
        and type(definition).get_result is StrawberryField.get_result
        and getattr(field.resolve, "_is_default", False)
        and not field.args
    ):
        return definition.python_name
    return None


def _checked(complete: Plan, *, required: bool) -> Plan:
    def plan(value: Any) -> Any:
        if value is None:
            if required:
                raise UnplannedError
            return None
        if type(value) not in _SAFE and (value is Undefined or isinstance(value, Exception) or is_awaitable(value)):
            raise UnplannedError
        return complete(value)

    return plan


def _list(complete: Plan) -> Plan:
    def plan(values: Any) -> list[Any]:
        # Anything else might be exhausted by reading it, or be read asynchronously.
        if type(values) is not list and type(values) is not tuple:
            raise UnplannedError
        return [complete(value) for value in values]

    return plan


def _leaf(type_: GraphQLLeafType) -> Plan:
    coerce = type_.coerce_output_value

    def plan(value: Any) -> Any:
        coerced = coerce(value)
        if coerced is None or coerced is Undefined:
            raise UnplannedError
        return coerced

    return _enum(type_, plan) if isinstance(type_, CustomGraphQLEnumType) else plan


def _enum(type_: CustomGraphQLEnumType, other: Plan) -> Plan:
    """Members from a table; anything else, as a member's plain value, by `other`."""
    enum: Iterable[object] = type_.wrapped_cls
    # Members live as long as their class, so that an id stands for one of them alone.
    names = {id(member): type_.coerce_output_value(member) for member in enum}

    def plan(value: Any) -> Any:
        return names.get(id(value)) or other(value)

    return plan


OnlyField = tuple[str, FieldDetailsList, GraphQLObjectType]
"""The one root field of an operation: response name, nodes, root type."""


class OperationPlans:
    """The plans of one operation."""

    def __init__(self, operation: OperationDefinitionNode, fragments: tuple[FragmentDefinitionNode, ...]) -> None:
        self._fragments = fragments
        self._plans: dict[tuple[object, ...], Plan | None] = {}
        self._only_fields: dict[tuple[object, ...], OnlyField | None] = {}
        definitions = (operation, *fragments)
        self.conditions = tuple({name for node in definitions for name in _variables_of(node.selection_set)})
        """The variables that decide what is selected."""

    def belongs_to(self, fragments: tuple[FragmentDefinitionNode, ...]) -> bool:
        return len(fragments) == len(self._fragments) and all(map(is_, fragments, self._fragments))

    def get(self, key: tuple[object, ...], compile_: Callable[[], Plan]) -> Plan | None:
        """The plan under `key`, compiled on first use; None where there can be none."""
        try:
            return self._plans[key]
        except KeyError:
            pass
        plan: Plan | None = None
        with suppress(UnplannedError, GraphQLError, RecursionError):
            plan = compile_()
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def only_field(self, conditions: tuple[object, ...], find: Callable[[], OnlyField | None]) -> OnlyField | None:
        """What `find` finds for these values of the conditions."""
        try:
            return self._only_fields[conditions]
        except KeyError:
            pass
        if len(self._only_fields) >= MAX_PLANS:
            self._only_fields.clear()
        found = self._only_fields[conditions] = find()
        return found


class PlanCache:
    """Plans by operation, for as long as the operation's document lives: as bounded as the cache of documents is."""

    def __init__(self) -> None:
        self._operations: dict[int, tuple[ref[OperationDefinitionNode], OperationPlans]] = {}

    @classmethod
    def of(cls, schema: GraphQLSchema) -> PlanCache:
        cache: PlanCache = schema.extensions.setdefault(_CACHE, cls())
        return cache

    def __len__(self) -> int:
        return len(self._operations)

    def plans(
        self, operation: OperationDefinitionNode, fragments: tuple[FragmentDefinitionNode, ...]
    ) -> OperationPlans:
        key = id(operation)
        found = self._operations.get(key)
        if found is not None and found[1].belongs_to(fragments):
            return found[1]
        operations = self._operations
        plans = OperationPlans(operation, fragments)
        operations[key] = (ref(operation, lambda _: operations.pop(key, None)), plans)
        return plans


def _variables_of(selection_set: SelectionSetNode) -> Iterator[str]:
    for selection in selection_set.selections:
        for directive in selection.directives or ():
            for argument in directive.arguments or ():
                if isinstance(argument.value, VariableNode):
                    yield argument.value.name.value
        inner: SelectionSetNode | None = getattr(selection, "selection_set", None)
        if inner is not None:
            yield from _variables_of(inner)
