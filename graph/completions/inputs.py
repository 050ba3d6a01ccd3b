"""What completions are asked with, and its translation to the use case's command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import strawberry
from strawberry.scalars import JSON

from graph.context import Context
from graph.inputs import planned
from persistence import records
from providers import types as provider_types
from resolvers import types as domain
from resolvers.errors import BadUserInputError
from resolvers.routing import parse_target

from .messages import MessageInput, messages_of
from .types import Outcome

Path = tuple[str | int, ...]

_INPUT = ("input",)
_MODEL = ("input", "model")


@strawberry.enum(description="How free the model is to call tools.")
class ToolChoiceMode(Enum):
    AUTO = strawberry.enum_value("auto", description="As it sees fit.")
    NONE = strawberry.enum_value("none", description="Not at all.")
    REQUIRED = strawberry.enum_value("required", description="At least one.")


@strawberry.enum(description="How long a model may think before it answers; each vendor has its own measure.")
class ReasoningEffort(Enum):
    NONE = strawberry.enum_value("none", description="Not at all, where the vendor can turn it off.")
    MINIMAL = strawberry.enum_value("minimal", description="As little as it can.")
    LOW = strawberry.enum_value("low", description="A little.")
    MEDIUM = strawberry.enum_value("medium", description="Some.")
    HIGH = strawberry.enum_value("high", description="Much.")


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
@strawberry.input(description="A JSON Schema that the answer is to keep to.")
class JsonSchemaInput:
    schema: JSON = strawberry.field(
        description="JSON Schema (2020-12 where it does not say) without references to other documents."
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description='Tells the model what it writes: letters, digits, _ and -. "answer" by default.',
    )
    strict: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether the vendor must keep the model to it. True by default."
    )


@planned
@strawberry.input(
    one_of=True,
    description="What the answer is to be: `{ json: true }` or `{ jsonSchema: … }`. It is checked: an answer that is "
    "not so is PROVIDER_BAD_RESPONSE, with its text in `content`.",
)
class ResponseFormatInput:
    json: bool | None = strawberry.field(default=strawberry.UNSET, description="Any JSON object. True.")
    json_schema: JsonSchemaInput | None = strawberry.field(
        default=strawberry.UNSET, description="JSON that keeps to a schema."
    )

    def format(self) -> provider_types.ResponseFormat:
        """Raises BadUserInputError for a schema that is no object."""
        asked = self.json_schema
        if asked is None:
            if not self.json:
                raise BadUserInputError("json is true, or left out", path=("input", "responseFormat", "json"))
            return provider_types.ResponseFormat()
        if not isinstance(asked.schema, Mapping):
            raise BadUserInputError(
                "schema is a JSON Schema object", path=("input", "responseFormat", "jsonSchema", "schema")
            )
        return provider_types.ResponseFormat(
            asked.schema, "answer" if asked.name is None else asked.name, strict=asked.strict is not False
        )


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
@strawberry.input(description="The config that a completion is made from.")
class ConfigRef:
    slug: str = strawberry.field(description="The config's name.")
    version: int | None = strawberry.field(
        default=strawberry.UNSET, description="One of its versions; absent, the published one."
    )
    variables: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="An object: a value for each variable of the config that has no default. A text stands for itself, "
        "all else for its JSON; a name that the config does not declare is refused.",
    )

    def reference(self) -> domain.ConfigRef:
        """Raises BadUserInputError for variables that are no object."""
        variables: Any = {} if self.variables is None else self.variables
        if not isinstance(variables, Mapping):
            raise BadUserInputError(
                'variables is an object: {"language": "French"}', path=("input", "config", "variables")
            )
        return domain.ConfigRef(self.slug, self.version, variables)


@planned
@strawberry.input(
    description="One completion, by a model or by a config. What is said here goes before what the config says; "
    "messages follow the config's, and labels are added to its."
)
class CompleteInput:
    model: str | None = strawberry.field(
        default=strawberry.UNSET,
        description='"provider/model", split at the first slash only: "openrouter/openai/gpt-4.1". Required without '
        "config.",
    )
    config: ConfigRef | None = strawberry.field(
        default=strawberry.UNSET, description="What else is asked for; required without model."
    )
    messages: list[MessageInput] | None = strawberry.field(
        default=strawberry.UNSET,
        description="The conversation, oldest first. Required unless the config brings some.",
    )
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
    response_format: ResponseFormatInput | None = strawberry.field(
        default=strawberry.UNSET, description="What the answer is to be; absent, text."
    )
    reasoning_effort: ReasoningEffort | None = strawberry.field(
        default=strawberry.UNSET, description="How long the model may think first; absent, the vendor's default."
    )
    logprobs: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="The log-probability of each token of the answer, with so many of the likeliest, 0 to 20.",
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
        """Without a config. Raises BadUserInputError for what the schema's types can't rule out."""
        if self.model is None:
            raise BadUserInputError("model or config: a completion needs at least one of them", path=_MODEL)
        return domain.CompleteCommand(
            target=parse_target(self.model, path=_MODEL),
            messages=messages_of(self.messages),
            tools=tools_of(self.tools, path=_INPUT),
            tool_choice=tool_choice_of(self.tool_choice, path=_INPUT),
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            response_format=None if self.response_format is None else self.response_format.format(),
            reasoning_effort=effort_of(self.reasoning_effort),
            logprobs=self.logprobs,
            fallbacks=_fallbacks(self.fallbacks),
            timeout_ms=self.timeout_ms,
            labels=labels_of(self.labels, path=_INPUT),
            end_user=self.end_user,
            idempotency_key=self.idempotency_key,
            provider_options=options_of(self.provider_options, path=_INPUT),
        )

    def call(self, config: ConfigRef) -> domain.ConfigCall:
        """By that config; what is absent is left to it. Raises as `command` does."""
        return domain.ConfigCall(
            config=config.reference(),
            target=None if self.model is None else parse_target(self.model, path=_MODEL),
            messages=messages_of(self.messages),
            tools=None if self.tools is None else tools_of(self.tools, path=_INPUT),
            tool_choice=tool_choice_of(self.tool_choice, path=_INPUT),
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=None if self.stop is None else tuple(self.stop),
            seed=self.seed,
            response_format=None if self.response_format is None else self.response_format.format(),
            reasoning_effort=effort_of(self.reasoning_effort),
            logprobs=self.logprobs,
            fallbacks=None if self.fallbacks is None else _fallbacks(self.fallbacks),
            timeout_ms=self.timeout_ms,
            labels=labels_of(self.labels, path=_INPUT),
            end_user=self.end_user,
            idempotency_key=self.idempotency_key,
            provider_options=(
                None if self.provider_options is None else options_of(self.provider_options, path=_INPUT)
            ),
        )


async def resolved(given: CompleteInput, config: ConfigRef, context: Context) -> domain.CompleteCommand:
    """The command of a completion by config. Raises as `CompleteInput.command` and `Configs.resolve` do."""
    return await context.services.configs.resolve(context.principal, given.call(config))


def aware(moment: datetime | None, path: Sequence[str]) -> datetime | None:
    """Raises BadUserInputError for a time without an offset: it would mean another moment to each reader."""
    if moment is not None and moment.tzinfo is None:
        raise BadUserInputError(f"{path[-1]} needs an offset, such as Z: {moment.isoformat()}Z", path=path)
    return moment


def labels_of(labels: Sequence[LabelInput] | None, *, path: Path) -> Mapping[str, str]:
    """Raises BadUserInputError, its path from `path` on; so do the functions below."""
    given: dict[str, str] = {}
    for index, label in enumerate(labels or ()):
        if label.name in given:
            place = (*path, "labels", index, "name")
            raise BadUserInputError("another label before this one has the same name", path=place)
        given[label.name] = label.value
    return given


def tools_of(tools: Sequence[ToolInput] | None, *, path: Path) -> tuple[provider_types.Tool, ...]:
    return tuple(_tool(tool, (*path, "tools", index)) for index, tool in enumerate(tools or ()))


def tool_choice_of(choice: ToolChoiceInput | None, *, path: Path) -> provider_types.ToolChoice | None:
    if choice is None:
        return None
    if choice.name == "":
        raise BadUserInputError("name the tool that must be called", path=(*path, "toolChoice", "name"))
    if choice.name:
        return provider_types.ToolChoice(provider_types.ToolChoiceMode.REQUIRED, choice.name)
    return provider_types.ToolChoice(provider_types.ToolChoiceMode[(choice.mode or ToolChoiceMode.AUTO).name])


def effort_of(effort: ReasoningEffort | None) -> provider_types.ReasoningEffort | None:
    return None if effort is None else provider_types.ReasoningEffort[effort.name]


def options_of(options: Any, *, path: Path) -> Mapping[str, Mapping[str, Any]]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(value, Mapping) for value in options.values()):
        raise BadUserInputError(
            'providerOptions is an object of objects: {"openai": {"service_tier": "flex"}}',
            path=(*path, "providerOptions"),
        )
    return options


def _fallbacks(fallbacks: Sequence[TargetInput] | None) -> tuple[domain.Target, ...]:
    return tuple(
        parse_target(target.model, path=("input", "fallbacks", index, "model"))
        for index, target in enumerate(fallbacks or ())
    )


def _tool(tool: ToolInput, path: Path) -> provider_types.Tool:
    parameters = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    if not isinstance(parameters, Mapping):
        raise BadUserInputError("parameters is a JSON Schema object", path=(*path, "parameters"))
    return provider_types.Tool(tool.name, tool.description, parameters)
