"""Runs operations: from the query's text, by a cache of documents, to graphql-core and the schema's executor.

`strawberry.Schema.execute` and `stream` do the same within a run of extensions, which costs as much as executing a
cached document does; there are none here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence, Set
from contextlib import aclosing
from inspect import isawaitable
from typing import Any

import strawberry
from graphql import DocumentNode, ExecutionResult, GraphQLError, OperationType, subscribe
from strawberry.execution import optimized_is_awaitable

from resolvers.observing import UNOBSERVED, Observer
from resolvers.query_costs import CostBuckets

from .bills import Bill, Bills
from .documents import Document, DocumentCache, RefusedError
from .errors import MAX_ERRORS, code_of

_ALL = frozenset(OperationType)


class Engine:
    """Executes operations of a schema, in one event loop.

    Raises ValueError for a schema that relies on what is left out here: Strawberry's extensions, directives of its own
    on operations, and incremental delivery.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        *,
        buckets: CostBuckets | None = None,
        explorable: bool = True,
        observer: Observer = UNOBSERVED,
    ) -> None:
        """`buckets`: what each caller has left; without them nobody is told of costs. `explorable`: the schema may be
        asked for, and errors may suggest what it has."""
        if schema.extensions or schema.directives or schema.config.enable_experimental_incremental_execution:
            raise ValueError("the engine runs no extensions, no directives on operations, no incremental delivery")
        self._schema = schema._schema
        self._executor_class = schema.execution_context_class
        documents = DocumentCache(self._schema, explorable=explorable)
        self._bills = Bills(documents, buckets)
        self._explorable = explorable
        self.observer = observer
        self.documents = documents.counts
        self.subscriptions = 0
        """How many are running."""

    def count(self, buckets: CostBuckets) -> None:
        """From here on operations cost their callers what they have left in these."""
        self._bills.buckets = buckets

    def kind(self, query: str, operation_name: str | None, context: object) -> OperationType | None:
        """The type of the operation that would run; None where none would."""
        try:
            return self._bills.document(query, context).operation(operation_name, _ALL).kind
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
        bill = self._bills.open(context)
        try:
            document = self._bills.document(query, context)
            bill.ask(document.operation(operation_name, allowed), variables)
        except RefusedError as refused:
            return self._refused(refused, bill)
        return await self._execute(document, variables, operation_name, context, bill)

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
        bill = self._bills.open(context)
        try:
            document = self._bills.document(query, context)
            operation = document.operation(operation_name, allowed)
            bill.ask(operation, variables)
        except RefusedError as refused:
            return self._refused(refused, bill)
        if operation.kind is not OperationType.SUBSCRIPTION:
            return self._single(document, variables, operation_name, context, bill)
        events = await self._subscribe(document.node, variables, operation_name, context)
        if isinstance(events, ExecutionResult):
            self._tell("subscription", operation_name, 0.0, events.errors)
            return bill.settled(events)
        return self._subscribed(document.named(operation_name), events, bill)

    def _refused(self, refused: RefusedError, bill: Bill) -> ExecutionResult:
        self._tell("invalid", None, 0.0, refused.errors)
        return bill.refused(refused)

    def _tell(self, kind: str, name: str | None, seconds: float, errors: Sequence[GraphQLError] | None) -> None:
        codes = [code_of(error) for error in errors[:MAX_ERRORS]] if errors else ()
        self.observer.operated(kind, name, seconds, codes)

    async def _subscribe(
        self, document: DocumentNode, variables: dict[str, Any] | None, operation_name: str | None, context: object
    ) -> AsyncGenerator[ExecutionResult, None] | ExecutionResult:
        try:
            source = subscribe(
                self._schema,
                document,
                context_value=context,
                variable_values=variables,
                operation_name=operation_name,
                executor_class=self._executor_class,
                max_coercion_errors=MAX_ERRORS - 1,
                hide_suggestions=not self._explorable,
            )
            events: Any = await source if isawaitable(source) else source
        except Exception as error:  # noqa: BLE001  # as in _run
            return _failed(error)
        return events  # type: ignore[no-any-return]  # as annotated

    async def _subscribed(
        self, name: str | None, events: AsyncGenerator[ExecutionResult, None], bill: Bill
    ) -> AsyncGenerator[ExecutionResult, None]:
        """graphql-core lets through what the source of the events raises; here it is the last result. The first one
        tells what the subscription costs."""
        began, errors = time.perf_counter(), list[GraphQLError]()
        self.subscriptions += 1
        try:
            async with aclosing(events):
                async for event in events:
                    if event.errors:
                        errors += event.errors[: MAX_ERRORS - len(errors)]
                    yield event if bill.told else bill.opened(event)
        except Exception as error:  # noqa: BLE001  # as in _run
            failed = _failed(error)
            errors += failed.errors or ()
            yield failed
        finally:
            self.subscriptions -= 1
            self._tell("subscription", name, time.perf_counter() - began, errors)

    async def _single(
        self,
        document: Document,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: object,
        bill: Bill,
    ) -> AsyncGenerator[ExecutionResult, None]:
        yield await self._execute(document, variables, operation_name, context, bill)

    async def _execute(
        self,
        document: Document,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: object,
        bill: Bill,
    ) -> ExecutionResult:
        """What is told is what the caller gets: an answer that is too large is an error."""
        began = time.perf_counter()
        name = document.named(operation_name)
        kind = document.operations[name].kind.value
        try:
            result = bill.settled(await self._run(document.node, variables, operation_name, context))
        except asyncio.CancelledError:
            self.observer.operated(kind, name, time.perf_counter() - began, None)
            raise
        self._tell(kind, name, time.perf_counter() - began, result.errors)
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
                max_coercion_errors=MAX_ERRORS - 1,
                hide_suggestions=not self._explorable,
            )
            if isinstance(executor, list):
                return ExecutionResult(None, executor)
            result: Any = executor.execute_operation()
            return result if isinstance(result, ExecutionResult) else await result
        except Exception as error:  # noqa: BLE001  # what graphql-core lets through is an answer all the same
            return _failed(error)


def _failed(error: Exception) -> ExecutionResult:
    located = error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)
    return ExecutionResult(None, [located])
