"""A config's content: what may be saved, what may be published, and the command that a completion gets of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace

from persistence.config_records import ConfigContent, ConfigVersion, decoded, encoded
from providers.types import Message, ReasoningEffort, Role, Tool, ToolChoice, ToolChoiceMode

from .checks import check_command, check_json
from .errors import BadUserInputError
from .routing import Vendor, parse_target
from .structured import format_of
from .templates import MAX_RENDERED, Path, check_template, check_variables, rendered, values_of
from .types import CompleteCommand, ConfigCall

MAX_CONTENT_BYTES = 131_072  # as JSON
MAX_DESCRIPTION_LENGTH = 2000
DRAFT: Path = ("input", "draft")

_ROLES = (Role.SYSTEM, Role.USER, Role.ASSISTANT)
_MERGED = {"config", "messages", "labels"}
_OVERRIDING = tuple(field.name for field in fields(ConfigCall) if field.name not in _MERGED)


def checked_text(content: ConfigContent) -> bytes:
    """Any draft as it is kept. Raises BadUserInputError, its path from DRAFT on."""
    if len(content.description) > MAX_DESCRIPTION_LENGTH:
        raise BadUserInputError(
            f"a description has at most {MAX_DESCRIPTION_LENGTH} characters", path=(*DRAFT, "description")
        )
    for path, value in _json_in(content):
        check_json(value, path=(*DRAFT, *path))
    try:
        text = encoded(content)
    except ValueError:
        raise BadUserInputError(
            "can't be written as JSON: a number too large, or half a character", path=DRAFT
        ) from None
    if len(text) > MAX_CONTENT_BYTES:
        raise BadUserInputError(f"a config has at most {MAX_CONTENT_BYTES} bytes as JSON, not {len(text)}", path=DRAFT)
    if decoded(text) != content:
        raise BadUserInputError("a number in it is none that JSON has, such as NaN", path=DRAFT)
    return text


def _json_in(content: ConfigContent) -> Iterator[tuple[Path, object]]:
    """With its place."""
    yield ("responseFormat",), content.response_format
    yield ("cache",), content.cache
    yield ("providerOptions",), content.provider_options
    for index, variable in enumerate(content.variables):
        yield ("variables", index, "default"), variable.default
    for index, tool in enumerate(content.tools):
        yield ("tools", index, "parameters"), tool.parameters


def check_content(content: ConfigContent, vendors: Mapping[str, Vendor]) -> None:
    """What a published version keeps to: what any completion must, and templates that can be filled. Raises
    BadUserInputError, its path from DRAFT on."""
    checked_text(content)
    check_variables(content.variables, path=(*DRAFT, "variables"))
    if content.prompt is not None:
        check_template(content.prompt, content.variables, path=(*DRAFT, "prompt"))
    for index, message in enumerate(content.messages):
        path = (*DRAFT, "messages", index)
        if message.role not in _ROLES:
            raise BadUserInputError(f"a config's message is of {', '.join(_ROLES)}", path=(*path, "role"))
        check_template(message.content, content.variables, path=(*path, "content"))
    choice = content.tool_choice
    if choice is not None and choice.mode not in tuple(ToolChoiceMode):
        modes = ", ".join(ToolChoiceMode)
        raise BadUserInputError(f"a tool choice is one of {modes}", path=(*DRAFT, "toolChoice", "mode"))
    if content.reasoning_effort is not None and content.reasoning_effort not in tuple(ReasoningEffort):
        efforts = ", ".join(ReasoningEffort)
        raise BadUserInputError(f"a reasoning effort is one of {efforts}", path=(*DRAFT, "reasoningEffort"))
    with _of_the_draft():
        check_command(_preset(content, (Message(Role.USER, ""),)), vendors)  # its messages are checked above


@contextmanager
def _of_the_draft() -> Iterator[None]:
    try:
        yield
    except BadUserInputError as error:
        raise BadUserInputError(error.message, path=(*DRAFT, *error.path[1:])) from None


def command_of(version: ConfigVersion, call: ConfigCall) -> CompleteCommand:
    """The config's command, changed field by field by what the call says. Raises BadUserInputError for the variables,
    its path from `input` on."""
    preset = _preset(version.content, _messages(version.content, call))
    given = {name: value for name in _OVERRIDING if (value := getattr(call, name)) is not None}
    return replace(
        preset,
        **given,
        messages=(*preset.messages, *call.messages),
        labels={**preset.labels, **call.labels},
        config=call.config.slug,
        config_version=version.number,
    )


def _messages(content: ConfigContent, call: ConfigCall) -> tuple[Message, ...]:
    path = ("input", "config", "variables")
    values = values_of(content.variables, call.config.variables, path=path)
    templates = [(Role(message.role), message.content) for message in content.messages]
    if content.prompt is not None:
        templates.insert(0, (Role.SYSTEM, content.prompt))
    messages: list[Message] = []
    left = MAX_RENDERED
    for role, template in templates:
        text = rendered(template, values, path=path, most=left)
        left -= len(text)
        messages.append(Message(role, text))
    return tuple(messages)


def _preset(content: ConfigContent, messages: tuple[Message, ...]) -> CompleteCommand:
    choice = content.tool_choice
    return CompleteCommand(
        target=parse_target(content.model, path=("input", "model")),
        messages=messages,
        tools=tuple(Tool(tool.name, tool.description, tool.parameters) for tool in content.tools),
        tool_choice=None if choice is None else ToolChoice(ToolChoiceMode(choice.mode), choice.name),
        temperature=content.temperature,
        top_p=content.top_p,
        max_tokens=content.max_tokens,
        stop=content.stop,
        seed=content.seed,
        response_format=format_of(content.response_format, path=("input", "responseFormat")),
        reasoning_effort=None if content.reasoning_effort is None else ReasoningEffort(content.reasoning_effort),
        fallbacks=tuple(
            parse_target(model, path=("input", "fallbacks", index)) for index, model in enumerate(content.fallbacks)
        ),
        timeout_ms=content.timeout_ms,
        labels=content.labels,
        provider_options=content.provider_options,
    )
