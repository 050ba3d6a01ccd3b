"""Scalars: whole numbers past 2^31, and money as text, whichever executor writes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import strawberry
from graphql import GraphQLError, GraphQLScalarType
from hypothesis import given
from hypothesis import strategies as st
from strawberry import Info
from strawberry.schema.config import StrawberryConfig

from graph.executor import CompiledExecutor
from graph.scalars import SCALARS, BigInt
from graph.schema import build_schema
from tests.persistence.entries import costs


@strawberry.type
class Bill:
    cost: Decimal | None
    tokens: BigInt


@strawberry.type
class Query:
    @strawberry.field
    def bill(self, info: Info) -> Bill:
        return Bill(cost=info.context, tokens=BigInt(2**53))

    @strawberry.field
    def sum(self, costs: list[Decimal]) -> Decimal:
        return sum(costs, Decimal(0))


EXECUTORS = {
    executor: strawberry.Schema(Query, config=StrawberryConfig(scalar_map=SCALARS), execution_context_class=executor)
    for executor in (None, CompiledExecutor)
}


def written(cost: Decimal | None) -> Any:
    """As both executors write it."""
    answers = [each.execute_sync("{ bill { cost tokens } }", context_value=cost) for each in EXECUTORS.values()]
    stock, compiled = (answer.data for answer in answers)
    assert stock == compiled
    assert stock is not None
    assert stock["bill"]["tokens"] == 2**53
    return stock["bill"]["cost"]


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (Decimal("6E-7"), "0.0000006"),
        (Decimal("-1.5E-9"), "-0.0000000015"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.00304"), "0.00304"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E-30"), "0." + "0" * 29 + "1"),
        (Decimal(12), "12"),
        (Decimal(0), "0"),
        (Decimal("0E-9"), "0"),
        (Decimal("0.000"), "0"),
        (Decimal("0E+3"), "0"),
        (Decimal("-0"), "0"),
        (None, None),
    ],
)
def test_money_is_in_plain_notation(cost: Decimal | None, text: str | None) -> None:
    assert written(cost) == text


@given(costs | st.decimals(allow_nan=False, allow_infinity=False))
def test_money_keeps_its_value_to_the_last_digit(cost: Decimal) -> None:
    text = SCALARS[Decimal].serialize(cost)
    assert Decimal(text) == cost
    assert "E" not in text.upper()


def test_the_product_writes_money_with_it() -> None:
    scalar = build_schema()._schema.get_type("Decimal")
    assert isinstance(scalar, GraphQLScalarType)
    assert scalar.coerce_output_value(Decimal("6E-7")) == "0.0000006"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_money_is_read_from_text(executor: type[CompiledExecutor] | None) -> None:
    result = EXECUTORS[executor].execute_sync(
        'query ($more: Decimal!) { sum(costs: ["0.1", "0.0000006", $more]) }', {"more": "0.2"}
    )
    assert result.data == {"sum": "0.3000006"}


@given(st.decimals(-(10**20) + 1, 10**20 - 1, places=18) | st.integers(-(10**20) + 1, 10**20 - 1).map(Decimal))
def test_what_is_written_can_be_read(cost: Decimal) -> None:
    assert SCALARS[Decimal].parse_value(SCALARS[Decimal].serialize(cost)) == cost


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", "0"), ("-0.5", "-0.5"), ("+2", "2"), ("007.50", "7.50"), ("9" * 20 + "." + "9" * 18,) * 2, ("-0", "0")],
)
def test_plain_notation(text: str, number: str) -> None:
    assert SCALARS[Decimal].parse_value(text) == Decimal(number)


NOT_PLAIN = [
    *("1_000", " 1 ", "1\n", "\t1", "1,5", "1.5.2", ".5", "5.", "--1", "+-1", "+", "-", ".", "0x1", "1 000"),
    *("6E-7", "1e3", "1e999999", "sNaN", "-Infinity", "inf"),
    *("\u0661", "\uff11", "\u00b2"),
    *("1" * 21, "0." + "1" * 19, "0" * 21, "1" * 1_000_000),
]


@pytest.mark.parametrize(
    "value",
    ["", "x", "NaN", "Infinity", 0.1, 1, True, None, ["1"], {"a": 1}, *NOT_PLAIN],
    ids=lambda each: str(each)[:9],
)
def test_what_is_no_exact_number_is_refused(value: Any) -> None:
    with pytest.raises(GraphQLError, match="Decimal cannot represent"):
        SCALARS[Decimal].parse_value(value)
    result = EXECUTORS[None].execute_sync("query ($it: Decimal!) { sum(costs: [$it]) }", {"it": value})
    assert result.data is None
    assert result.errors


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_big_whole_number_is_a_number(value: Any) -> None:
    with pytest.raises(GraphQLError, match="BigInt cannot represent"):
        SCALARS[BigInt].parse_value(value)
    assert SCALARS[BigInt].parse_value(2**53) == 2**53
