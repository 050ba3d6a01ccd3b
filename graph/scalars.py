"""Scalars beyond GraphQL's own."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, NewType

import strawberry
from strawberry.types.scalar import ScalarDefinition

BigInt = NewType("BigInt", int)
"""A whole number that may pass 2^31, where GraphQL's Int ends; a JSON number."""


def _parse_big_int(value: Any) -> BigInt:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"BigInt cannot represent {value!r}")  # noqa: TRY004  # graphql-core expects ValueError
    return BigInt(value)


def _write_decimal(value: Decimal) -> str:
    """Every digit as it is, never an exponent; a zero has none to show."""
    return format(value, "f") if value else "0"


def _parse_decimal(value: Any) -> Decimal:
    if isinstance(value, str):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite():
            return number
    raise ValueError(f'Decimal cannot represent {value!r}: it is text, such as "0.25"')


SCALARS: dict[object, ScalarDefinition] = {
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number that may pass 2^31, as counts of tokens do. A JSON number.",
        serialize=int,
        parse_value=_parse_big_int,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='An exact decimal number, as money is: text in plain notation, such as "0.0000006".',
        serialize=_write_decimal,
        parse_value=_parse_decimal,
    ),
}
