"""Scalars beyond GraphQL's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from reprlib import repr as shown
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

BigInt = NewType("BigInt", int)
"""A whole number that may pass 2^31, where GraphQL's Int ends; a JSON number."""

Vector = NewType("Vector", Sequence[float])
"""The numbers of one embedding, written as they are: of thousands, none is worth a look of its own."""

_PLAIN = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,18})?")


def _parse_big_int(value: Any) -> BigInt:
    if isinstance(value, bool) or not isinstance(value, int):
        raise GraphQLError(f"BigInt cannot represent {shown(value)}")
    return BigInt(value)


def _parse_vector(value: Any) -> Vector:
    raise GraphQLError("Vector is no input")


def _write_decimal(value: Decimal) -> str:
    """Every digit as it is, never an exponent; a zero has none to show."""
    return format(value, "f") if value else "0"


def _parse_decimal(value: Any) -> Decimal:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return Decimal(value)
    raise GraphQLError(f'Decimal cannot represent {shown(value)}: it is text in plain notation, such as "0.25"')


SCALARS: dict[object, ScalarDefinition] = {
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number that may pass 2^31, as counts of tokens do. A JSON number.",
        serialize=int,
        parse_value=_parse_big_int,
    ),
    Vector: strawberry.scalar(
        name="Vector",
        description="A list of numbers, as an embedding is. It is only told, never taken.",
        serialize=lambda vector: vector,
        parse_value=_parse_vector,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='An exact decimal number, as money is: text in plain notation, such as "0.0000006". As an input it '
        "has up to 20 digits before the point and 18 behind it.",
        serialize=_write_decimal,
        parse_value=_parse_decimal,
    ),
}
