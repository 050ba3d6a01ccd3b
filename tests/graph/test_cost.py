"""What operations cost, and how that is told and taken from what the caller has left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from graphql import (
    ExecutionResult,
    GraphQLInterfaceType,
    GraphQLObjectType,
    OperationType,
    get_introspection_query,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

from graph import bills
from graph.context import Context
from graph.cost import ASSUMED_SIZE, INTROSPECTED_WEIGHT, MAX_COST, MAX_PAGE, MUTATION_WEIGHT
from graph.documents import DocumentCache
from graph.engine import Engine
from graph.errors import formatted
from graph.schema import build_schema
from resolvers.audit import AuditLog
from resolvers.observing import Unobserved
from resolvers.principal import Principal
from resolvers.query_costs import CostBuckets
from tests.e2e.documents import COMPLETE, RECORDS, STREAM
from tests.persistence.audit import MemoryAuditLog

from .stage import ALL, EVERY_SCOPE, LATER, Stage

SCHEMA = build_schema()._schema
ANNA = Principal("anna", "acme", EVERY_SCOPE, LATER)
BUCKET, RATE = 5_000, 100


class Told(Unobserved):
    codes: Sequence[str] | None = None

    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None:
        self.codes = error_codes


def requested(text: str, variables: dict[str, Any] | None = None) -> int:
    [operation] = DocumentCache(SCHEMA).get(text).operations.values()
    return operation.cost.requested(variables)


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("{ __typename }", 1),
        ("{ viewer { subject organisation } }", 1),
        ("{ viewer { subject limits { name } } }", 1 + ASSUMED_SIZE),
        ("{ a: viewer { subject } b: viewer { subject } }", 2),
        ("{ configs(first: 10) { nodes { id } } }", 1 + 10),
        ("{ configs(first: 10) { nodes { id } edges { node { id } } pageInfo { endCursor } } }", 1 + 10 + 20 + 1),
        ("{ configs { nodes { id } } }", 1 + 50),
        ("{ configs(first: 1000000) { nodes { id } } }", 1 + MAX_PAGE),
        ("{ configs(first: 10) { nodes { draft { model } } } }", 1 + 10 * (1 + 5)),
        ("{ configs(first: 2) { nodes { versions(first: 3) { nodes { content { model } } } } } }", 1 + 2 * (2 + 3 * 6)),
        ("{ configs(first: 2) { nodes { ...A ...B } } } fragment A on Config { id draft { model } }"
         " fragment B on Config { id draft { prompt } }", 1 + 2 * 6),
        ("{ viewer { subject a: subject b: subject } }", 1 + 2),
        ("{ configs(first: 10) { nodes { draft { prompt a: prompt b: prompt } } } }", 1 + 10 * (1 + 5 + 10)),
        ("{ configs(first: 10) { nodes { ...A ...B } } } fragment A on Config { draft { prompt } }"
         " fragment B on Config { draft { a: prompt } }", 1 + 10 * (1 + 5 + 5)),
        ('mutation { archiveConfig(input: { by: { id: "x" }, expectedRevision: 1 }) { id } }', MUTATION_WEIGHT + 1),
        ('mutation { complete(input: { model: "a/b" }) { content } }', 5),
        ('mutation { complete(input: { model: "a/b" }) { content usage { cost } attempts { outcome } } }', 5 + 1 + 3),
        ('mutation { completeMany(inputs: [{ model: "a/b" }, { model: "a/b" }]) { ... on Completion { id } } }', 10),
        ("{ __schema { types { name } } }", 2 * INTROSPECTED_WEIGHT),
        ("{ __schema { types { name a: name b: name } } }", (2 + 20 + 20) * INTROSPECTED_WEIGHT),
        ("{ __schema { ...S } a: __schema { ...S } } fragment S on __Schema { types { name } }", 20),
    ],
)  # fmt: skip
def test_what_is_requested(text: str, cost: int) -> None:
    assert requested(text) == cost


FIRST = "query ($n: Int! = 7) { configs(first: $n) { nodes { id } } }"
MANY = "mutation ($inputs: [CompleteInput!]!) { completeMany(inputs: $inputs) { ... on Completion { content } } }"

DEFAULTED = MANY.replace("]!)", ']! = [{ model: "a/b" }, { model: "a/b" }])')


@pytest.mark.parametrize(
    ("text", "variables", "cost"),
    [
        (FIRST, None, 1 + 7),
        (FIRST, {"n": 30}, 1 + 30),
        (FIRST, {"n": 10**9}, 1 + MAX_PAGE),
        (FIRST, {"n": -5}, 1),
        (FIRST, {"n": "many"}, 1 + 7),
        (FIRST.replace(" = 7", ""), {}, 1 + 50),
        (MANY, {"inputs": [{}] * 40}, 40 * 5),
        (MANY, {"inputs": {}}, 5),
        (MANY, {}, 5),
        (DEFAULTED, None, 2 * 5),
        (DEFAULTED, {"inputs": [{}] * 40}, 40 * 5),
    ],
)
def test_what_is_requested_depends_on_variables(text: str, variables: dict[str, Any] | None, cost: int) -> None:
    assert requested(text, variables) == cost


def test_usual_operations_and_introspection_may_be_asked() -> None:
    for text in (COMPLETE, RECORDS, STREAM, get_introspection_query(input_value_deprecation=True)):
        assert requested(text, {"first": MAX_PAGE}) <= MAX_COST / 2


def test_every_list_of_objects_has_a_length() -> None:
    """By what is declared on it, by the page around it, or short by nature: these are named here."""
    short = {
        "reasoningBlocks", "toolCalls", "citations", "logprobs", "likeliest", "attempts", "labels", "corrections",
        "messages", "variables", "tools", "dimensions", "keys", "states", "limits", "providerKeys",
    }  # fmt: skip
    undeclared = set()
    for type_ in SCHEMA.type_map.values():
        if type_.name.startswith("__") or not isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            continue
        for name, field in type_.fields.items():
            composite = isinstance(get_named_type(field.type), GraphQLObjectType | GraphQLInterfaceType)
            declared = any(
                type(each).__name__ == "ListSize" for each in field.extensions["strawberry-definition"].directives
            )
            in_page = type_.name.endswith("Connection") and name in {"nodes", "edges"}
            if composite and is_list_type(get_nullable_type(field.type)) and not declared and not in_page:
                undeclared.add(name)
    assert undeclared == short


def test_every_connection_is_a_page_of_at_most_100() -> None:
    for type_ in SCHEMA.type_map.values():
        if not isinstance(type_, GraphQLObjectType):
            continue
        for field in type_.fields.values():
            if get_named_type(field.type).name.endswith("Connection"):
                assert field.args["first"].default_value <= MAX_PAGE
                assert "1 to 100" in (field.args["first"].description or "")


@pytest.mark.parametrize("field", ["completions", "configs", "models", "prices", "apiKeys", "auditLog"])
@pytest.mark.parametrize("first", [0, 101])
async def test_a_larger_page_is_refused(stage: Stage, field: str, first: int) -> None:
    data, errors = await stage.ask(f"{{ {field}(first: {first}) {{ pageInfo {{ hasNextPage }} }} }}")
    assert data == {field: None}
    assert [error["extensions"]["code"] for error in errors] == ["BAD_USER_INPUT"]


@dataclass
class Meter:
    """The stage's engine with buckets, whose clock stands still until it is moved."""

    stage: Stage
    now: float = 0.0

    def __post_init__(self) -> None:
        self.buckets = CostBuckets(BUCKET, RATE, lambda: self.now)
        self.engine = Engine(build_schema(), buckets=self.buckets)

    async def ask(
        self, query: str, variables: dict[str, Any] | None = None, principal: Principal = ANNA
    ) -> ExecutionResult:
        results = await self.engine.stream(
            query,
            variables=variables,
            operation_name=None,
            context=Context(self.stage.scene.services, principal, "request-1", AuditLog(MemoryAuditLog())),
            allowed=frozenset(OperationType),
        )
        if isinstance(results, ExecutionResult):
            return results
        async with aclosing(results):
            return await anext(results)

    async def prepare(self, query: str) -> None:
        """So that later it costs what it says alone."""
        self.engine._bills._documents.get(query)


@pytest.fixture
def meter(stage: Stage) -> Meter:
    return Meter(stage)


def cost(result: ExecutionResult) -> tuple[int, int, int]:
    assert result.extensions is not None
    told = result.extensions["cost"]
    status = told["throttleStatus"]
    assert (status["maximumAvailable"], status["restoreRate"]) == (BUCKET, RATE)
    return told["requestedQueryCost"], told["actualQueryCost"], status["currentlyAvailable"]


def codes(result: ExecutionResult) -> list[str]:
    return [error["extensions"]["code"] for error in formatted(result.errors or (), "request-1")]


async def test_an_answer_tells_what_it_cost_and_what_is_left(meter: Meter) -> None:
    await meter.prepare(RECORDS)
    result = await meter.ask(RECORDS, {"first": 20})
    assert result.data == {"completions": {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}}
    assert cost(result) == (1 + 20 * (1 + 1 + 3) + 1, 2, BUCKET - 2)
    meter.now += 0.01
    result = await meter.ask(RECORDS, {"first": 20})
    assert cost(result)[2] == BUCKET - 3


async def test_what_runs_is_reserved_at_what_it_may_come_to(meter: Meter) -> None:
    query = "{ models(first: 100) { nodes { id prices { input } } } }"
    await meter.prepare(query)
    meter.buckets.take(("acme", "anna"), BUCKET - 100)
    result = await meter.ask(query)
    assert codes(result) == ["RATE_LIMITED"]
    [error] = formatted(result.errors or (), "request-1")
    assert error["extensions"]["retryable"] is True
    assert error["extensions"]["retryAfterMs"] == (201 - 100) * 1000 / RATE
    assert cost(result) == (201, 0, 100)
    meter.now += (201 - 100) / RATE
    result = await meter.ask(query)
    assert result.errors is None
    assert cost(result)[0] == 201


async def test_each_caller_has_a_bucket_and_a_keys_tokens_share_the_keys(meter: Meter) -> None:
    query = "{ viewer { subject } }"
    await meter.prepare(query)
    key = replace(ANNA, subject="minted-1", key_id="key_1")
    assert cost(await meter.ask(query, principal=key)) == (1, 1, BUCKET - 1)
    assert cost(await meter.ask(query, principal=replace(key, subject="minted-2"))) == (1, 1, BUCKET - 2)
    assert cost(await meter.ask(query)) == (1, 1, BUCKET - 1)
    assert cost(await meter.ask(query, principal=replace(key, organisation="other"))) == (1, 1, BUCKET - 1)


async def test_a_document_is_prepared_at_its_callers_cost_once(meter: Meter) -> None:
    query = "{ " + " ".join(f"a{n}: viewer {{ subject }}" for n in range(20)) + " }"
    *_, left = cost(await meter.ask(query))
    assert 1 <= BUCKET - left - 20 <= BUCKET / 2
    assert cost(await meter.ask(query))[2] == left - 20


@pytest.mark.parametrize(
    "query", ["{", "{ missing }", "{ a " * 30 + "}" * 30, "query A { __typename } query B { __typename }"]
)
async def test_what_is_refused_costs_something_too(meter: Meter, query: str) -> None:
    await meter.ask(query)
    before = meter.buckets.throttle(("acme", "anna")).currently_available
    result = await meter.ask(query)
    assert result.data is None
    assert cost(result)[1:] == (1, before - 1)


async def test_nothing_new_is_parsed_for_whom_nothing_is_left(meter: Meter) -> None:
    meter.buckets.take(("acme", "anna"), BUCKET)
    result = await meter.ask("{ missing }")
    assert codes(result) == ["RATE_LIMITED"]
    assert len(meter.engine._bills._documents) == 0


async def test_variables_that_are_wrong_cost_what_was_requested(meter: Meter) -> None:
    await meter.prepare(MANY)
    result = await meter.ask(MANY, {"inputs": [{"bad": 1}] * 100})
    assert codes(result) == ["BAD_USER_INPUT"] * 10
    assert cost(result) == (510, 510, BUCKET - 510)


async def test_one_operation_costs_at_most_so_much(meter: Meter) -> None:
    query = "{ configs(first: 100) { nodes { versions(first: 100) { nodes { content { prompt } } } } } }"
    result = await meter.ask(query)
    [error] = formatted(result.errors or (), "request-1")
    assert error["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert error["extensions"]["limit"] == {"measure": "points of cost", "asked": 60_201, "limit": MAX_COST}
    assert cost(result)[:2] == (60_201, 1)


async def test_the_same_text_under_many_names_is_not_free(meter: Meter) -> None:
    names = " ".join(f"a{n}: prompt" for n in range(45))
    result = await meter.ask(f"{{ configs(first: 100) {{ nodes {{ draft {{ {names} }} }} }} }}")
    assert codes(result) == ["QUERY_TOO_COMPLEX"]


async def test_the_bytes_of_a_querys_answer_are_bounded(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    query = get_introspection_query()
    size = len(str((await meter.ask(query)).data))
    meter.now += BUCKET / RATE  # whatever its preparation took, there is room again
    monkeypatch.setattr(bills, "MAX_ANSWER_BYTES", size // 2)
    meter.engine.observer = told = Told()
    result = await meter.ask(query)
    assert told.codes == ["QUERY_TOO_COMPLEX"]
    assert result.data is None
    [error] = formatted(result.errors or (), "request-1")
    assert error["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert error["extensions"]["limit"]["measure"] == "bytes of answer"
    assert cost(result)[1] > bills.LARGE


async def test_a_subscription_tells_its_cost_with_the_first_event_alone(meter: Meter) -> None:
    await meter.prepare(STREAM)
    results = await meter.engine.stream(
        STREAM,
        variables={"input": {"model": "alpha/one", "messages": [{"role": "USER", "content": "hi"}]}},
        operation_name=None,
        context=Context(meter.stage.scene.services, ANNA, "request-1", AuditLog(MemoryAuditLog())),
        allowed=ALL,
    )
    assert not isinstance(results, ExecutionResult)
    async with aclosing(results):
        told = [event.extensions async for event in results]
    assert len(told) > 1
    assert told[0] is not None
    assert told[0]["cost"]["requestedQueryCost"] == told[0]["cost"]["actualQueryCost"] == requested(STREAM)
    assert set(map(str, told[1:])) == {"None"}
