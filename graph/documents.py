"""Documents: parsed, measured, validated and weighed once, and kept by their text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    parse,
    specified_rules,
    validate,
)
from graphql.language.parser import MAX_NESTING_DEPTH
from graphql.validation.rules import overlapping_fields_can_be_merged
from graphql.validation.validate import ValidationAbortedError
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from resolvers.cache_counts import CacheCounts
from resolvers.errors import QueryTooComplexError

from .cost import OperationCost, cost_of
from .errors import MAX_ERRORS
from .shape import check_shape

MAX_DOCUMENTS = 1_000
MAX_CHARACTERS = 1024 * 1024
"""Of all cached documents together. Parsed, a character takes up to 300 bytes."""
MAX_TOKENS = 2_000
"""Of one document. Each takes about 10 µs to parse and up to 30 µs to validate."""
MAX_COMMENTS = 1_000
MAX_DOCUMENT_CHARACTERS = 128 * 1024
"""Of one document: within few tokens, a character takes 0.1 µs."""

MAX_COMPARISONS = 20_000
"""Of fields that may overlap, in one document: 50 ms. What a client generates takes some hundreds."""

_PARSERS_LIMITS = (
    (f"more than {MAX_TOKENS} tokens", "tokens", MAX_TOKENS),
    (f"more than {MAX_COMMENTS} comments", "comments", MAX_COMMENTS),
    ("nested too deeply", "levels of nesting", MAX_NESTING_DEPTH),
)
"""What graphql-core says of each, in words alone."""

# Its only way to be told. The rule reads it anew for each document.
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = MAX_COMPARISONS

_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)  # as Strawberry has them
_PLURALS = {
    OperationType.QUERY: "queries",
    OperationType.MUTATION: "mutations",
    OperationType.SUBSCRIPTION: "subscriptions",
}


class RefusedError(Exception):
    """An operation that can't be run."""

    def __init__(self, *errors: GraphQLError) -> None:
        super().__init__(*errors)
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class Operation:
    kind: OperationType
    cost: OperationCost


@dataclass(frozen=True, slots=True)
class Document:
    """A valid document and its operations, by name; None is the name of one without."""

    node: DocumentNode
    operations: dict[str | None, Operation]

    def operation(self, name: str | None, allowed: Set[OperationType]) -> Operation:
        """The one to run. Raises RefusedError where it is not clear which, or not allowed."""
        if name is not None and name not in self.operations:
            raise RefusedError(GraphQLError(f"Unknown operation named '{name}'."))
        if name is None and len(self.operations) > 1:
            raise RefusedError(GraphQLError("Must provide operation name if query contains multiple operations."))
        found = next(iter(self.operations.values())) if name is None else self.operations[name]
        if found.kind not in allowed:
            raise RefusedError(GraphQLError(f"{_PLURALS[found.kind]} are not allowed"))
        return found

    def named(self, name: str | None) -> str | None:
        """The name of the operation that runs where this one is asked for, and passes `operation`."""
        return next(iter(self.operations)) if name is None else name


class DocumentCache:
    """Prepared documents by their text, and the errors of those that are not valid; the least recently used go first.

    Where it is not `explorable`, the schema can't be asked for, and no error suggests what it has.
    """

    def __init__(self, schema: GraphQLSchema, *, explorable: bool = True) -> None:
        self.counts = CacheCounts()
        self._schema = schema
        self._explorable = explorable
        self._rules = _RULES if explorable else (*_RULES, NoSchemaIntrospectionCustomRule)
        self._kept: OrderedDict[str, Document | tuple[GraphQLError, ...]] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, text: str) -> bool:
        """Whether `get` has nothing to prepare."""
        return text in self._kept

    def get(self, text: str) -> Document:
        """Raises RefusedError for a document that is not valid."""
        document = self._kept.get(text)
        if document is None:
            self.counts.misses += 1
            document = self._prepare(text)
            if len(text) <= MAX_DOCUMENT_CHARACTERS:
                self._keep(text, document)
        else:
            self.counts.hits += 1
            self._kept.move_to_end(text)
        if isinstance(document, tuple):
            raise RefusedError(*document)
        return document

    def _keep(self, text: str, document: Document | tuple[GraphQLError, ...]) -> None:
        self._kept[text] = document
        self._characters += len(text)
        while len(self._kept) > MAX_DOCUMENTS or self._characters > MAX_CHARACTERS:
            oldest, _ = self._kept.popitem(last=False)
            self._characters -= len(oldest)

    def _prepare(self, text: str) -> Document | tuple[GraphQLError, ...]:
        try:
            node = _parsed(text)
            check_shape(node)
            errors = self._validated(node)
            return tuple(errors) if errors else self._weighed(node)
        except GraphQLError as error:
            return (error.with_traceback(None),)
        except QueryTooComplexError as error:
            return (refused(error.with_traceback(None)),)

    def _validated(self, node: DocumentNode) -> list[GraphQLError]:
        errors = validate(
            self._schema,
            node,
            self._rules,
            max_errors=MAX_ERRORS - 1,  # and one that says so
            hide_suggestions=not self._explorable,
        )
        if errors and len(errors) < MAX_ERRORS and isinstance(errors[-1], ValidationAbortedError):
            raise QueryTooComplexError("comparisons of overlapping fields", None, MAX_COMPARISONS)
        return errors

    def _weighed(self, node: DocumentNode) -> Document:
        operations = [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        fragments = {each.name.value: each for each in node.definitions if isinstance(each, FragmentDefinitionNode)}
        return Document(
            node,
            {
                each.name.value if each.name else None: Operation(
                    each.operation, cost_of(self._schema, each, fragments)
                )
                for each in operations
            },
        )


def refused(error: Exception) -> GraphQLError:
    return GraphQLError(str(error), original_error=error)


def _parsed(text: str) -> DocumentNode:
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        raise QueryTooComplexError(
            "characters in a document", len(text), MAX_DOCUMENT_CHARACTERS, advice="give long texts as variables"
        )
    try:
        return parse(text, max_lexical_tokens=MAX_TOKENS, max_comments=MAX_COMMENTS)
    except GraphQLSyntaxError as error:
        for told, what, limit in _PARSERS_LIMITS:
            if told in error.message:
                raise QueryTooComplexError(what, None, limit) from None
        raise
