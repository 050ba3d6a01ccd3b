"""Answers in JSON: what schema may be asked for, and whether an answer keeps to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs
import orjson

from providers.types import FinishReason, ProviderCompletion, ResponseFormat

from .errors import BadUserInputError

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
    """Raises BadUserInputError for what is no JSON Schema, or refers to another document."""
    if response_format.schema is None:
        return
    try:
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
    if response_format.schema is None:
        if not isinstance(value, dict):
            raise NotAsAskedError("the answer is JSON, but no object")
        return value
    validator = jsonschema_rs.validator_for(dict(response_format.schema), retriever=_refuse)
    for error in validator.iter_errors(value):
        place = ".".join(str(part) for part in error.instance_path) or "the whole"
        rule = "/".join(str(part) for part in error.schema_path)
        raise NotAsAskedError(f"the answer does not keep to the schema: {place[:200]} against {rule[:200]}")
    return value


def _refuse(uri: str) -> NoReturn:
    """Nothing is fetched for a schema."""
    raise ValueError(f"{uri} is another document")
