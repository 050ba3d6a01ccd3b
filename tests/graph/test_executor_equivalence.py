"""The compiled executor against Strawberry's own, on random selections of random data, good and bad."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from random import Random
from types import SimpleNamespace
from typing import Annotated, Any, NewType

import pytest
import strawberry
from graphql import DocumentNode, ExecutionResult, Undefined, execute, get_named_type, is_leaf_type, parse, subscribe
from graphql.execution import Executor
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry import Info
from strawberry.execution import optimized_is_awaitable
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graph.executor import CompiledExecutor

Even = NewType("Even", int)


def write_even(value: Any) -> int | None:
    """Fails, or gives nothing, as scalars may."""
    if value == 0:
        return None
    if value % 2:
        raise ValueError(f"{value} is odd")
    return int(value)


@strawberry.enum
class Colour(Enum):
    RED = "red"
    BLUE = strawberry.enum_value("blue", name="AZURE")


@strawberry.interface
class Node:
    id: strawberry.ID
    label: str | None


@strawberry.type
class Leaf(Node):
    text: str
    flag: bool
    number: int
    ratio: float | None
    money: Decimal | None
    at: datetime | None
    colour: Colour
    shade: Colour | None
    even: Even | None
    anything: JSON | None


@strawberry.type
class Lone:
    label: str | None
    twin: Lone | None
    node: Node | None
    words: list[str]

    @strawberry.field
    def resolved(self, info: Info) -> str:
        info.context.calls.append("resolved")
        return "by a resolver"


Either = Annotated[Leaf | Lone, strawberry.union("Either")]


@strawberry.type
class Branch(Node):
    leaf: Leaf
    child: Node | None
    children: list[Node]
    holes: list[Leaf | None] | None
    matrix: list[list[int | None]] | None
    either: Either | None
    eithers: list[Either] | None


@dataclass
class Served:
    """What the resolvers give; and which of them ran."""

    value: Any
    calls: list[str] = field(default_factory=list)

    def take(self, name: str) -> Any:
        self.calls.append(name)
        return self.value


@strawberry.type
class Fields:
    @strawberry.field
    async def node(self, info: Info) -> Node | None:
        return info.context.take("node")

    @strawberry.field
    def branch(self, info: Info) -> Branch:
        return info.context.take("branch")

    @strawberry.field
    def either(self, info: Info) -> Either | None:
        return info.context.take("either")

    @strawberry.field
    async def nodes(self, info: Info) -> list[Node | None] | None:
        return [info.context.take("nodes"), None]


@strawberry.type
class Query(Fields):
    pass


@strawberry.type
class Mutation(Fields):
    pass


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def node(self, info: Info) -> AsyncGenerator[Node | None, None]:
        yield info.context.take("node")
        yield None

    @strawberry.subscription
    async def branch(self, info: Info) -> AsyncGenerator[Branch, None]:
        yield info.context.take("branch")

    @strawberry.subscription
    async def either(self, info: Info) -> AsyncGenerator[Either, None]:
        yield info.context.take("either")

    @strawberry.subscription
    async def nodes(self, info: Info) -> AsyncGenerator[list[Node], None]:
        yield [info.context.take("nodes")] * 2


EVEN = strawberry.scalar(name="Even", serialize=write_even, parse_value=int)
SCHEMA = strawberry.Schema(
    Query, Mutation, Subscription, types=[Leaf, Branch], config=StrawberryConfig(scalar_map={Even: EVEN})
)
CORE = SCHEMA._schema
OBJECTS = {"node": "Node", "branch": "Branch", "either": "Either", "nodes": "Node"}
POSSIBLE = {"Node": ("Leaf", "Branch"), "Either": ("Leaf", "Lone")}


class Later:
    """An awaitable that can be awaited again."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self.value


class Again:
    """Iterable, but no list."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class RefusalError(Exception):
    pass


class Undecorated(Leaf):
    """A subclass that Strawberry has not been told of."""


class Raising(Leaf):
    @property
    def number(self) -> int:
        raise RuntimeError("no number today")

    @number.setter
    def number(self, value: int) -> None:
        pass


BAD = [None, Undefined, strawberry.UNSET, object, 7, 2**40, "red", "", 1.5, float("nan"), True, 3, [], {}, (1, None)]
BAD += [Again(), Later("x"), Later(None), RefusalError("an error as value"), b"bytes", Colour.BLUE]
BAD += [SimpleNamespace(id="of no type", label=None)]


@dataclass
class Data:
    """Makes objects; `bad` is the share of attributes that don't fit their field."""

    random: Random
    bad: float

    def some(self, *good: Any) -> Any:
        return self.random.choice(BAD if self.random.random() < self.bad else good)

    def maybe(self, make: Any, depth: int) -> Any:
        return self.some(make(depth - 1) if depth > 0 and self.random.random() < 0.8 else None)

    def several(self, make: Any, depth: int) -> Any:
        return self.some([make(depth - 1) for _ in range(self.random.randint(0, 3) if depth > 0 else 0)])

    def leaf(self, depth: int = 0) -> Any:
        made = self.random.choice([Undecorated, Raising] if self.random.random() < self.bad else [Leaf])(
            id=self.some("id"),
            label=self.some(None, "label"),
            text=self.some("", "text"),
            flag=self.some(True, False),
            number=self.some(-5, 5),
            ratio=self.some(None, 0.5, 2),
            money=self.some(None, Decimal("0.10")),
            at=self.some(None, datetime(2026, 1, 2, tzinfo=UTC)),
            colour=self.some(*Colour),
            shade=self.some(None, *Colour),
            even=self.some(None, 2, *([0, 1] if self.bad else [])),
            anything=self.some(None, {"a": [1]}, "text"),
        )
        return strawberry.cast(Branch, made) if self.random.random() < self.bad else made

    def lone(self, depth: int) -> Any:
        return Lone(
            label=self.some(None, "lone"),
            twin=self.maybe(self.lone, depth),
            node=self.maybe(self.node, depth),
            words=self.some([], ["a", "b"], ("c",)),
        )

    def branch(self, depth: int) -> Any:
        return Branch(
            id=self.some("branch"),
            label=self.some(None, "label"),
            leaf=self.some(self.leaf()),
            child=self.maybe(self.node, depth),
            children=self.several(self.node, depth),
            holes=self.several(lambda _: self.some(None, self.leaf()), depth),
            matrix=self.some(None, [], [[1, None], [2]], ([1], (3,))),
            either=self.maybe(self.either, depth),
            eithers=self.several(self.either, depth),
        )

    def node(self, depth: int) -> Any:
        return self.branch(depth) if depth > 0 and self.random.random() < 0.7 else self.leaf()

    def either(self, depth: int) -> Any:
        return self.lone(depth) if self.random.random() < 0.5 else self.leaf()

    def root(self, name: str) -> Any:
        return self.some({"node": self.node, "nodes": self.node, "branch": self.branch, "either": self.either}[name](3))


@dataclass
class Selections:
    """Makes documents that are valid but for the merging of fields that don't fit each other."""

    random: Random

    def directives(self) -> str:
        some = ["@include(if: $yes)", "@skip(if: $no)", "@skip(if: false)", "@include(if: $no) @skip(if: $no)"]
        return self.random.choice(["", "", "", "", *some])

    def of(self, type_name: str, depth: int, fragments: int = 0) -> str:
        chosen = [self.one(type_name, depth, fragments) for _ in range(self.random.randint(1, 6))]
        return "{ " + " ".join(chosen) + " }"

    def one(self, type_name: str, depth: int, fragments: int) -> str:
        kind = self.random.choice(["field", "field", "field", "field", "inline", "spread", "typename"])
        fields = getattr(CORE.type_map[type_name], "fields", {})
        if kind == "spread" and fragments < 3:
            return f"...F{self.random.randint(fragments, 2)} {self.directives()}"
        if depth > 0 and (kind == "inline" or not fields):
            on = self.random.choice([type_name, *POSSIBLE.get(type_name, ("Node",))])
            condition = "" if on == type_name and self.random.random() < 0.5 else f"on {on}"
            return f"... {condition} {self.directives()} {self.of(on, depth - 1, fragments)}"
        if kind == "typename" or not fields:
            return f"{self.random.choice(['', 'kind:', 'label:'])} __typename {self.directives()}"
        name = self.random.choice(sorted(fields))
        alias = self.random.choice(["", "", "", f"{name}2:"])
        inner = get_named_type(fields[name].type)
        if is_leaf_type(inner):
            return f"{alias} {name} {self.directives()}"
        return f"{alias} {name} {self.directives()} {self.of(inner.name, depth - 1, fragments)}"

    def document(self, operation: str, name: str) -> DocumentNode:
        selection = self.of(OBJECTS[name], 4)
        twice = "" if operation == "subscription" else f"again: {name} {self.of(OBJECTS[name], 3)}"
        text = f"{operation} ($yes: Boolean!, $no: Boolean = false) {{ {name} {selection} {twice} }}"
        for index in range(3):
            on = self.random.choice(["Leaf", "Branch", "Lone", "Node", "Either"])
            text += f" fragment F{index} on {on} {self.of(on, 2, index + 1)}"
        return parse(text)


async def run(
    executor: type[Executor[Any]], document: DocumentNode, value: Any, variables: dict[str, Any]
) -> tuple[list[tuple[str, list[Any]]], list[str]]:
    """Each result, data as text for its order of keys, and the resolvers that ran."""
    served = Served(value)
    arguments: dict[str, Any] = {
        "context_value": served,
        "variable_values": variables,
        "executor_class": executor,
        "operation_extensions": None,
    }
    if document.definitions[0].operation.value == "subscription":  # type: ignore[attr-defined]
        source: Any = subscribe(CORE, document, **arguments)
        source = await source if inspect.isawaitable(source) else source
        results = [source] if isinstance(source, ExecutionResult) else [result async for result in source]
    else:
        result: Any = execute(CORE, document, is_awaitable=optimized_is_awaitable, **arguments)  # type: ignore[arg-type]
        results = [await result if inspect.isawaitable(result) else result]
    return [(repr(each.data), [error.formatted for error in each.errors or ()]) for each in results], served.calls


async def compare(document: DocumentNode, value: Any, *variables: dict[str, Any]) -> None:
    for each in variables:
        expected = await run(StrawberryGraphQLCoreExecutionContext, document, value, each)
        assert await run(CompiledExecutor, document, value, each) == expected


@pytest.mark.parametrize("operation", ["query", "mutation", "subscription"])
@given(seed=st.integers(0, 2**64))
@settings(max_examples=80, deadline=None)
def test_answers_like_strawberrys_executor(operation: str, seed: int) -> None:
    random = Random(seed)
    name = random.choice(sorted(OBJECTS))
    value = Data(random, bad=random.choice([0, 0, 0.005, 0.02, 0.1])).root(name)
    document = Selections(random).document(operation, name)
    asyncio.run(compare(document, value, {"yes": True}, {"yes": False, "no": True}, {"yes": True}))


EACH = parse("""{ node {
    id label
    ... on Leaf { text flag number ratio money at colour shade even anything }
    ... on Branch { leaf { id } child { id } children { id } holes { id } matrix
        either { ... on Leaf { id } ... on Lone { words } } eithers { ... on Leaf { id } ... on Lone { words } } }
} }""")


@pytest.mark.parametrize("bad", BAD, ids=lambda value: type(value).__name__)
async def test_each_attribute_with_each_bad_value(bad: object) -> None:
    random = Random(0)
    good = Data(random, bad=0)
    for kind in (good.leaf, good.branch):
        for attribute in vars(kind(2)):
            value = kind(2)
            setattr(value, attribute, bad)
            await compare(EACH, value, {})


@pytest.mark.parametrize("bad", BAD, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("operation", ["query", "subscription"])
async def test_a_root_value_that_is_bad(operation: str, bad: object) -> None:
    for field_ in ("node { id }", "branch { id }", "either { __typename }", "nodes { id }"):
        await compare(parse(f"{operation} {{ {field_} }}"), bad, {})


async def test_fields_are_merged_by_place_and_not_by_their_first_node() -> None:
    """Within a plan, and where resolvers stand between plans."""
    good = Data(Random(0), bad=0)
    inner = good.branch(2)
    inner.child = inner
    await compare(
        parse("""
            { node { ... on Branch { a: child { ...F } b: child { ...F ...G } } } }
            fragment F on Branch { leaf { id } }
            fragment G on Branch { leaf { text } }
        """),
        inner,
        {},
    )
    await compare(
        parse("""
            { a: either { ...F } b: either { ...F ...G } }
            fragment F on Lone { resolved node { id } }
            fragment G on Lone { node { label } }
        """),
        Lone(label=None, twin=None, node=good.leaf(), words=[]),
        {},
    )
