"""When plans are used, when they are not, and how long they are kept. That they answer rightly is tested elsewhere."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import strawberry
from graphql import DocumentNode, execute, parse
from graphql.execution import Executor
from strawberry import Info
from strawberry.extensions import FieldExtension, ParserCache, SchemaExtension, ValidationCache
from strawberry.schema.config import StrawberryConfig

from graph import executor, plan
from graph.executor import CompiledExecutor
from graph.plan import Compiler, PlanCache


@strawberry.type
class Part:
    name: str
    size: int | None = None


class Shout(FieldExtension):
    def resolve(self, next_: Callable[..., Any], source: Any, info: Info, **kwargs: Any) -> Any:
        return next_(source, info, **kwargs).upper()


@strawberry.type
class Whole:
    title: str
    part: Part
    parts: list[Part]
    shouted: str = strawberry.field(extensions=[Shout()], default="loud")

    @strawberry.field
    def computed(self) -> str:
        return "computed"


@strawberry.type
class Query:
    @strawberry.field
    def whole(self, info: Info, size: int | None = None) -> Whole:
        return info.context.take()

    @strawberry.field
    async def later(self, info: Info) -> Whole | None:
        return info.context.take()


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def make(self, info: Info) -> Whole | None:
        return info.context.take()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def wholes(self, info: Info) -> AsyncGenerator[Whole, None]:
        for _ in range(3):
            yield info.context.take()


@dataclass
class Served:
    value: Any = field(default_factory=lambda: Whole(title="T", part=Part(name="a"), parts=[Part(name="b", size=2)]))
    taken: int = 0

    def take(self) -> Any:
        self.taken += 1
        return self.value


@dataclass
class Counts:
    """What ran: fields by graphql-core, and compilations."""

    fields: list[str] = field(default_factory=list)
    compiled: int = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    counts = Counts()
    execute_field, compile_ = Executor.execute_field, Compiler.compile

    def counting_field(self: Any, parent: Any, source: Any, details: Any, *rest: Any) -> Any:
        counts.fields.append(details[0].node.name.value)
        return execute_field(self, parent, source, details, *rest)

    def counting_compile(self: Compiler, *args: Any) -> Any:
        counts.compiled += 1
        return compile_(self, *args)

    monkeypatch.setattr(Executor, "execute_field", counting_field)
    monkeypatch.setattr(Compiler, "compile", counting_compile)
    return counts


def schema_of(**options: Any) -> strawberry.Schema:
    options.setdefault("extensions", [ParserCache, ValidationCache])
    return strawberry.Schema(Query, Mutation, Subscription, execution_context_class=CompiledExecutor, **options)


PLAIN = "title part { name size } parts { name }"
PLAIN_DATA = {"title": "T", "part": {"name": "a", "size": None}, "parts": [{"name": "b"}]}


@pytest.mark.parametrize("text", [f"{{ whole {{ {PLAIN} }} }}", f"mutation {{ make {{ {PLAIN} }} }}"])
async def test_the_value_of_a_field_is_completed_by_a_plan(counts: Counts, text: str) -> None:
    schema = schema_of()
    for _ in range(3):
        result = await schema.execute(text, context_value=Served())
        assert result.errors is None
        assert list((result.data or {}).values()) == [PLAIN_DATA]
    assert len(counts.fields) == 3
    assert counts.compiled == 1


async def test_events_run_by_plan(counts: Counts) -> None:
    schema = schema_of()
    served = Served()
    events = [event async for event in await schema.subscribe(f"subscription {{ wholes {{ {PLAIN} }} }}", None, served)]
    assert [event.data for event in events] == [{"wholes": PLAIN_DATA}] * 3
    assert served.taken == 3
    assert counts.fields == []
    assert counts.compiled == 1


def test_plans_serve_synchronous_execution(counts: Counts) -> None:
    result = schema_of().execute_sync(f"{{ whole {{ {PLAIN} }} }}", context_value=Served())
    assert result.data == {"whole": PLAIN_DATA}
    assert counts.fields == ["whole"]


@pytest.mark.parametrize("name", ["computed", "shouted"])
async def test_beside_a_resolver_or_an_extension_the_plain_rest_is_planned(counts: Counts, name: str) -> None:
    result = await schema_of().execute(f"{{ whole {{ {name} part {{ name }} }} }}", context_value=Served())
    assert result.data == {"whole": {name: {"computed": "computed", "shouted": "LOUD"}[name], "part": {"name": "a"}}}
    assert counts.fields == ["whole", name, "part"]


@pytest.mark.parametrize("operation", ["query", "mutation", "subscription"])
async def test_a_value_that_a_plan_gives_up_on_is_not_resolved_again(operation: str) -> None:
    served = Served()
    served.value.part.name = None
    served.value.parts = (part for part in [Part(name="once")])
    name = {"query": "later", "mutation": "make", "subscription": "wholes"}[operation]
    text = f"{operation} {{ {name} {{ parts {{ name }} part {{ name }} }} }}"
    schema = schema_of()
    if operation == "subscription":
        [first, *_] = [event async for event in await schema.subscribe(text, None, served)]
        assert served.taken == 3
    else:
        first = await schema.execute(text, context_value=served)
        assert served.taken == 1
        assert first.data == {name: None}
    assert [(error.message, error.path) for error in first.errors or ()] == [
        ("Cannot return null for non-nullable field Part.name.", [name, "part", "name"])
    ]


async def test_a_generator_of_items_is_read_once() -> None:
    served = Served()
    served.value.parts = (part for part in [Part(name="once")])
    result = await schema_of().execute("{ whole { title parts { name } } }", context_value=served)
    assert result.data == {"whole": {"title": "T", "parts": [{"name": "once"}]}}


async def test_after_a_number_of_failures_no_more_plans_are_tried(counts: Counts) -> None:
    served = Served()
    served.value.title = None
    text = "{" + " ".join(f"a{n}: later {{ part {{ name }} title }}" for n in range(executor.MAX_FAILURES + 5)) + "}"
    result = await schema_of().execute(text, context_value=served)
    assert set((result.data or {}).values()) == {None}
    assert len(result.errors or ()) == executor.MAX_FAILURES + 5
    assert counts.fields.count("name") == 6  # from the last failure on


async def test_conditions_are_compiled_by_value_and_other_variables_are_not(counts: Counts) -> None:
    schema = schema_of()
    text = "query ($yes: Boolean!, $size: Int) { whole(size: $size) { title part @include(if: $yes) { name } } }"
    for yes in (True, False, True, False):
        for size in range(3):
            result = await schema.execute(text, {"yes": yes, "size": size}, Served())
            assert ("part" in (result.data or {})["whole"]) is yes
    assert counts.compiled == 2


def test_plans_live_as_long_as_their_document() -> None:
    schema = schema_of()._schema
    cache = PlanCache.of(schema)
    document: DocumentNode | None = parse(f"{{ whole {{ {PLAIN} }} }}")
    for _ in range(2):
        assert document is not None
        execute(schema, document, context_value=Served(), executor_class=CompiledExecutor)
        assert len(cache) == 1
    document = None
    gc.collect()
    assert len(cache) == 0


def test_an_operation_among_other_fragments_has_other_plans() -> None:
    schema = schema_of()._schema
    [operation] = parse("{ whole { ...F } }").definitions
    for name in ("title", "computed", "title"):
        document = DocumentNode(definitions=(operation, *parse(f"fragment F on Whole {{ {name} }}").definitions))
        result = execute(schema, document, context_value=Served(), executor_class=CompiledExecutor)
        assert list((result.data or {})["whole"]) == [name]


@strawberry.type(name="Whole")
class OtherWhole:
    title: int


@strawberry.type(name="Query")
class OtherQuery:
    @strawberry.field
    def whole(self) -> OtherWhole:
        return OtherWhole(title=1)


def test_one_document_serves_several_schemas() -> None:
    document = parse("{ whole { __typename title } }")

    other = strawberry.Schema(OtherQuery)._schema
    for schema, title in ((schema_of()._schema, "T"), (other, 1), (schema_of()._schema, "T")):
        result = execute(schema, document, context_value=Served(), executor_class=CompiledExecutor)
        assert result.data == {"whole": {"__typename": "Whole", "title": title}}


@pytest.mark.parametrize(("name", "value"), [("MAX_FIELDS", 3), ("MAX_PLANS", 1)])
async def test_bounds_change_no_answer(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    monkeypatch.setattr(plan, name, value)
    schema = schema_of()
    text = f"{{ a: whole {{ {PLAIN} }} b: whole {{ {PLAIN} computed }} c: whole {{ title }} }}"
    for _ in range(2):
        result = await schema.execute(text, context_value=Served())
        assert result.data == {"a": PLAIN_DATA, "b": PLAIN_DATA | {"computed": "computed"}, "c": {"title": "T"}}


async def test_a_selection_past_the_bound_has_no_plan(monkeypatch: pytest.MonkeyPatch, counts: Counts) -> None:
    monkeypatch.setattr(plan, "MAX_FIELDS", 0)
    await schema_of().execute("{ whole { title } }", context_value=Served())
    assert counts.fields == ["whole", "title"]


class Reversed(SchemaExtension):
    def resolve(self, next_: Callable[..., Any], root: Any, info: Any, *args: Any, **kwargs: Any) -> Any:
        result = next_(root, info, *args, **kwargs)
        return result[::-1] if isinstance(result, str) else result


def upper(source: Any, name: str) -> Any:
    value = getattr(source, name)
    return value.upper() if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"extensions": [Reversed]}, "ba"),
        ({"config": StrawberryConfig(default_resolver=upper)}, "AB"),
        ({"config": StrawberryConfig(auto_camel_case=False)}, "ab"),
    ],
)
def test_what_changes_attribute_access_is_obeyed(options: dict[str, Any], expected: str) -> None:
    served = Served(Whole(title="ab", part=Part(name="a"), parts=[]))
    assert schema_of(**options).execute_sync("{ whole { title } }", context_value=served).data == {
        "whole": {"title": expected}
    }


@strawberry.interface
class Animal:
    name: str

    @classmethod
    def resolve_type(cls, value: Any, *_: Any) -> str:
        return "Dog" if value.name == "Rex" else "Cat"


@strawberry.type
class Dog(Animal):
    pass


@strawberry.type
class Cat(Animal):
    @classmethod
    def is_type_of(cls, value: Any, _: Any) -> bool:
        return bool(value.name != "Nobody")


@strawberry.type(name="Query")
class Animals:
    @strawberry.field
    def animals(self) -> list[Animal | None]:
        return [Cat(name="Rex"), Dog(name="Rex"), Dog(name="Tom"), Cat(name="Nobody")]

    @strawberry.field
    def cat(self) -> Cat | None:
        return Cat(name="Nobody")


def test_types_that_decide_for_themselves_are_asked() -> None:
    text = "{ animals { __typename name } cat { name } }"
    stock, compiled = (
        strawberry.Schema(Animals, types=[Dog, Cat], execution_context_class=executor).execute_sync(text)
        for executor in (None, CompiledExecutor)
    )
    assert compiled.data == stock.data
    assert [str(error) for error in compiled.errors or ()] == [str(error) for error in stock.errors or ()]
    assert compiled.errors


async def test_deferred_selections_are_left_to_graphql_core(counts: Counts) -> None:
    schema = schema_of(config=StrawberryConfig(enable_experimental_incremental_execution=True))
    text = "{ whole { title ... @defer { part { name } } } }"
    frames = [frame async for frame in await schema.stream(text, context_value=Served())]
    assert frames[0].data == {"whole": {"title": "T"}}
    assert counts.fields == ["whole", "title", "part", "name"]


def test_an_event_without_plan_leaves_nothing_behind() -> None:
    schema = schema_of()._schema
    document = parse("subscription { wholes { computed part { name } } }")
    built = CompiledExecutor.build(schema, document, context_value=Served())
    assert isinstance(built, CompiledExecutor)
    kept = []
    for _ in range(3):
        result = built.build_per_event_executor(Served().value).execute_operation(False)
        assert result.data == {"wholes": {"computed": "computed", "part": {"name": "a"}}}
        kept.append(len(built._relevant_sub_fields))
    assert len(set(kept)) == 1
