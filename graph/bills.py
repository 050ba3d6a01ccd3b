"""What each operation costs its caller, and how that is told: `extensions.cost`, as Shopify has it
(https://shopify.dev/docs/api/usage/limits)."""

from __future__ import annotations

from collections.abc import Mapping
from time import thread_time
from typing import Any

import orjson
from graphql import ExecutionResult, OperationType

from resolvers.errors import QueryTooComplexError, RateLimitedError
from resolvers.query_costs import POINTS_A_SECOND, Caller, CostBuckets, caller_of

from .cost import MAX_COST
from .documents import Document, DocumentCache, Operation, RefusedError, refused
from .values import VALUES_A_POINT, count_values

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Of a query's answer; what a mutation has done is told in any case. A page of the largest configs has 13 MB."""
LARGE = 50
"""In points: what costs less can't have as many bytes."""


class Bills:
    """`buckets` None: nothing is counted, and an operation is refused for its own cost alone."""

    def __init__(self, documents: DocumentCache, buckets: CostBuckets | None) -> None:
        self._documents = documents
        self.buckets = buckets

    def open(self, context: object) -> Bill:
        return Bill(self.buckets, None if self.buckets is None else _caller(context))

    def document(self, text: str, context: object) -> Document:
        """From the cache; else prepared at the caller's cost. Raises RefusedError."""
        if self.buckets is None or text in self._documents:
            return self._documents.get(text)
        caller = _caller(context)
        _take(self.buckets, caller, 1)
        started = thread_time()
        try:
            return self._documents.get(text)
        finally:
            self.buckets.add(caller, (thread_time() - started) * POINTS_A_SECOND)


class Bill:
    """One operation's. `told`: nothing more is to be said of it."""

    def __init__(self, buckets: CostBuckets | None, caller: Caller | None) -> None:
        self._buckets = buckets
        self._caller = caller
        self._operation: Operation | None = None
        self._requested = 1
        self.told = buckets is None

    def ask(self, operation: Operation, variables: Mapping[str, Any] | None) -> None:
        """Raises RefusedError where it costs too much, or more than is left."""
        try:
            values = count_values(variables) // VALUES_A_POINT if variables else 0
            self._requested = operation.cost.requested(variables) + values
            if self._requested > MAX_COST:
                raise QueryTooComplexError("points of cost", self._requested, MAX_COST, advice="ask for fewer at once")
        except QueryTooComplexError as error:
            raise RefusedError(refused(error)) from None
        if self._buckets is not None and self._caller is not None:
            _take(self._buckets, self._caller, self._requested)
        self._operation = operation

    def refused(self, error: RefusedError) -> ExecutionResult:
        """It has cost 1, or nothing where nothing was left."""
        throttled = any(isinstance(each.original_error, RateLimitedError) for each in error.errors)
        cost = 0 if throttled else 1
        self._add(cost)
        return self._telling(ExecutionResult(None, error.errors), cost)

    def settled(self, result: ExecutionResult) -> ExecutionResult:
        """Of a query or mutation that has run, or a subscription that could not be opened. Where the variables were at
        fault nothing is given back: they were coerced."""
        operation, actual = self._operation, self._requested
        if operation is not None and (result.data is not None or not result.errors or result.errors[0].path):
            actual = operation.cost.actual(result.data)
            if actual >= LARGE and operation.kind is OperationType.QUERY:
                result = _bounded(result)
            self._add(actual - self._requested)
        return self._telling(result, actual)

    def opened(self, event: ExecutionResult) -> ExecutionResult:
        """The first event of a subscription, whose cost is that of its opening: later ones come as they are made."""
        self.told = True
        return self._telling(event, self._requested)

    def _add(self, points: int) -> None:
        if self._buckets is not None and self._caller is not None:
            self._buckets.add(self._caller, points)

    def _telling(self, result: ExecutionResult, actual: int) -> ExecutionResult:
        if self._buckets is None or self._caller is None:
            return result
        throttle = self._buckets.throttle(self._caller)
        result.extensions = {
            "cost": {
                "requestedQueryCost": self._requested,
                "actualQueryCost": actual,
                "throttleStatus": {
                    "maximumAvailable": throttle.maximum_available,
                    "currentlyAvailable": throttle.currently_available,
                    "restoreRate": throttle.restore_rate,
                },
            }
        }
        return result


def _bounded(result: ExecutionResult) -> ExecutionResult:
    size = len(orjson.dumps(result.data))
    if size <= MAX_ANSWER_BYTES:
        return result
    error = QueryTooComplexError("bytes of answer", size, MAX_ANSWER_BYTES, advice="ask for fewer at once")
    return ExecutionResult(None, [refused(error)])


def _caller(context: Any) -> Caller:
    return caller_of(context.principal)


def _take(buckets: CostBuckets, caller: Caller, points: int) -> None:
    try:
        buckets.take(caller, points)
    except RateLimitedError as error:
        raise RefusedError(refused(error)) from None
