"""What a document may come to, and that finding out takes little CPU whatever is sent."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import reduce
from time import thread_time
from typing import Any

import pytest
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_introspection_query,
    parse,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from graph import documents, shape, values
from graph.context import Context
from graph.documents import DocumentCache, RefusedError
from graph.engine import Engine
from graph.errors import MAX_MESSAGE, formatted
from graph.schema import build_schema
from graph.shape import LIMITS, Shape, check_shape
from resolvers.audit import AuditLog
from resolvers.errors import QueryTooComplexError
from resolvers.principal import Principal

from .stage import ALL, LATER, Stage

SCHEMA = build_schema()._schema
MOST_CPU_S = 0.1
"""The most that is seen here is 25 ms."""


def fragments(count: int, body: Callable[[int], str]) -> str:
    return " ".join(f"fragment f{number} on Query {{ {body(number)} }}" for number in range(count))


HOSTILE: dict[str, tuple[str, str]] = {
    "spreads that double 22 times in 824 bytes": (
        "{ ...f0 }" + fragments(22, lambda n: f"...f{n + 1} ...f{n + 1}") + "fragment f22 on Query { __typename }",
        "fields",
    ),
    "spreads that double, of fragments without a field": (
        "{ __typename ...f0 }" + fragments(90, lambda n: f"...f{n + 1} ...f{n + 1}") + "fragment f90 on Query { }",
        "fragment spreads",
    ),
    "400 overlapping fragments": (
        "{ "
        + " ".join(f"...f{n}" for n in range(400))
        + " }"
        + fragments(400, lambda n: f"configs {{ nodes {{ a{n}: id }} }}"),
        "tokens",
    ),
    "fields that overlap 490 times": (
        "{ configs { nodes { " + "id " * 490 + "} } }",
        "comparisons of overlapping fields",
    ),
    "one more than 100 fragments": (
        "{ __typename }" + fragments(101, lambda _: "__typename"),
        "fragments",
    ),
    "10,000 operations": (" ".join(f"query q{n} {{ __typename }}" for n in range(10_000)), "characters in a document"),
    "200 operations": (" ".join(f"query q{n} {{ __typename }}" for n in range(200)), "operations"),
    "1 MB of comments": ("#\n" * 500_000 + "{ __typename }", "characters in a document"),
    "64,000 comments": ("#\n" * 64_000 + "{ __typename }", "comments"),
    "5,000 duplicated fields": ("{" + "__typename " * 5_000 + "}", "tokens"),
    "1,900 duplicated fields": ("{" + "__typename " * 1_900 + "}", "fields"),
    "2,000 @include": ("{ __typename " + "@include(if: true) " * 2_000 + "}", "tokens"),
    "250 @include": ("{ __typename " + "@include(if: true) " * 250 + "}", "directives"),
    "1,000 aliases": ("{" + " ".join(f"a{n}: __typename" for n in range(1_000)) + "}", "tokens"),
    "160 aliases": ("{ viewer {" + " ".join(f"a{n}: subject" for n in range(160)) + "} }", "aliases"),
    "21 root fields": ("{" + "viewer { subject } " * 21 + "}", "root fields"),
    "5,000 levels": ("{ a " * 5_000 + "}" * 5_000, "levels of nesting"),
    "150 levels": ("{ a " * 150 + "}" * 150, "levels of fields"),
    "a list within 5,000 lists": ("{ config(by: " + "[" * 5_000 + "]" * 5_000 + ") { id } }", "levels of nesting"),
    "1,000 objects in a list": (
        "{ configs(filter: [" + '{ label: { name: "a", value: "b" } } ' * 1_000 + "]) { nodes { id } } }",
        "tokens",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _quiet_collector() -> Iterator[None]:
    """As the server has it: else a collection of all that the tests hold falls into what is measured."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def cache() -> DocumentCache:
    return DocumentCache(SCHEMA)


def refusals(cache: DocumentCache, text: str) -> tuple[list[Any], float]:
    """Of the document, with the CPU that they took."""
    started = thread_time()
    with pytest.raises(RefusedError) as caught:
        cache.get(text)
    return caught.value.errors, thread_time() - started


@pytest.mark.parametrize("name", HOSTILE)
def test_too_much_is_refused_by_name_and_number_within_little_cpu(cache: DocumentCache, name: str) -> None:
    text, what = HOSTILE[name]
    (error,), took_s = refusals(cache, text)
    [told] = formatted([error], "request-1")
    assert told["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    limit = told["extensions"]["limit"]
    assert limit["measure"] == what
    assert str(limit["limit"]) in told["message"]
    assert limit["asked"] is None or limit["asked"] > limit["limit"]
    assert took_s < MOST_CPU_S


WRONG = {
    "variables of no use": "query(" + " ".join(f"$v{n}: Int" for n in range(300)) + ") { __typename }",
    "fields that there are not": "{ viewer {" + " ".join(f"subjec{n}" for n in range(400)) + " } }",
    "arguments that there are not": "{ viewer(" + " ".join(f"conf{n}: 1" for n in range(450)) + ") { subject } }",
    "types that there are not": "query(" + " ".join(f"$v{n}: Confi{n}" for n in range(400)) + ") { __typename }",
    "a name of 100,000 letters": "{ " + "configs" * 14_000 + " }",
    "objects within objects": "{ config(by: " + "{ slug: " * 180 + "1" + " }" * 180 + ") { id } }",
    "fields that conflict": "{" + " ".join(f"a: configs(first: {n}) {{ nodes {{ id }} }}" for n in range(20)) + "}",
    "a cycle": "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
    "a text that is no enum's value": '{ configs(orderBy: "' + "x" * 100_000 + '") { nodes { id } } }',
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_briefly_within_little_cpu(cache: DocumentCache, name: str) -> None:
    errors, took_s = refusals(cache, WRONG[name])
    told = formatted(errors, "request-1")
    assert 1 <= len(told) <= 10
    assert {error["extensions"]["code"] for error in told} == {"BAD_USER_INPUT"}
    assert max(len(error["message"]) for error in told) <= MAX_MESSAGE + 1
    assert took_s < MOST_CPU_S


LARGE_BUT_FINE = {
    "a text": '{ config(by: { slug: "' + "x" * 120_000 + '" }) { id } }',
    "a text of escapes": '{ config(by: { slug: "' + r"\u0041" * 20_000 + '" }) { id } }',
    "a text of lines": '{ config(by: { slug: """' + "x\n" * 60_000 + '""" }) { id } }',
    "comments": ("#" + "x" * 120 + "\n") * 1_000 + "{ __typename }",
    "commas": "{" + "," * 130_000 + "__typename }",
    "fragments within fragments": "{" + "... { " * 150 + "__typename" + " }" * 150 + "}",
    "literals": "mutation { completeMany(inputs: ["
    + '{ model: "a/b", messages: [{ role: USER, content: "hi" }], labels: [{ name: "a", value: "b" }] }' * 50
    + "]) { __typename } }",
}


@pytest.mark.parametrize("name", LARGE_BUT_FINE)
def test_what_is_large_is_prepared_within_little_cpu(cache: DocumentCache, name: str) -> None:
    started = thread_time()
    assert cache.get(LARGE_BUT_FINE[name]).operations
    assert thread_time() - started < MOST_CPU_S


VARIABLES: dict[str, Any] = {
    "a number for each object": [1] * 9_000,
    "empty objects": [{}] * 9_000,
    "fields that there are not": [{f"bad{n}": "x" * 100 for n in range(9_000)}],
    "lists within lists": reduce(lambda within, _: [within], range(900), []),
    "a text of 4 MB": "x" * 4_000_000,
    "texts in the place of objects": [{"messages": "x" * 100_000, "tools": ["y" * 10_000] * 50}] * 10,
    "JSON within JSON": [{"providerOptions": reduce(lambda within, _: {"a": within}, range(900), {})}] * 5,
}


MANY = """
mutation Many($inputs: [CompleteInput!]!) {
  completeMany(inputs: $inputs) { ... on CompletionFailure { code message } }
}
"""


@pytest.mark.parametrize("name", VARIABLES)
async def test_variables_that_are_wrong_take_little_cpu(stage: Stage, name: str) -> None:
    await stage.ask(MANY, {"inputs": []})
    started = thread_time()
    data, errors = await stage.ask(MANY, {"inputs": VARIABLES[name]})
    assert thread_time() - started < MOST_CPU_S
    if not errors:  # each is a failure of its own
        assert data is not None
        errors = [{"message": each["message"], "extensions": each} for each in data["completeMany"]]
    assert 1 <= len(errors) <= 10
    assert {error["extensions"]["code"] for error in errors} <= {"BAD_USER_INPUT", "QUERY_TOO_COMPLEX"}
    assert max(len(error["message"]) for error in errors) <= MAX_MESSAGE + 1
    assert "xxxx" not in str(errors)


async def test_variables_hold_a_bounded_number_of_values(stage: Stage) -> None:
    started = thread_time()
    _, errors = await stage.ask(MANY, {"inputs": ["a"] * 1_000_000})
    assert thread_time() - started < MOST_CPU_S
    [error] = errors
    assert error["extensions"]["limit"] == {
        "measure": "values in variables", "asked": 1_000_001, "limit": values.MAX_VALUES
    }  # fmt: skip


def test_values_are_counted_wherever_they_are() -> None:
    assert values.count_values({}) == 0
    assert values.count_values({"a": 1, "b": [1, [2, 3]], "c": {"d": {"e": None}}}) == 9
    assert values.count_values({"a": [0] * (values.MAX_VALUES - 1)}) == values.MAX_VALUES
    with pytest.raises(QueryTooComplexError):
        values.count_values({"a": [0] * values.MAX_VALUES})
    with pytest.raises(QueryTooComplexError):
        values.count_values({"a": [[0] * 100] * 101})


@pytest.mark.parametrize("name", ["cannot represent " * 200_000, "found: " * 500_000, "String '" * 500_000])
async def test_an_operations_name_is_not_told_at_length(stage: Stage, name: str) -> None:
    context = Context(stage.scene.services, Principal("a", "b", frozenset(), LATER), "r", AuditLog(stage.log))
    started = thread_time()
    result = await stage.engine.execute(
        "query A { __typename }", variables=None, operation_name=name, context=context, allowed=ALL
    )
    [error] = formatted(result.errors or (), "request-1")
    assert thread_time() - started < MOST_CPU_S
    assert len(error["message"]) <= MAX_MESSAGE + 1


@pytest.mark.parametrize("descriptions", [True, False])
def test_introspection_is_within_the_limits(cache: DocumentCache, descriptions: bool) -> None:
    text = get_introspection_query(
        descriptions, specified_by_url=True, directive_is_repeatable=True, schema_description=True,
        input_value_deprecation=True,
    )  # fmt: skip
    assert cache.get(text).operations


@pytest.mark.parametrize(
    "query",
    [
        "{ __schema { types { name } } }",
        '{ __type(name: "Config") { name } }',
        "query ($yes: Boolean!) { ... @include(if: $yes) { ...I } } fragment I on Query { __schema { __typename } }",
    ],
)  # fmt: skip
def test_where_the_schema_is_not_to_be_explored_it_can_not_be_asked_for(query: str) -> None:
    (error, *_), _ = refusals(DocumentCache(SCHEMA, explorable=False), query)
    assert "introspection" in error.message
    assert DocumentCache(SCHEMA).get(query).operations


NEAR_MISSES: list[tuple[str, dict[str, Any]]] = [
    ("{ viewr { subject } }", {}),
    ("{ viewer { subjct } }", {}),
    ("{ configs(frst: 1) { nodes { id } } }", {}),
    ("{ configs(orderBy: UPDATD) { nodes { id } } }", {}),
    ("{ configs(filter: { archved: true }) { nodes { id } } }", {}),
    ("query ($f: ConfigFiltr) { configs(filter: $f) { nodes { id } } }", {}),
    ("{ viewer { ... on Viewr { subject } } }", {}),
    ("{ viewer @inclde(if: true) { subject } }", {}),
    ("{ viewer @include(f: true) { subject } }", {}),
    ("query ($f: ConfigFilter) { configs(filter: $f) { nodes { id } } }", {"f": {"archved": True}}),
    ("query ($o: ConfigOrder! = SLUG) { configs(orderBy: $o) { nodes { id } } }", {"o": "SLUGS"}),
    ("subscription ($i: CompleteInput!) { completionStream(input: $i) { __typename } }", {"i": {"modl": "a/b"}}),
    ("subscription { completionStrem(input: {}) { __typename } }", {}),
]


@pytest.mark.parametrize(("query", "variables"), NEAR_MISSES)
async def test_where_the_schema_is_not_to_be_explored_no_error_suggests_what_it_has(
    stage: Stage, query: str, variables: dict[str, Any]
) -> None:
    open_, closed = [Stage(stage.scene, Engine(build_schema(), explorable=each)) for each in (True, False)]
    _, errors = await closed.ask(query, variables)
    assert errors
    assert "did you mean" not in str(errors).lower()
    _, errors = await open_.ask(query, variables)
    assert errors


def test_near_misses_are_near() -> None:
    """Else the test above would hold nothing."""
    cache = DocumentCache(SCHEMA)
    suggesting = [text for text, _ in NEAR_MISSES if "query ($" not in text and "subscription ($" not in text]
    told = {text: str(refusals(cache, text)[0]) for text in suggesting}
    assert sum("Did you mean" in each for each in told.values()) >= len(told) - 3


def naive(document: DocumentNode, selections: SelectionSetNode, depth: int = 0) -> Shape:
    """By the definition, every spread walked again."""
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    found = Shape()
    for selection in selections.selections:
        inner = Shape(directives=len(selection.directives or ()))
        match selection:
            case FieldNode():
                within = naive(document, selection.selection_set, depth + 1) if selection.selection_set else Shape()
                inner = together(
                    inner, within, Shape(depth + 1, 1, int(selection.alias is not None), 0, int(depth == 0), 0)
                )
            case InlineFragmentNode():
                inner = together(inner, naive(document, selection.selection_set, depth), Shape(spreads=1))
            case FragmentSpreadNode():
                fragment = fragments[selection.name.value]
                own = Shape(directives=len(fragment.directives or ()), spreads=1)
                inner = together(inner, naive(document, fragment.selection_set, depth), own)
        found = together(found, inner)
    return found


def together(*shapes: Shape) -> Shape:
    return Shape(
        max(each.depth for each in shapes),
        sum(each.fields for each in shapes),
        sum(each.aliases for each in shapes),
        sum(each.directives for each in shapes),
        sum(each.root_fields for each in shapes),
        sum(each.spreads for each in shapes),
    )


def selections(spreadable: list[str]) -> st.SearchStrategy[str]:
    directives = st.sampled_from(["", "", " @skip(if: false)", " @skip(if: false) @include(if: true)"])
    leaf = st.builds(lambda alias, rest: f"{alias}x{rest}", st.sampled_from(["", "", "a: ", "b: "]), directives)
    spread = [st.builds(lambda name, rest: f"...{name}{rest}", st.sampled_from(spreadable), directives)] * bool(
        spreadable
    )
    flat = st.lists(st.one_of(leaf, *spread), min_size=1, max_size=3).map(" ".join)
    return st.recursive(
        flat,
        lambda within: st.lists(
            st.one_of(within, within.map("y {{ {} }}".format), within.map("... {{ {} }}".format)),
            min_size=1,
            max_size=3,
        ).map(" ".join),
        max_leaves=6,
    )  # fmt: skip


@st.composite
def whole_documents(draw: st.DrawFn) -> str:
    names = [f"f{number}" for number in range(draw(st.integers(0, 4)))]
    parts = [f"query {{ {draw(selections(names))} }}"]
    for index, name in enumerate(names):
        parts.append(f"fragment {name} on T {{ {draw(selections(names[index + 1 :]))} }}")
    return " ".join(draw(st.permutations(parts)))


@given(whole_documents())
@settings(max_examples=100, deadline=None)
def test_the_pass_measures_what_a_naive_walk_does(text: str) -> None:
    document = parse(text)
    [operation] = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    assert shape._shape(operation, fragments, {}) == naive(document, operation.selection_set)


@pytest.mark.parametrize("field", ["fields", "aliases", "directives", "root_fields", "depth", "spreads"])
def test_each_limit_is_what_it_says(field: str) -> None:
    most = getattr(LIMITS, field)
    for count in (most, most + 1):
        text = {
            "fields": "{ a { " + "x " * (count - 1) + "} }",
            "aliases": "{ a { " + " ".join(f"a{n}: x" for n in range(count)) + "} }",
            "directives": "{ x " + "@skip(if: false) " * count + "}",
            "root_fields": "{ " + "x " * count + "}",
            "depth": "{ a " * (count - 1) + "{ x " + "}" * count,
            "spreads": "{ ...f } fragment f on Query { " + "...g " * (count - 1) + "} fragment g on Query { }",
        }[field]  # fmt: skip
        if count == most:
            check_shape(parse(text))
        else:
            with pytest.raises(QueryTooComplexError) as caught:
                check_shape(parse(text))
            assert (caught.value.asked, caught.value.limit) == (count, most)


def test_a_document_of_too_many_tokens_has_as_many_as_may_be_one_fewer(cache: DocumentCache) -> None:
    arguments = (documents.MAX_TOKENS - 20) // 3
    text = "{ viewer(" + " ".join(f"a{n}: 1" for n in range(arguments)) + ") { subject } }"
    errors, took_s = refusals(cache, text)
    assert "Unknown argument" in errors[0].message
    assert took_s < MOST_CPU_S
