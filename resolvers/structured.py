"""Answers in JSON: what schema may be asked for, and whether an answer keeps to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs
import orjson

from providers.types import FinishReason, ProviderCompletion, ResponseFormat

from .errors import BadUserInputError
from .nesting import MAX_PARSED_DEPTH, nested_beyond
from .schema_effort import effort_of

MAX_SUBSCHEMAS = 10_000
MAX_STEPS = 20_000_000
"""Subschemas times values of the answer: about half a second, in which nothing else is done."""
_STEPS_TOLD = 10_000
"""Up to here it is told which place breaks which rule: that takes a thousand times as long to find out."""

_WHOLE = (FinishReason.STOP, FinishReason.OTHER)


class NotAsAskedError(Exception):
    """The answer is not JSON, or not what the schema describes; one line, without the answer's text."""


def format_of(value: Mapping[str, Any] | None, *, path: tuple[str | int, ...]) -> ResponseFormat | None:
    """From the JSON of the API's ResponseFormatInput: {"json": true} or {"jsonSchema": {"schema": …}}. Raises
    BadUserInputError."""
    if value is None:
        return None
    if value == {"json": True}:
        return ResponseFormat()
    asked = value.get("jsonSchema")
    if len(value) == 1 and isinstance(asked, Mapping) and asked.keys() <= {"schema", "name", "strict"}:
        schema, name, strict = (asked.get(key) for key in ("schema", "name", "strict"))
        if isinstance(schema, Mapping) and isinstance(name, str | None) and isinstance(strict, bool | None):
            return ResponseFormat(schema, "answer" if name is None else name, strict=strict is not False)
    raise BadUserInputError(
        'responseFormat is {"json": true}, or {"jsonSchema": {"schema": …, "name": …, "strict": …}}', path=path
    )


def check_format(response_format: ResponseFormat, *, path: tuple[str | int, ...]) -> None:
    """Raises BadUserInputError for what is no JSON Schema, refers to another document, or is too much work."""
    if response_format.schema is None:
        return
    try:
        if effort_of(response_format.schema).size > MAX_SUBSCHEMAS:
            raise ValueError(f"with its references followed it has more than {MAX_SUBSCHEMAS:,} subschemas")
        jsonschema_rs.validator_for(dict(response_format.schema), retriever=_refuse)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        reason = str(getattr(error, "message", error)).partition("\n")[0][:200]
        raise BadUserInputError(f"not a JSON Schema that can be used: {reason}", path=path) from None


def parsed(response_format: ResponseFormat | None, answer: ProviderCompletion) -> Any:
    """The answer's JSON; None where none was asked for, or the answer ended otherwise than by itself: cut short, with
    tool calls, or refused. Raises NotAsAskedError."""
    if response_format is None or answer.finish_reason not in _WHOLE:
        return None
    try:
        value = orjson.loads(answer.content or "")
    except orjson.JSONDecodeError:
        raise NotAsAskedError("the answer is not JSON") from None
    if nested_beyond(value, MAX_PARSED_DEPTH):
        raise NotAsAskedError(f"the answer's JSON is nested more than {MAX_PARSED_DEPTH} deep")
    if response_format.schema is None:
        if not isinstance(value, dict):
            raise NotAsAskedError("the answer is JSON, but no object")
        return value
    _check(response_format.schema, value, answer.content or "")
    return value


def _check(schema: Mapping[str, Any], value: Any, text: str) -> None:
    effort = effort_of(schema)
    steps = effort.size * (1 + sum(text.count(mark) for mark in ",[{"))
    if steps > MAX_STEPS:
        raise NotAsAskedError("the answer is too long to be held against so large a schema")
    validator = jsonschema_rs.validator_for(dict(schema), retriever=_refuse)
    if validator.is_valid(value):
        return
    if not effort.recursive and steps <= _STEPS_TOLD:
        try:
            validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            place = ".".join(str(part) for part in error.instance_path) or "the whole"
            rule = "/".join(str(part) for part in error.schema_path)
            raise NotAsAskedError(
                f"the answer does not keep to the schema: {place[:200]} against {rule[:200]}"
            ) from None
    raise NotAsAskedError("the answer does not keep to the schema")


def _refuse(uri: str) -> NoReturn:
    """Nothing is fetched for a schema."""
    raise ValueError(f"{uri} is another document")
