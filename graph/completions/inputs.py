"""What completions are asked with, and its translation to the use case's command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import strawberry
from strawberry.scalars import JSON

from graph.inputs import planned
from persistence import records
from providers import types as provider_types
from resolvers import types as domain
from resolvers.errors import BadUserInputError
from resolvers.routing import parse_target

from .types import Outcome


@strawberry.enum(description="Who speaks.")
class Role(Enum):
    SYSTEM = strawberry.enum_value("system", description="Instructions for the model.")
    USER = strawberry.enum_value("user", description="The person, or program, that asks.")
    ASSISTANT = strawberry.enum_value("assistant", description="The model, in an earlier turn.")
    TOOL = strawberry.enum_value("tool", description="The result of a tool call.")


@strawberry.enum(description="How free the model is to call tools.")
class ToolChoiceMode(Enum):
    AUTO = strawberry.enum_value("auto", description="As it sees fit.")
    NONE = strawberry.enum_value("none", description="Not at all.")
    REQUIRED = strawberry.enum_value("required", description="At least one.")


@planned
@strawberry.input(description="A tool call of an earlier turn, as the model asked for it.")
class ToolCallInput:
    id: strawberry.ID = strawberry.field(description="As in Completion.toolCalls.")
    name: str = strawberry.field(description="The tool's name.")
    arguments: str = strawberry.field(description="JSON text.")
    signature: str | None = strawberry.field(default=strawberry.UNSET, description="As in Completion.toolCalls.")


@planned
@strawberry.input(description="One turn of the conversation.")
class MessageInput:
    role: Role = strawberry.field(description="Who speaks.")
    content: str | None = strawberry.field(
        default=strawberry.UNSET, description="The text; a tool's result, for role TOOL."
    )
    tool_calls: list[ToolCallInput] | None = strawberry.field(
        default=strawberry.UNSET, description="For role ASSISTANT: the calls that it asked for."
    )
    tool_call_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="For role TOOL, and there required: the call that this is the result of."
    )


@planned
@strawberry.input(description="A function that the model may call.")
class ToolInput:
    name: str = strawberry.field(description="Letters, digits, _ and -.")
    description: str | None = strawberry.field(
        default=strawberry.UNSET, description="Tells the model when and how to use it."
    )
    parameters: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="JSON Schema of an object; absent for a tool without arguments."
    )


@planned
@strawberry.input(one_of=True, description="Either a mode, or the name of the one tool to call.")
class ToolChoiceInput:
    mode: ToolChoiceMode | None = strawberry.field(default=strawberry.UNSET, description="How free the model is.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="The tool that must be called.")


@planned
@strawberry.input(description="Where to go when the targets before have failed.")
class TargetInput:
    model: str = strawberry.field(description='"provider/model", split at the first slash only.')


@planned
@strawberry.input(description="A label of one's own, to find and group completions by.")
class LabelInput:
    name: str = strawberry.field(description="1 to 256 characters.")
    value: str = strawberry.field(description="Up to 256 characters.")


@planned
@strawberry.input(one_of=True, description="Names one completion.")
class CompletionRef:
    id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET, description="The key that it was asked for with."
    )

    def reference(self) -> domain.CompletionRef:
        return domain.CompletionRef(id=self.id or None, idempotency_key=self.idempotency_key or None)


@planned
@strawberry.input(description="Which completions to list. All conditions hold at once.")
class CompletionFilter:
    since: datetime | None = strawberry.field(default=strawberry.UNSET, description="Asked for at this time or later.")
    until: datetime | None = strawberry.field(default=strawberry.UNSET, description="Asked for before this time.")
    provider: str | None = strawberry.field(default=strawberry.UNSET, description="An attempt went to this provider.")
    model: str | None = strawberry.field(
        default=strawberry.UNSET, description="An attempt went to this model (vendor's name)."
    )
    outcome: Outcome | None = strawberry.field(default=strawberry.UNSET, description="The completion ended so.")
    end_user: str | None = strawberry.field(default=strawberry.UNSET, description="Asked for this end user.")
    label: LabelInput | None = strawberry.field(default=strawberry.UNSET, description="Carries this label.")

    def conditions(self) -> records.CompletionFilter:
        return records.CompletionFilter(
            since=aware(self.since, ("filter", "since")),
            until=aware(self.until, ("filter", "until")),
            provider=self.provider,
            model=self.model,
            outcome=None if self.outcome is None else records.Outcome[self.outcome.name],
            end_user=self.end_user,
            label=None if self.label is None else (self.label.name, self.label.value),
        )


@planned
@strawberry.input(description="One completion.")
class CompleteInput:
    model: str = strawberry.field(
        description='"provider/model", split at the first slash only: "openrouter/openai/gpt-4.1".'
    )
    messages: list[MessageInput] = strawberry.field(description="The conversation, oldest first.")
    tools: list[ToolInput] | None = strawberry.field(
        default=strawberry.UNSET, description="What the model may call. Up to 128."
    )
    tool_choice: ToolChoiceInput | None = strawberry.field(
        default=strawberry.UNSET, description="How free it is to call them."
    )
    temperature: float | None = strawberry.field(
        default=strawberry.UNSET, description="0 to 2; absent, the vendor's default."
    )
    top_p: float | None = strawberry.field(
        default=strawberry.UNSET, description="0 to 1; absent, the vendor's default."
    )
    max_tokens: int | None = strawberry.field(
        default=strawberry.UNSET, description="The most tokens that the model may write."
    )
    stop: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Texts that end the answer. Up to 16."
    )
    seed: int | None = strawberry.field(
        default=strawberry.UNSET, description="For answers that repeat, where the vendor can."
    )
    fallbacks: list[TargetInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Tried in order when the model's own retries are used up. Up to 8."
    )
    timeout_ms: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="One deadline for everything, retries and fallbacks included: up to 300000; absent, 120000.",
    )
    labels: list[LabelInput] | None = strawberry.field(default=strawberry.UNSET, description="To group by. Up to 20.")
    end_user: str | None = strawberry.field(
        default=strawberry.UNSET, description="Your own name of the person asking; handed to vendors that take one."
    )
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Your own name of this completion, unique in the organisation: a second use is a CONFLICT.",
    )
    provider_options: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="An object keyed by provider; what stands under its name goes into that vendor's request as it is.",
    )

    def command(self) -> domain.CompleteCommand:
        """Raises BadUserInputError for what the schema's types can't rule out."""
        return domain.CompleteCommand(
            target=parse_target(self.model, path=("input", "model")),
            messages=tuple(_message(message) for message in self.messages),
            tools=tuple(_tool(tool, index) for index, tool in enumerate(self.tools or ())),
            tool_choice=_tool_choice(self.tool_choice),
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            fallbacks=tuple(
                parse_target(target.model, path=("input", "fallbacks", index, "model"))
                for index, target in enumerate(self.fallbacks or ())
            ),
            timeout_ms=self.timeout_ms,
            labels=_labels(self.labels or ()),
            end_user=self.end_user,
            idempotency_key=self.idempotency_key,
            provider_options=_provider_options(self.provider_options),
        )


def aware(moment: datetime | None, path: Sequence[str]) -> datetime | None:
    """Raises BadUserInputError for a time without an offset: it would mean another moment to each reader."""
    if moment is not None and moment.tzinfo is None:
        raise BadUserInputError(f"{path[-1]} needs an offset, such as Z: {moment.isoformat()}Z", path=path)
    return moment


def _labels(labels: Sequence[LabelInput]) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for index, label in enumerate(labels):
        if label.name in given:
            path = ("input", "labels", index, "name")
            raise BadUserInputError("another label before this one has the same name", path=path)
        given[label.name] = label.value
    return given


def _message(message: MessageInput) -> provider_types.Message:
    return provider_types.Message(
        role=provider_types.Role[message.role.name],
        content=message.content,
        tool_calls=tuple(
            provider_types.ToolCall(call.id, call.name, call.arguments, call.signature)
            for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
    )


def _tool(tool: ToolInput, index: int) -> provider_types.Tool:
    parameters = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    if not isinstance(parameters, Mapping):
        raise BadUserInputError("parameters is a JSON Schema object", path=("input", "tools", index, "parameters"))
    return provider_types.Tool(tool.name, tool.description, parameters)


def _tool_choice(choice: ToolChoiceInput | None) -> provider_types.ToolChoice | None:
    if choice is None:
        return None
    if choice.name == "":
        raise BadUserInputError("name the tool that must be called", path=("input", "toolChoice", "name"))
    if choice.name:
        return provider_types.ToolChoice(provider_types.ToolChoiceMode.REQUIRED, choice.name)
    return provider_types.ToolChoice(provider_types.ToolChoiceMode[(choice.mode or ToolChoiceMode.AUTO).name])


def _provider_options(options: Any) -> Mapping[str, Mapping[str, Any]]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(value, Mapping) for value in options.values()):
        raise BadUserInputError(
            'providerOptions is an object of objects: {"openai": {"service_tier": "flex"}}',
            path=("input", "providerOptions"),
        )
    return options
