"""What an operation costs, in points: one for each object of its answer, more where the schema says so by `@cost`.

After the cost directives specification (https://ibm.github.io/graphql-specs/cost-spec.html): weights and sizes are
declared on the fields and types themselves. A list under a field with `first` or `last` is as long as these say.
Beyond the specification, a leaf that is asked for again under another name costs as much as the object that it is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import strawberry
from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_composite_type,
    is_list_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.schema_directive import Location

MAX_COST = 2_500
"""Of one operation. An object takes 20 to 80 µs of CPU to complete, by how many fields it has."""
MUTATION_WEIGHT = 10
"""Of a mutation that declares none: it writes."""
ASSUMED_SIZE = 3
"""Of a list that declares none."""
INTROSPECTED_WEIGHT = 5
"""Of each field under `__schema`, which is answered for every type that there is."""
INTROSPECTED_AGAIN = 20
"""For as many such fields stands one under another name, which no tool asks for: there are 700 arguments, say."""
MAX_PAGE = 100
"""Of every connection; the use cases refuse more."""

_SLICING = frozenset({"first", "last"})


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION, Location.OBJECT],
    name="cost",
    description="What the field costs, or each object of the type, in the points of `extensions.cost`. Without it a "
    "root field of Mutation costs 10, any other field 0, and an object 1.",
)
class Cost:
    weight: int = strawberry.field(description="In points.")


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="listSize",
    description="How long the list is taken to be, before it is known. Without it a list is as long as `first` or "
    "`last` of the field around it say, else 3.",
)
class ListSize:
    assumed_size: int | None = strawberry.field(default=None, description="So long.")
    slicing_argument: str | None = strawberry.field(default=None, description="As long as this list.")


@dataclass(frozen=True, slots=True)
class _Size:
    """`assumed`, or what the variable says where it is given."""

    assumed: int
    variable: str | None = None

    def of(self, variables: Mapping[str, Any]) -> int:
        given = None if self.variable is None else variables.get(self.variable)
        if isinstance(given, list):
            return len(given)
        return min(max(given, 0), MAX_PAGE) if isinstance(given, int) else self.assumed


_ONE = _Size(1)


@dataclass(slots=True)
class _Field:
    """A field of the answer; `each` is the weight of an object that it gives, 0 of a leaf."""

    key: str
    weight: int
    each: int
    size: _Size
    within: dict[str, _Field]

    def requested(self, variables: Mapping[str, Any]) -> int:
        inner = self.each + sum([field.requested(variables) for field in self.within.values()])
        return self.weight + self.size.of(variables) * inner

    def actual(self, value: Any) -> int:
        return self.weight + self._of(value)

    def _of(self, value: Any) -> int:
        if isinstance(value, list):
            return sum(map(self._of, value))
        if not isinstance(value, dict):
            return 0
        return self.each + sum([field.actual(value[key]) for key, field in self.within.items() if key in value])


@dataclass(frozen=True, slots=True)
class OperationCost:
    """Compiled once for each operation of a cached document. Fields that cost nothing are left out."""

    root: _Field
    constant: int | None

    def requested(self, variables: Mapping[str, Any] | None) -> int:
        """At least 1."""
        if self.constant is not None:
            return self.constant
        return max(1, self.root.requested(variables or {}))

    def actual(self, data: Mapping[str, Any] | None) -> int:
        """What the answer came to."""
        return max(1, self.root.actual(data))


def cost_of(
    schema: GraphQLSchema, operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> OperationCost:
    """Of a valid operation whose shape was checked: fragments are put in as often as they are spread."""
    root_type = schema.get_root_type(operation.operation)
    assert root_type is not None  # noqa: S101  # the operation is valid
    root = _Compiler(schema, operation, fragments).root(root_type)
    varies = any(each.variable is not None for each in _sizes(root))
    return OperationCost(root, None if varies else max(1, root.requested({})))


def _sizes(field: _Field) -> Iterator[_Size]:
    yield field.size
    for each in field.within.values():
        yield from _sizes(each)


class _Compiler:
    def __init__(
        self,
        schema: GraphQLSchema,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._mutation = schema.mutation_type if operation.operation is OperationType.MUTATION else None
        self._selections = operation.selection_set
        self._leaves: dict[tuple[int, str], str] = {}  # the name in the answer that each leaf of a field has first
        self._defaults = {each.variable.name.value: each.default_value for each in operation.variable_definitions or ()}

    def root(self, type_: GraphQLCompositeType) -> _Field:
        root = _Field("", 0, 0, _ONE, {})
        self._fill(root, self._selections, type_, None)
        return root

    def _fill(
        self, into: _Field, selections: SelectionSetNode, type_: GraphQLCompositeType, page: _Size | None
    ) -> None:
        """`page`: how long the lists among the fields are, where the field around them says."""
        for node, parent in self._fields(selections, type_):
            name = node.name.value
            key = node.alias.value if node.alias else name
            definition = self._schema.get_field(parent, name)
            assert definition is not None  # noqa: S101  # the document is valid
            if node.selection_set is None:
                again = self._leaves.setdefault((id(into), name), key) != key
                weight = _weight(definition) or (max(1, into.each) if again else 0)
                if weight:
                    into.within[key] = _Field(key, weight, 0, _ONE, {})
                continue
            if name == "__schema":
                schema = into.within.setdefault(key, _Field(key, 0, 0, _ONE, {}))
                schema.weight += INTROSPECTED_WEIGHT * self._count(node.selection_set)
                continue
            field = into.within.get(key)
            if field is None:
                field = into.within[key] = self._field(key, node, definition, page, is_root=parent is self._mutation)
            inner = get_named_type(definition.type)
            assert is_composite_type(inner)  # noqa: S101  # it has a selection
            self._fill(field, node.selection_set, inner, self._page(node, definition))

    def _field(
        self, key: str, node: FieldNode, definition: GraphQLField, page: _Size | None, *, is_root: bool
    ) -> _Field:
        size = _ONE
        if is_list_type(get_nullable_type(definition.type)):
            declared = _directive(definition, ListSize)
            if declared is None:
                size = page or _Size(ASSUMED_SIZE)
            elif declared.slicing_argument is None:
                size = _Size(declared.assumed_size or ASSUMED_SIZE)
            else:
                size = self._sliced(node, declared.slicing_argument)
        weight = _weight(definition)
        if weight is None:
            weight = MUTATION_WEIGHT if is_root else 0
        return _Field(key, weight, self._object_weight(get_named_type(definition.type)), size, {})

    def _page(self, node: FieldNode, definition: GraphQLField) -> _Size | None:
        """The larger one, where there are both: of variables it is not known yet which, and both are few."""
        slicing = _SLICING & definition.args.keys()
        if not slicing:
            return None
        sizes = [self._argument(node, name, definition.args[name].default_value) for name in sorted(slicing)]
        return max((each for each in sizes if each is not None), key=lambda each: each.assumed, default=None)

    def _argument(self, node: FieldNode, name: str, default: Any) -> _Size | None:
        value = _given(node, name)
        if value is None:
            return _Size(default) if isinstance(default, int) else None
        if isinstance(value, VariableNode):
            known = self._defaults.get(value.name.value)
            assumed = _literal(known) if known is not None else default
            return _Size(assumed if isinstance(assumed, int) else MAX_PAGE, value.name.value)
        return _Size(_literal(value))

    def _sliced(self, node: FieldNode, name: str) -> _Size:
        value = _given(node, name)
        if isinstance(value, VariableNode):
            return _Size(_length(self._defaults.get(value.name.value)), value.name.value)
        return _Size(_length(value))

    def _object_weight(self, type_: GraphQLNamedType) -> int:
        possible = self._schema.get_possible_types(type_) if is_abstract_type(type_) else [type_]
        return max((1 if (weight := _weight(each)) is None else weight for each in possible), default=1)

    def _fields(
        self, selections: SelectionSetNode, type_: GraphQLCompositeType
    ) -> Iterator[tuple[FieldNode, GraphQLCompositeType]]:
        """With the type that each is selected on."""
        for selection in selections.selections:
            if isinstance(selection, FieldNode):
                yield selection, type_
                continue
            assert isinstance(selection, FragmentSpreadNode | InlineFragmentNode)  # noqa: S101  # there is no fourth
            fragment = self._fragments[selection.name.value] if isinstance(selection, FragmentSpreadNode) else selection
            condition = fragment.type_condition
            inner = type_ if condition is None else self._schema.get_type(condition.name.value)
            assert is_composite_type(inner)  # noqa: S101  # the document is valid
            yield from self._fields(fragment.selection_set, inner)

    def _count(self, selections: SelectionSetNode) -> int:
        count = 0
        for selection in selections.selections:
            if isinstance(selection, FragmentSpreadNode):
                count += self._count(self._fragments[selection.name.value].selection_set)
                continue
            if isinstance(selection, FieldNode):
                count += 1 if selection.alias is None else INTROSPECTED_AGAIN
            inner = selection.selection_set  # type: ignore[attr-defined]  # only a spread has none
            if inner is not None:
                count += self._count(inner)
        return count


def _given(node: FieldNode, argument: str) -> ValueNode | None:
    return next((each.value for each in node.arguments or () if each.name.value == argument), None)


def _length(value: ValueNode | None) -> int:
    return len(value.values) if isinstance(value, ListValueNode) else 1


def _literal(value: ValueNode) -> int:
    return min(max(int(value.value), 0), MAX_PAGE) if isinstance(value, IntValueNode) else MAX_PAGE


_Directive = TypeVar("_Directive", Cost, ListSize)


def _weight(declared_on: GraphQLField | GraphQLNamedType) -> int | None:
    cost = _directive(declared_on, Cost)
    return None if cost is None else cost.weight


def _directive(declared_on: GraphQLField | GraphQLNamedType, kind: type[_Directive]) -> _Directive | None:
    definition = declared_on.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    directives = getattr(definition, "directives", None) or ()
    return next((each for each in directives if isinstance(each, kind)), None)
