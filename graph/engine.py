"""Runs operations: from the query's text, by a cache of documents, to graphql-core and the schema's executor.

`strawberry.Schema.execute` and `stream` do the same within a run of extensions, which costs as much as executing a
cached document does; there are none here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    parse,
    specified_rules,
    subscribe,
    validate,
)
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from resolvers.cache_counts import CacheCounts
from resolvers.observing import UNOBSERVED, Observer

from .errors import MAX_ERRORS, code_of

MAX_DOCUMENTS = 1_000
MAX_CHARACTERS = 1024 * 1024
"""Of all cached documents together. Parsed, a character takes up to 300 bytes."""
MAX_TOKENS = 5_000
"""Of one document: what an operation costs to validate and to run grows with them."""
MAX_DOCUMENT_CHARACTERS = 64 * 1024
"""A longer document is parsed and validated anew for each request."""

_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)  # as Strawberry has them
_ALL = frozenset(OperationType)
_PLURALS = {
    OperationType.QUERY: "queries",
    OperationType.MUTATION: "mutations",
    OperationType.SUBSCRIPTION: "subscriptions",
}


class Engine:
    """Executes operations of a schema, in one event loop.

    Raises ValueError for a schema that relies on what is left out here: Strawberry's extensions, directives of its own
    on operations, and incremental delivery.
    """

    def __init__(self, schema: strawberry.Schema, observer: Observer = UNOBSERVED) -> None:
        if schema.extensions or schema.directives or schema.config.enable_experimental_incremental_execution:
            raise ValueError("the engine runs no extensions, no directives on operations, no incremental delivery")
        self._schema = schema._schema
        self._executor_class = schema.execution_context_class
        self._documents = DocumentCache(self._schema)
        self.observer = observer
        self.documents = self._documents.counts
        self.subscriptions = 0
        """How many are running."""

    def kind(self, query: str, operation_name: str | None) -> OperationType | None:
        """The type of the operation that would run; None where none would."""
        try:
            return self._documents.get(query).check(operation_name, _ALL)
        except RefusedError:
            return None

    async def execute(
        self,
        query: str,
        *,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: object,
        allowed: Set[OperationType],
    ) -> ExecutionResult:
        """The result of a query or mutation. Nothing is raised: an operation that can't be run has a result of errors
        without a path, and no data."""
        try:
            document = self._documents.get(query)
            document.check(operation_name, allowed)
            return await self._execute(document, variables, operation_name, context)
        except RefusedError as refused:
            return self._refused(refused)

    async def stream(
        self,
        query: str,
        *,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: object,
        allowed: Set[OperationType],
    ) -> AsyncGenerator[ExecutionResult, None] | ExecutionResult:
        """The results of any operation: a subscription's events, or the one result of a query or mutation. An operation
        that can't be run has a bare result instead, as in `execute`. The generator is the caller's to close."""
        try:
            document = self._documents.get(query)
            if document.check(operation_name, allowed) is not OperationType.SUBSCRIPTION:
                return self._single(document, variables, operation_name, context)
            source = subscribe(
                self._schema,
                document.node,
                context_value=context,
                variable_values=variables,
                operation_name=operation_name,
                executor_class=self._executor_class,
            )
            events: Any = await source if isawaitable(source) else source
        except RefusedError as refused:
            return self._refused(refused)
        except Exception as error:  # noqa: BLE001  # as in _execute
            events = _failed(error)
        if isinstance(events, ExecutionResult):
            self._tell("subscription", operation_name, 0.0, events.errors)
            return events
        return self._subscribed(document.named(operation_name), events)

    def _refused(self, refused: RefusedError) -> ExecutionResult:
        self._tell("invalid", None, 0.0, refused.errors)
        return ExecutionResult(None, refused.errors)

    async def _subscribed(
        self, name: str | None, events: AsyncGenerator[ExecutionResult, None]
    ) -> AsyncGenerator[ExecutionResult, None]:
        """graphql-core lets through what the source of the events raises; here it is the last result."""
        began, errors = time.perf_counter(), list[GraphQLError]()
        self.subscriptions += 1
        try:
            async with aclosing(events):
                async for event in events:
                    if event.errors:
                        errors += event.errors[: MAX_ERRORS - len(errors)]
                    yield event
        except Exception as error:  # noqa: BLE001  # as in _execute
            failed = _failed(error)
            errors += failed.errors or ()
            yield failed
        finally:
            self.subscriptions -= 1
            self._tell("subscription", name, time.perf_counter() - began, errors)

    def _tell(self, kind: str, name: str | None, seconds: float, errors: Sequence[GraphQLError] | None) -> None:
        codes = [code_of(error) for error in errors[:MAX_ERRORS]] if errors else ()
        self.observer.operated(kind, name, seconds, codes)

    async def _single(
        self, document: Document, variables: dict[str, Any] | None, operation_name: str | None, context: object
    ) -> AsyncGenerator[ExecutionResult, None]:
        yield await self._execute(document, variables, operation_name, context)

    async def _execute(
        self, document: Document, variables: dict[str, Any] | None, operation_name: str | None, context: object
    ) -> ExecutionResult:
        began = time.perf_counter()
        result = await self._run(document.node, variables, operation_name, context)
        name = document.named(operation_name)
        self._tell(document.operations[name].value, name, time.perf_counter() - began, result.errors)
        return result

    async def _run(
        self, document: DocumentNode, variables: dict[str, Any] | None, operation_name: str | None, context: object
    ) -> ExecutionResult:
        try:
            executor = self._executor_class.build(
                self._schema,
                document,
                context_value=context,
                raw_variable_values=variables,
                operation_name=operation_name,
                is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # a TypeGuard but for its annotation
            )
            if isinstance(executor, list):
                return ExecutionResult(None, executor)
            result: Any = executor.execute_operation()
            return result if isinstance(result, ExecutionResult) else await result
        except Exception as error:  # noqa: BLE001  # what graphql-core lets through is an answer all the same
            return _failed(error)


class RefusedError(Exception):
    """An operation that can't be run."""

    def __init__(self, *errors: GraphQLError) -> None:
        super().__init__(*errors)
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class Document:
    """A valid document and the types of its operations, by name; None is the name of one without."""

    node: DocumentNode
    operations: dict[str | None, OperationType]

    def check(self, name: str | None, allowed: Set[OperationType]) -> OperationType:
        """The type of the operation to run. Raises RefusedError where it is not clear which, or not allowed."""
        if name is not None and name not in self.operations:
            raise RefusedError(GraphQLError(f"Unknown operation named '{name}'."))
        if name is None and len(self.operations) > 1:
            raise RefusedError(GraphQLError("Must provide operation name if query contains multiple operations."))
        kind = next(iter(self.operations.values())) if name is None else self.operations[name]
        if kind not in allowed:
            raise RefusedError(GraphQLError(f"{_PLURALS[kind]} are not allowed"))
        return kind

    def named(self, name: str | None) -> str | None:
        """The name of the operation that runs where this one is asked for, and passes `check`."""
        return next(iter(self.operations)) if name is None else name


class DocumentCache:
    """Parsed and validated documents by their text, and the errors of those that are not valid; the least recently used
    go first."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self.counts = CacheCounts()
        self._schema = schema
        self._kept: OrderedDict[str, Document | tuple[GraphQLError, ...]] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._kept)

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
            node = parse(text, max_tokens=MAX_TOKENS)
        except GraphQLError as error:
            return (error.with_traceback(None),)
        if errors := validate(self._schema, node, _RULES, max_errors=MAX_ERRORS - 1):  # and one that says so
            return tuple(errors)
        operations = [definition for definition in node.definitions if isinstance(definition, OperationDefinitionNode)]
        return Document(node, {each.name.value if each.name else None: each.operation for each in operations})


def _failed(error: Exception) -> ExecutionResult:
    located = error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)
    return ExecutionResult(None, [located])
