"""What configs look like: drafts, versions, and what two of them differ in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry.scalars import JSON

from graph.completions.inputs import ReasoningEffort, ToolChoiceMode
from graph.completions.messages import Role
from graph.completions.types import Label, PageInfo
from graph.context import GraphInfo
from graph.cost import Cost, ListSize
from graph.node import Node
from persistence import config_records as records
from resolvers import config_diff, configs
from resolvers.types import ConfigBy

First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
Number = Annotated[int, strawberry.argument(description="Which version, from 1.")]


@strawberry.type(description="A turn that every completion by the config begins with.")
class ConfigMessage:
    role: Role = strawberry.field(description="Who speaks.")
    content: str = strawberry.field(description="A template, as `prompt` is.")


@strawberry.type(description="What the templates may name.")
class ConfigVariable:
    name: str = strawberry.field(description="As it stands between the braces.")
    description: str | None = strawberry.field(description="For people.")
    default: JSON | None = strawberry.field(
        description="Stands in where a completion gives no value; null where it must give one."
    )


@strawberry.type(description="A function that the model may call.")
class ConfigTool:
    name: str = strawberry.field(description="Letters, digits, _ and -.")
    description: str | None = strawberry.field(description="Tells the model when and how to use it.")
    parameters: JSON = strawberry.field(description="JSON Schema of an object.")


@strawberry.type(description="How free the model is to call the tools.")
class ConfigToolChoice:
    mode: ToolChoiceMode = strawberry.field(description="How free it is.")
    name: str | None = strawberry.field(description="The one tool that must be called; null where any may be.")


@strawberry.type(
    description="What a config presets. A completion may say otherwise, field by field. What is null is the default.",
    directives=[Cost(weight=5)],  # up to 128 KiB
)
class ConfigContent:
    model: str = strawberry.field(description='"provider/model".')
    description: str = strawberry.field(description="For people; may be empty.")
    prompt: str | None = strawberry.field(
        description=r"Instructions that stand before everything: a template. `{{name}}` is the place of a variable, "
        r"`\{{` are two braces."
    )
    messages: list[ConfigMessage] = strawberry.field(description="They stand before the completion's own messages.")
    variables: list[ConfigVariable] = strawberry.field(description="All that the templates may name.")
    temperature: float | None = strawberry.field(description="As in CompleteInput.")
    top_p: float | None = strawberry.field(description="As in CompleteInput.")
    max_tokens: int | None = strawberry.field(description="As in CompleteInput.")
    stop: list[str] = strawberry.field(description="As in CompleteInput.")
    seed: int | None = strawberry.field(description="As in CompleteInput.")
    tools: list[ConfigTool] = strawberry.field(description="What the model may call.")
    tool_choice: ConfigToolChoice | None = strawberry.field(description="How free it is to call them.")
    response_format: JSON | None = strawberry.field(description="As in CompleteInput.")
    reasoning_effort: ReasoningEffort | None = strawberry.field(description="As in CompleteInput.")
    fallbacks: list[str] = strawberry.field(description='"provider/model" each, tried in order.')
    timeout_ms: int | None = strawberry.field(description="As in CompleteInput.")
    cache: JSON | None = strawberry.field(description="Kept and shown, an object; completions do not use it yet.")
    labels: list[Label] = strawberry.field(description="Every completion by the config carries them, beside its own.")
    provider_options: JSON = strawberry.field(description="As in CompleteInput; empty where there are none.")

    @classmethod
    def of(cls, content: records.ConfigContent) -> Self:
        choice = content.tool_choice
        return cls(
            model=content.model,
            description=content.description,
            prompt=content.prompt,
            messages=[ConfigMessage(role=Role(each.role), content=each.content) for each in content.messages],
            variables=[
                ConfigVariable(name=each.name, description=each.description, default=each.default)
                for each in content.variables
            ],
            temperature=content.temperature,
            top_p=content.top_p,
            max_tokens=content.max_tokens,
            stop=list(content.stop),
            seed=content.seed,
            tools=[
                ConfigTool(name=each.name, description=each.description, parameters=JSON(each.parameters))
                for each in content.tools
            ],
            tool_choice=(
                None if choice is None else ConfigToolChoice(mode=ToolChoiceMode(choice.mode), name=choice.name)
            ),
            response_format=None if content.response_format is None else JSON(content.response_format),
            reasoning_effort=None if content.reasoning_effort is None else ReasoningEffort(content.reasoning_effort),
            fallbacks=list(content.fallbacks),
            timeout_ms=content.timeout_ms,
            cache=None if content.cache is None else JSON(content.cache),
            labels=[Label(name=name, value=value) for name, value in content.labels.items()],
            provider_options=JSON(content.provider_options),
        )


@strawberry.type(description="What was published: it never changes.")
class ConfigVersion:
    record: strawberry.Private[records.ConfigVersion]
    number: int = strawberry.field(description="Counts from 1, without a gap.")
    created_at: datetime = strawberry.field(description="When it was published first, UTC.")
    created_by: str = strawberry.field(description="The subject of the token that published it.")

    @strawberry.field(description="The draft as it was then.")
    async def content(self, info: GraphInfo) -> ConfigContent:
        return ConfigContent.of(await info.context.services.configs.content_of(self.record))

    @classmethod
    def of(cls, version: records.ConfigVersion) -> Self:
        return cls(
            record=version,
            number=version.number,
            created_at=version.created_at,
            created_by=version.created_by,
        )


@strawberry.type(description="A version and its place in the list.")
class ConfigVersionEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: ConfigVersion = strawberry.field(description="The version.")


@strawberry.type(description="A page of versions, newest first (Relay).")
class ConfigVersionConnection:
    edges: list[ConfigVersionEdge] = strawberry.field(description="The page.")
    nodes: list[ConfigVersion] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: configs.VersionPage, after: str | None) -> Self:
        edges = [ConfigVersionEdge(cursor=cursor, node=ConfigVersion.of(each)) for cursor, each in page.versions]
        cursors = [edge.cursor for edge in edges]
        return cls(edges=edges, nodes=[edge.node for edge in edges], page_info=_page_info(cursors, page.more, after))


@strawberry.type(description="A named preset of completions: a draft, and its published versions.")
class Config(Node):
    record: strawberry.Private[records.Config]
    id: strawberry.ID = strawberry.field(description="Begins with cfg_.")
    slug: str = strawberry.field(description="Its name in the organisation; it never changes.")
    revision: int = strawberry.field(
        description="Rises by one with every write; as expectedRevision it keeps one write from undoing another."
    )
    published_version: int | None = strawberry.field(
        description="The number of the version that completions get; null before the first."
    )
    created_at: datetime = strawberry.field(description="UTC.")
    updated_at: datetime = strawberry.field(description="The time of the last write, UTC.")
    archived_at: datetime | None = strawberry.field(
        description="Since then no completion gets it, UTC; null where it is in use."
    )

    @strawberry.field(description="What the next publishConfig publishes.")
    async def draft(self, info: GraphInfo) -> ConfigContent:
        return ConfigContent.of(await info.context.services.configs.draft_of(self.record))

    @strawberry.field(description="The version that completions get; null before the first.")
    async def published(self, info: GraphInfo) -> ConfigVersion | None:
        number = self.published_version
        return None if number is None else ConfigVersion.of(await self._version(info, number))

    @strawberry.field(description="One version. NOT_FOUND where there is none such.")
    async def version(self, info: GraphInfo, number: Number) -> ConfigVersion | None:
        return ConfigVersion.of(await self._version(info, number))

    @strawberry.field(description="Every version, newest first.")
    async def versions(self, info: GraphInfo, first: First = 50, after: After = None) -> ConfigVersionConnection | None:
        context = info.context
        page = await context.services.configs.versions(
            context.principal, ConfigBy(id=self.record.id), first=first, after=after
        )
        return ConfigVersionConnection.of(page, after)

    async def _version(self, info: GraphInfo, number: int) -> records.ConfigVersion:
        return await info.context.services.configs.version_of(self.record, number)

    @classmethod
    def of(cls, config: records.Config) -> Self:
        return cls(
            record=config,
            id=strawberry.ID(config.id),
            slug=config.slug,
            revision=config.revision,
            published_version=config.published,
            created_at=config.created_at,
            updated_at=config.updated_at,
            archived_at=config.archived_at,
        )


@strawberry.type(description="A config and its place in the list.")
class ConfigEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: Config = strawberry.field(description="The config.")


@strawberry.type(description="A page of configs (Relay).")
class ConfigConnection:
    edges: list[ConfigEdge] = strawberry.field(description="The page.")
    nodes: list[Config] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: configs.ConfigPage, after: str | None) -> Self:
        edges = [ConfigEdge(cursor=cursor, node=Config.of(each)) for cursor, each in page.configs]
        cursors = [edge.cursor for edge in edges]
        return cls(edges=edges, nodes=[edge.node for edge in edges], page_info=_page_info(cursors, page.more, after))


@strawberry.type(description="Whether publishConfig would take a draft.")
class ConfigCheck:
    publishable: bool = strawberry.field(description="Whether it would.")
    message: str | None = strawberry.field(description="What is wrong; null where nothing is.")
    path: JSON | None = strawberry.field(
        description='Where in the draft, such as ["tools", 0, "name"]; null where nothing is wrong.'
    )


@strawberry.type(description="One value that differs.")
class ConfigChange:
    path: JSON = strawberry.field(
        description='Its place in ConfigContent, such as ["stop", 0]; in labels the name follows: ["labels", "team"].'
    )
    before: JSON | None = strawberry.field(description="As it is kept; null where there was none.")
    after: JSON | None = strawberry.field(description="As it is kept; null where there is none.")


@strawberry.type(description="What two versions differ in, or a version and the draft.")
class ConfigDiff:
    changes: list[ConfigChange] = strawberry.field(
        description="Value by value, or field by field where more than 1000 values differ; empty where none does.",
        directives=[ListSize(assumed_size=20)],
    )
    text: str = strawberry.field(
        description="The prompt and the messages as a unified diff; empty where they are the same. Very long and "
        "repetitive texts are given one after the other."
    )

    @classmethod
    def of(cls, diff: config_diff.ConfigDiff) -> Self:
        changes = [
            ConfigChange(path=JSON(list(each.path)), before=each.before, after=each.after) for each in diff.changes
        ]
        return cls(changes=changes, text=diff.text)


def _page_info(cursors: Sequence[str], more: bool, after: str | None) -> PageInfo:
    return PageInfo(
        has_next_page=more,
        has_previous_page=after is not None,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )
