"""Bounds on what a caller may ask, checked before anything is sent. Each refusal names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import orjson

from providers.types import ResponseFormat, Tool, ToolChoice

from .errors import BadUserInputError
from .message_checks import check_messages
from .nesting import MAX_JSON_DEPTH, nested_beyond
from .routing import Vendor, check_targets
from .structured import check_format
from .types import Command, CompleteCommand

MAX_TIMEOUT_MS = 300_000
MAX_FALLBACKS = 8
MAX_LABELS = 20
MAX_LABEL_LENGTH = 256
MAX_KEY_LENGTH = 256
MAX_STOPS = 16
MAX_TOOLS = 128
MAX_NAME_LENGTH = 256

_TOOL_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_LENGTH}}}")


def check_command(command: CompleteCommand, vendors: Mapping[str, Vendor]) -> None:
    """Raises BadUserInputError, its `path` from `input` on."""
    check_call(command, command.provider_options, vendors)
    check_messages(command.messages)
    if command.response_format is not None:
        _check_response_format(command.response_format)
    check_range("logprobs", command.logprobs, 0, 20)
    check_range("temperature", command.temperature, 0, 2)
    check_range("topP", command.top_p, 0, 1)
    check_range("maxTokens", command.max_tokens, 1, 10_000_000)
    _check_stops(command.stop)
    _check_tools(command.tools, command.tool_choice)


def check_call(command: Command, options: Mapping[str, object], vendors: Mapping[str, Vendor]) -> None:
    """What every call to a vendor says: where it goes, for how long, on whose behalf. Raises BadUserInputError."""
    _check_targets(command, vendors)
    check_range("timeoutMs", command.timeout_ms, 1, MAX_TIMEOUT_MS)
    _check_length("endUser", command.end_user)
    _check_length("idempotencyKey", command.idempotency_key)
    _check_labels(command.labels)
    if unknown := sorted(set(options) - set(vendors)):
        raise BadUserInputError(f"no provider named {unknown[0][:100]!r}", path=("input", "providerOptions"))
    if options:
        check_json(options, path=("input", "providerOptions"))


def _check_targets(command: Command, vendors: Mapping[str, Vendor]) -> None:
    _check_count("fallbacks", command.fallbacks, MAX_FALLBACKS)
    fallbacks = ((target, ("input", "fallbacks", index)) for index, target in enumerate(command.fallbacks))
    targets = [(command.target, ("input", "model")), *fallbacks]
    for target, path in targets:
        if len(target.model) > MAX_NAME_LENGTH:
            raise BadUserInputError(f"a model's name has at most {MAX_NAME_LENGTH} characters", path=path)
    check_targets(targets, vendors)


def _check_stops(stops: Sequence[str]) -> None:
    _check_count("stop", stops, MAX_STOPS)
    if "" in stops:
        raise BadUserInputError("a stop text has at least one character", path=("input", "stop", stops.index("")))


def _check_tools(tools: Sequence[Tool], choice: ToolChoice | None) -> None:
    _check_count("tools", tools, MAX_TOOLS)
    names: set[str] = set()
    for index, tool in enumerate(tools):
        path = ("input", "tools", index)
        if _TOOL_NAME.fullmatch(tool.name) is None:
            raise BadUserInputError(
                f"a tool's name has letters, digits, '_' and '-', 1 to {MAX_NAME_LENGTH}", path=(*path, "name")
            )
        if tool.name in names:
            raise BadUserInputError(f"two tools are named {tool.name!r}", path=(*path, "name"))
        names.add(tool.name)
        check_json(tool.parameters, path=(*path, "parameters"))
    if choice is not None and choice.name is not None and choice.name not in names:
        raise BadUserInputError(f"no tool is named {choice.name[:100]!r}", path=("input", "toolChoice", "name"))


def check_json(value: object, *, path: tuple[str | int, ...]) -> None:
    """What goes into a vendor's body, and comes back in an answer, must go into JSON: nested at most MAX_JSON_DEPTH
    deep, whole numbers within 64 bits. Raises BadUserInputError."""
    if nested_beyond(value, MAX_JSON_DEPTH):
        raise BadUserInputError(f"JSON is nested at most {MAX_JSON_DEPTH} deep", path=path)
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise BadUserInputError("can't be sent as JSON: a number too large, or half a character", path=path) from None


def _check_response_format(response_format: ResponseFormat) -> None:
    path = ("input", "responseFormat", "jsonSchema")
    if _TOOL_NAME.fullmatch(response_format.name) is None:
        raise BadUserInputError(
            f"a schema's name has letters, digits, '_' and '-', 1 to {MAX_NAME_LENGTH}", path=(*path, "name")
        )
    if response_format.schema is not None:
        check_json(response_format.schema, path=(*path, "schema"))
        check_format(response_format, path=(*path, "schema"))


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise BadUserInputError(f"at most {MAX_LABELS} labels", path=("input", "labels"))
    for name, value in labels.items():
        if not name or len(name) > MAX_LABEL_LENGTH or len(value) > MAX_LABEL_LENGTH:
            raise BadUserInputError(
                f"a label's name has 1 to {MAX_LABEL_LENGTH} characters, its value at most as many",
                path=("input", "labels"),
            )


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise BadUserInputError(f"{name} is between {low} and {high}, not {value}", path=("input", name))


def _check_count(name: str, values: Sequence[object], most: int) -> None:
    if len(values) > most:
        raise BadUserInputError(f"at most {most} {name}, not {len(values)}", path=("input", name))


def _check_length(name: str, value: str | None) -> None:
    if value is not None and not 1 <= len(value) <= MAX_KEY_LENGTH:
        raise BadUserInputError(f"{name} has 1 to {MAX_KEY_LENGTH} characters", path=("input", name))
