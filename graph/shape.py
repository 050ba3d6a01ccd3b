"""The shape of a document, measured before it is validated: in one pass over its nodes, each fragment once.

Validation and execution take time by what a document comes to when its fragments are put in, which a few hundred bytes
can make as large as one likes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from resolvers.errors import QueryTooComplexError


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one operation, its fragments put in wherever they are spread; `depth` counts fields within fields."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    root_fields: int = 0
    spreads: int = 0


LIMITS = Shape(depth=20, fields=500, aliases=150, directives=50, root_fields=20, spreads=500)
"""The standard introspection query, the largest of our own, has 14, 185, 0, 0, 1 and 9."""

MAX_OPERATIONS = 50
MAX_FRAGMENTS = 100
"""Of one document. With the least of fields, so many cost 30 ms to validate."""

MAX_TOLD = 1_000_000
"""A larger count is only told to be one: it may have hundreds of digits."""

_NAMES = {
    "depth": "levels of fields",
    "fields": "fields",
    "aliases": "aliases",
    "directives": "directives",
    "root_fields": "root fields",
    "spreads": "fragment spreads",
}


def check_shape(document: DocumentNode) -> None:
    """Raises QueryTooComplexError for the first thing that there is too much of. Cycles and fragments that are missing
    are left to validation."""
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    _check("operations", len(operations), MAX_OPERATIONS)
    _check("fragments", len(fragments), MAX_FRAGMENTS)
    measured: dict[str, Shape] = {}
    for operation in operations:
        shape = _shape(operation, fragments, measured)
        for field in fields(Shape):
            _check(_NAMES[field.name], getattr(shape, field.name), getattr(LIMITS, field.name))


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise QueryTooComplexError(what, count if count <= MAX_TOLD else None, limit)


def _shape(
    definition: OperationDefinitionNode | FragmentDefinitionNode,
    fragments: dict[str, FragmentDefinitionNode],
    measured: dict[str, Shape],
) -> Shape:
    """Recurses from fragment to fragment, of which there are few, and never within one."""
    total = [0, 0, 0, len(definition.directives or ()), 0, 0]
    waiting: list[tuple[SelectionSetNode, int]] = [(definition.selection_set, 0)]
    while waiting:
        selections, depth = waiting.pop()
        for selection in selections.selections:
            total[3] += len(selection.directives or ())
            if isinstance(selection, FragmentSpreadNode):
                _add(total, _fragment(selection.name.value, fragments, measured), depth)
                continue
            if isinstance(selection, FieldNode):
                total[0] = max(total[0], depth + 1)
                total[1] += 1
                total[2] += selection.alias is not None
                total[4] += depth == 0
                if selection.selection_set is not None:
                    waiting.append((selection.selection_set, depth + 1))
            elif isinstance(selection, InlineFragmentNode):
                total[5] += 1
                waiting.append((selection.selection_set, depth))
    return Shape(*total)


def _add(total: list[int], fragment: Shape, depth: int) -> None:
    if fragment.fields:
        total[0] = max(total[0], depth + fragment.depth)
    total[1] += fragment.fields
    total[2] += fragment.aliases
    total[3] += fragment.directives
    if depth == 0:
        total[4] += fragment.root_fields
    total[5] += 1 + fragment.spreads


def _fragment(name: str, fragments: dict[str, FragmentDefinitionNode], measured: dict[str, Shape]) -> Shape:
    if name not in measured:
        definition = fragments.get(name)
        measured[name] = Shape()  # for a spread that closes a cycle
        if definition is not None:
            measured[name] = _shape(definition, fragments, measured)
    return measured[name]
