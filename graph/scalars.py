"""Scalars beyond GraphQL's own."""

from __future__ import annotations

from typing import Any, NewType

import strawberry
from strawberry.types.scalar import ScalarDefinition

BigInt = NewType("BigInt", int)
"""A whole number that may pass 2^31, where GraphQL's Int ends; a JSON number."""


def _parse_big_int(value: Any) -> BigInt:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"BigInt cannot represent {value!r}")  # noqa: TRY004  # graphql-core expects ValueError
    return BigInt(value)


SCALARS: dict[object, ScalarDefinition] = {
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number that may pass 2^31, as counts of tokens do. A JSON number.",
        serialize=int,
        parse_value=_parse_big_int,
    )
}
