"""The engine against Strawberry's own `execute` and `stream`, and its cache of documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
import strawberry
from graphql import ExecutionResult, OperationType
from strawberry import Info
from strawberry.extensions import ParserCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types.graphql import OperationType as StrawberryOperationType

from graph import documents as limits
from graph.documents import DocumentCache, RefusedError
from graph.engine import Engine
from graph.executor import CompiledExecutor
from resolvers.observing import Unobserved

ALL = frozenset(OperationType)


@dataclass
class Log:
    lines: list[str] = field(default_factory=list)


@strawberry.input(one_of=True)
class Choice:
    number: int | None = strawberry.UNSET
    text: str | None = strawberry.UNSET


@strawberry.type
class Item:
    number: int
    text: str | None


@strawberry.type
class Query:
    @strawberry.field
    def items(self, info: Info, count: int = 2) -> list[Item] | None:
        info.context.lines.append(f"items {count}")
        return [Item(number=number, text="x" if number else None) for number in range(count)]

    @strawberry.field
    async def chosen(self, by: Choice) -> str:
        return repr(by.number or by.text)

    @strawberry.field
    async def broken(self) -> str | None:
        raise ValueError("broken")

    @strawberry.field
    async def endless(self, info: Info) -> str:
        info.context.lines.append("begun")
        await asyncio.Event().wait()
        return ""

    @strawberry.field
    async def torn(self) -> str:
        raise ValueError("torn")


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def add(self, info: Info, number: int) -> Item | None:
        info.context.lines.append(f"add {number}")
        return Item(number=number, text=None)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def numbers(self, info: Info, until: int, fail: bool = False) -> AsyncGenerator[Item, None]:
        try:
            for number in range(until):
                yield Item(number=number, text="x")
            if fail:
                raise ValueError("the source failed")
        finally:
            info.context.lines.append("closed")

    @strawberry.subscription
    async def refused(self) -> AsyncGenerator[int, None]:
        raise ValueError("refused")
        yield 1


SCHEMA = strawberry.Schema(Query, Mutation, Subscription, execution_context_class=CompiledExecutor)

OPERATIONS: list[tuple[str, dict[str, Any] | None]] = [
    ("{ items { number text } }", None),
    ("query ($n: Int!, $yes: Boolean!) { items(count: $n) { number text @include(if: $yes) } }", {"n": 3, "yes": True}),
    ("query ($n: Int!) { items(count: $n) { number } }", {"n": "three"}),
    ("query ($n: Int!) { items(count: $n) { number } }", None),
    ("query ($by: Choice!) { chosen(by: $by) }", {"by": {"number": 1}}),
    ("query ($by: Choice!) { chosen(by: $by) }", {"by": {"number": 1, "text": "both"}}),
    ("{ chosen(by: { number: 1, text: 2 }) }", None),
    ("{ broken items { number } }", None),
    ("{ torn items { number } }", None),
    ("{ __typename __schema { queryType { name } } }", None),
    ("mutation { a: add(number: 1) { number } b: add(number: 2) { text } c: add(number: 99999999999) { text } }", None),
    ("{ items { missing } other }", None),
    ("{ items {", None),
    ("subscription { numbers(until: 2) { number text } }", None),
    ("subscription { numbers(until: 1, fail: true) { number } }", None),
    ("subscription { refused }", None),
    ("subscription ($n: Int!) { numbers(until: $n) { number } }", {"n": None}),
]


def formatted(result: Any) -> tuple[str, list[Any]]:
    return repr(result.data), [error.formatted for error in result.errors or ()]


@pytest.mark.parametrize(("query", "variables"), OPERATIONS)
async def test_streams_what_strawberry_streams(query: str, variables: dict[str, Any] | None) -> None:
    expected_log, log = Log(), Log()
    expected = [formatted(each) async for each in await SCHEMA.stream(query, variables, expected_log)]
    subject = Engine(SCHEMA)
    for _ in range(2):
        log.lines.clear()
        results = await subject.stream(query, variables=variables, operation_name=None, context=log, allowed=ALL)
        found = [results] if isinstance(results, ExecutionResult) else [each async for each in results]
        assert [formatted(each) for each in found] == expected
        assert log == expected_log


@pytest.mark.parametrize(("query", "variables"), [each for each in OPERATIONS if "subscription" not in each[0]])
async def test_executes_as_strawberry_does(query: str, variables: dict[str, Any] | None) -> None:
    expected_log, log = Log(), Log()
    expected = [formatted(each) async for each in await SCHEMA.stream(query, variables, expected_log)]
    result = await Engine(SCHEMA).execute(query, variables=variables, operation_name=None, context=log, allowed=ALL)
    assert [formatted(result)] == expected
    assert log == expected_log


SEVERAL = "query A { items { number } } mutation B { add(number: 1) { number } } subscription C { refused }"


@pytest.mark.parametrize(
    ("name", "allowed", "message"),
    [
        ("B", {OperationType.QUERY}, "mutations are not allowed"),
        ("A", {OperationType.MUTATION}, "queries are not allowed"),
        ("C", {OperationType.QUERY}, "subscriptions are not allowed"),
        ("D", ALL, "Unknown operation named 'D'."),
        (None, ALL, "Must provide operation name if query contains multiple operations."),
    ],
)
async def test_operations_that_are_not_run(name: str | None, allowed: set[OperationType], message: str) -> None:
    subject, log = Engine(SCHEMA), Log()
    for run in (subject.execute, subject.stream):
        result = await run(SEVERAL, variables=None, operation_name=name, context=log, allowed=allowed)
        assert isinstance(result, ExecutionResult)
        assert (result.data, [error.message for error in result.errors or ()]) == (None, [message])
    assert log.lines == []


async def test_the_named_operation_runs() -> None:
    log = Log()
    result = await Engine(SCHEMA).execute(SEVERAL, variables=None, operation_name="B", context=log, allowed=ALL)
    assert result.data == {"add": {"number": 1}}
    expected = await SCHEMA.execute(SEVERAL, None, Log(), None, "B", [StrawberryOperationType.MUTATION])
    assert result.data == expected.data


@pytest.mark.parametrize("text", ["fragment F on Item { number }", "type A { b: Int }"])
async def test_a_document_without_operation_has_the_errors_of_its_definitions(text: str) -> None:
    result = await Engine(SCHEMA).execute(text, variables=None, operation_name=None, context=Log(), allowed=ALL)
    assert result.data is None
    assert result.errors


@pytest.mark.parametrize(
    "operation", ["query ($n: Int!) { items(count: $n)", "subscription ($n: Int!) { numbers(until: $n)"]
)
async def test_what_is_no_fields_error_is_a_result_too(operation: str) -> None:
    variables: Any = ["not an object"]
    results = await Engine(SCHEMA).stream(
        operation + " { number } }", variables=variables, operation_name=None, context=Log(), allowed=ALL
    )
    found = [results] if isinstance(results, ExecutionResult) else [each async for each in results]
    assert [(each.data, [error.path for error in each.errors or ()]) for each in found] == [(None, [None])]


class Told(Unobserved):
    def __init__(self) -> None:
        self.ends: list[tuple[str, str | None, Sequence[str] | None]] = []

    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None:
        self.ends.append((kind, name, error_codes))


async def test_how_each_operation_ended_is_told() -> None:
    told, log = Told(), Log()
    subject = Engine(SCHEMA, observer=told)
    for text in ("query A { items { number } }", "query B { torn }", "{ nothing }"):
        await subject.execute(text, variables=None, operation_name=None, context=log, allowed=ALL)
    left = asyncio.create_task(
        subject.execute("query C { endless }", variables=None, operation_name=None, context=log, allowed=ALL)
    )
    await asyncio.wait([left], timeout=0.05)
    assert log.lines[-1] == "begun"
    left.cancel()
    await asyncio.wait([left])
    assert left.cancelled()
    assert told.ends == [
        ("query", "A", ()),
        ("query", "B", ["INTERNAL"]),
        ("invalid", None, ["BAD_USER_INPUT"]),
        ("query", "C", None),
    ]


async def test_closing_a_stream_closes_its_source() -> None:
    log = Log()
    results = await Engine(SCHEMA).stream(
        "subscription { numbers(until: 9) { number } }", variables=None, operation_name=None, context=log, allowed=ALL
    )
    assert not isinstance(results, ExecutionResult)
    async with aclosing(results):
        assert (await anext(results)).data == {"numbers": {"number": 0}}
        assert log.lines == []
    assert log.lines == ["closed"]


async def test_a_stream_that_is_never_read_runs_nothing() -> None:
    log = Log()
    results = await Engine(SCHEMA).stream(
        "mutation { add(number: 1) { number } }", variables=None, operation_name=None, context=log, allowed=ALL
    )
    assert not isinstance(results, ExecutionResult)
    await results.aclose()
    assert log.lines == []


@pytest.mark.parametrize(
    "options",
    [
        {"extensions": [ParserCache]},
        {"config": StrawberryConfig(enable_experimental_incremental_execution=True)},
    ],
)
def test_a_schema_that_needs_more_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no extensions"):
        Engine(strawberry.Schema(Query, **options))


@pytest.fixture
def documents() -> DocumentCache:
    return DocumentCache(SCHEMA._schema)


def query_of(index: int) -> str:
    return f"{{ a{index}: __typename }}"


def test_a_document_is_prepared_once(documents: DocumentCache) -> None:
    assert documents.get(query_of(1)) is documents.get(query_of(1))
    assert len(documents) == 1


@pytest.mark.parametrize("text", ["{ missing }", "{"])
def test_errors_are_kept_too(documents: DocumentCache, text: str) -> None:
    found = []
    for _ in range(2):
        with pytest.raises(RefusedError) as caught:
            documents.get(text)
        found.append(caught.value.errors[0])
        caught.value.errors.clear()
    assert found[0] is found[1]
    assert len(documents) == 1


def test_the_least_recently_used_document_goes_first(documents: DocumentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DOCUMENTS", 2)
    first, second = documents.get(query_of(1)), documents.get(query_of(2))
    assert documents.get(query_of(1)) is first
    documents.get(query_of(3))
    assert len(documents) == 2
    assert documents.get(query_of(1)) is first
    assert documents.get(query_of(2)) is not second


def test_all_documents_together_are_bounded(documents: DocumentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CHARACTERS", 100)
    for index in range(20):
        documents.get(query_of(index) + " " * 20)
    assert len(documents) == 2


def test_a_document_that_is_too_long_is_not_kept(documents: DocumentCache) -> None:
    short, long = (query_of(1).ljust(limits.MAX_DOCUMENT_CHARACTERS + more) for more in (0, 1))
    assert documents.get(short) is documents.get(short)
    with pytest.raises(RefusedError, match="131073 characters"):
        documents.get(long)
    assert len(documents) == 1


async def test_a_document_of_too_many_tokens_is_refused_before_it_is_validated() -> None:
    aliases = " ".join(f"a{number}: __typename" for number in range(limits.MAX_TOKENS))
    result = await Engine(strawberry.Schema(Query)).execute(
        f"{{ {aliases} }}", variables=None, operation_name=None, context=None, allowed=ALL
    )
    assert result.data is None
    assert result.errors
    assert str(limits.MAX_TOKENS) in result.errors[0].message
