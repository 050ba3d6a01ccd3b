"""A line of a batch's file: a CompleteInput as JSON, read as GraphQL reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from graphql import GraphQLError, GraphQLInputType, GraphQLSchema, Undefined
from graphql.utilities import coerce_input_value, validate_input_value
from strawberry.schema.config import StrawberryConfig

from graph.completions.inputs import CompleteInput, ConfigRef
from graph.errors import without_values
from graph.inputs import built
from graph.values import MAX_VALUES, count_values
from resolvers.batches.asked import ItemAsked
from resolvers.errors import BadUserInputError, QueryTooComplexError
from resolvers.nesting import MAX_JSON_DEPTH, nested_beyond

CUSTOM_ID = "customId"

Defaults = tuple[str | None, ConfigRef | None]
"""The model or the config of inputs that name neither."""


def item_asked(given: CompleteInput, defaults: Defaults, custom_id: str | None = None) -> ItemAsked:
    """Raises BadUserInputError, its path from `input` on."""
    if given.model is None and given.config is None:
        given.model, given.config = defaults
    return ItemAsked(given.command() if given.config is None else given.call(given.config), custom_id)


def reader(schema: GraphQLSchema, config: StrawberryConfig, defaults: Defaults) -> Callable[[bytes], ItemAsked]:
    """Of lines. What it returns raises BadUserInputError, its path from `input` on."""
    kind: Any = schema.get_type("CompleteInput")

    def read(line: bytes) -> ItemAsked:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadUserInputError(f"is not JSON ({error.msg} at character {error.colno})", path=("input",)) from None
        if not isinstance(value, dict):
            raise BadUserInputError("is no JSON object", path=("input",))
        try:
            count_values(value)
        except QueryTooComplexError:
            raise BadUserInputError(f"has more than {MAX_VALUES} values", path=("input",)) from None
        if nested_beyond(value, MAX_JSON_DEPTH + 10):
            raise BadUserInputError("is nested too deep", path=("input",))
        custom_id = value.pop(CUSTOM_ID, None)
        if custom_id is not None and not isinstance(custom_id, str):
            raise BadUserInputError("customId is a text", path=("input", CUSTOM_ID))
        coerced = coerce_input_value(value, kind)
        if coerced is Undefined:
            raise _refusal(value, kind)
        return item_asked(built(CompleteInput, coerced, config), defaults, custom_id)

    return read


def _refusal(value: Any, kind: GraphQLInputType) -> BadUserInputError:
    """What is wrong first."""
    found: list[BadUserInputError] = []

    def note(error: GraphQLError, path: list[str | int]) -> None:
        found.append(BadUserInputError(without_values(error.message), path=("input", *path)))

    validate_input_value(value, kind, note, hide_suggestions=True)
    return found[0] if found else BadUserInputError("is no CompleteInput", path=("input",))
