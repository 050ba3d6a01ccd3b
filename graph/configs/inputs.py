"""What configs are written and asked for with, and its translation to what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import strawberry
from strawberry.scalars import JSON

from graph.completions.inputs import (
    LabelInput,
    ReasoningEffort,
    ToolChoiceInput,
    ToolInput,
    effort_of,
    labels_of,
    options_of,
    tool_choice_of,
    tools_of,
)
from graph.completions.messages import Role
from graph.inputs import planned
from persistence import config_records as records
from providers import types as provider_types
from resolvers import types as domain
from resolvers.config_content import DRAFT
from resolvers.errors import BadUserInputError

EXPECTED_REVISION = "The revision that this is based on: another one is a CONFLICT. Absent, what stands now is meant."


@planned
@strawberry.input(one_of=True, description="Names one config.")
class ConfigBy:
    id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    slug: str | None = strawberry.field(default=strawberry.UNSET, description="Its name.")

    def reference(self) -> domain.ConfigBy:
        return domain.ConfigBy(id=self.id or None, slug=self.slug or None)


@strawberry.enum(description="Which config comes first.")
class ConfigOrder(Enum):
    UPDATED = strawberry.enum_value("updated", description="What was written last.")
    SLUG = strawberry.enum_value("slug", description="By slug, from A to Z.")


@planned
@strawberry.input(description="Which configs to list. All conditions hold at once; model and labels are the draft's.")
class ConfigFilter:
    archived: bool | None = strawberry.field(
        default=strawberry.UNSET, description="True: the archived ones. False: those in use. Absent: both."
    )
    label: LabelInput | None = strawberry.field(default=strawberry.UNSET, description="Carries this label.")
    model: str | None = strawberry.field(default=strawberry.UNSET, description='Is for this "provider/model".')
    search: str | None = strawberry.field(
        default=strawberry.UNSET, description="Slug or description contains this, in upper or lower case."
    )

    def conditions(self) -> records.ConfigFilter:
        return records.ConfigFilter(
            archived=self.archived,
            label=None if self.label is None else (self.label.name, self.label.value),
            model=self.model,
            search=self.search,
        )


@planned
@strawberry.input(description="A turn that every completion by the config begins with.")
class ConfigMessageInput:
    role: Role = strawberry.field(description="Who speaks; not TOOL.")
    content: str = strawberry.field(description="A template, as `prompt` is.")


@planned
@strawberry.input(description="What the templates may name.")
class ConfigVariableInput:
    name: str = strawberry.field(description="Letters, digits and _, no digit first, up to 64.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="For people.")
    default: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Stands in where a completion gives no value; absent, it must give one."
    )


@planned
@strawberry.input(
    description="What a config presets, whole: what is absent is not preset. Up to 128 KiB as JSON. A draft may be "
    "unfinished; publishConfig checks it as a completion is checked."
)
class ConfigContentInput:
    model: str = strawberry.field(description='"provider/model", split at the first slash only.')
    description: str | None = strawberry.field(
        default=strawberry.UNSET, description="For people. Up to 2000 characters."
    )
    prompt: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Instructions that stand before everything: a template. `{{name}}` is the place of a declared "
        r"variable, `\{{` are two braces, and nothing else is special.",
    )
    messages: list[ConfigMessageInput] | None = strawberry.field(
        default=strawberry.UNSET, description="They stand before the completion's own messages."
    )
    variables: list[ConfigVariableInput] | None = strawberry.field(
        default=strawberry.UNSET, description="All that the templates may name. Up to 100."
    )
    temperature: float | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    top_p: float | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    max_tokens: int | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    stop: list[str] | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    seed: int | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    tools: list[ToolInput] | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    tool_choice: ToolChoiceInput | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    response_format: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object, as ResponseFormatInput has it."
    )
    reasoning_effort: ReasoningEffort | None = strawberry.field(
        default=strawberry.UNSET, description="As in CompleteInput."
    )
    fallbacks: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description='"provider/model" each, tried in order. Up to 8.'
    )
    timeout_ms: int | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")
    cache: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object. Kept and shown; completions do not use it yet."
    )
    labels: list[LabelInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Every completion by the config carries them, beside its own. Up to 20."
    )
    provider_options: JSON | None = strawberry.field(default=strawberry.UNSET, description="As in CompleteInput.")

    def content(self) -> records.ConfigContent:
        """Raises BadUserInputError for what the schema's types can't rule out."""
        choice = tool_choice_of(self.tool_choice, path=DRAFT)
        return records.ConfigContent(
            model=self.model,
            description=self.description or "",
            prompt=self.prompt,
            messages=tuple(
                records.TemplateMessage(provider_types.Role[each.role.name].value, each.content)
                for each in self.messages or ()
            ),
            variables=tuple(
                records.Variable(each.name, each.description, each.default) for each in self.variables or ()
            ),
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            tools=tuple(
                records.ConfigTool(tool.name, tool.description, tool.parameters)
                for tool in tools_of(self.tools, path=DRAFT)
            ),
            tool_choice=None if choice is None else records.ConfigToolChoice(choice.mode.value, choice.name),
            response_format=_object("responseFormat", self.response_format),
            reasoning_effort=None if (effort := effort_of(self.reasoning_effort)) is None else effort.value,
            fallbacks=tuple(self.fallbacks or ()),
            timeout_ms=self.timeout_ms,
            cache=_object("cache", self.cache),
            labels=labels_of(self.labels, path=DRAFT),
            provider_options=options_of(self.provider_options, path=DRAFT),
        )


@planned
@strawberry.input(description="A new config.")
class CreateConfigInput:
    slug: str = strawberry.field(
        description="Its name, unique in the organisation and for good: lower-case letters, digits, '.', '_' and '-', "
        "up to 64, a letter or digit first."
    )
    draft: ConfigContentInput = strawberry.field(description="What the first publishConfig will publish.")


@planned
@strawberry.input(description="A new draft in place of the old one.")
class UpdateConfigInput:
    by: ConfigBy = strawberry.field(description="Which config.")
    draft: ConfigContentInput = strawberry.field(description="The whole draft.")
    expected_revision: int = strawberry.field(
        description="The revision that this is based on: another one is a CONFLICT."
    )


@planned
@strawberry.input(description="Which draft to publish.")
class PublishConfigInput:
    by: ConfigBy = strawberry.field(description="Which config.")
    expected_revision: int | None = strawberry.field(default=strawberry.UNSET, description=EXPECTED_REVISION)


@planned
@strawberry.input(description="Which version to go back to.")
class RollbackConfigInput:
    by: ConfigBy = strawberry.field(description="Which config.")
    version: int = strawberry.field(description="The number of the version that completions get from now on.")
    expected_revision: int | None = strawberry.field(default=strawberry.UNSET, description=EXPECTED_REVISION)


@planned
@strawberry.input(description="Which config to archive, or to take back into use.")
class ArchiveConfigInput:
    by: ConfigBy = strawberry.field(description="Which config.")
    expected_revision: int | None = strawberry.field(default=strawberry.UNSET, description=EXPECTED_REVISION)


def _object(name: str, value: Any) -> Mapping[str, Any] | None:
    if value is None or isinstance(value, Mapping):
        return value
    raise BadUserInputError(f"{name} is an object", path=(*DRAFT, name))
