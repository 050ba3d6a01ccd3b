"""The root fields of configs. They translate; the use cases decide."""

from __future__ import annotations

from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from graph.context import GraphInfo
from graph.scopes import Guarded
from persistence import config_records as records
from resolvers.config_content import DRAFT
from resolvers.errors import BadUserInputError
from resolvers.principal import Scope

from .inputs import (
    ArchiveConfigInput,
    ConfigBy,
    ConfigContentInput,
    ConfigFilter,
    ConfigOrder,
    CreateConfigInput,
    PublishConfigInput,
    RollbackConfigInput,
    UpdateConfigInput,
)
from .types import After, Config, ConfigCheck, ConfigConnection, ConfigDiff, First

By = Annotated[ConfigBy, strawberry.argument(description="Which config.")]
Filter = Annotated[ConfigFilter | None, strawberry.argument(description="Which configs.")]
OrderBy = Annotated[
    ConfigOrder,
    strawberry.argument(
        description="Which comes first. By UPDATED, a config that is written between two pages may be in neither: to "
        "read them all, take SLUG."
    ),
]
Draft = Annotated[ConfigContentInput, strawberry.argument(description="The draft.")]
From = Annotated[int, strawberry.argument(name="from", description="The number of the version before.")]
To = Annotated[
    int | None, strawberry.argument(description="The number of the version after; absent, the draft is meant.")
]
Create = Annotated[CreateConfigInput, strawberry.argument(description="The config that is to be.")]
Update = Annotated[UpdateConfigInput, strawberry.argument(description="The draft that is to be.")]
Publish = Annotated[PublishConfigInput, strawberry.argument(description="What to publish.")]
Rollback = Annotated[RollbackConfigInput, strawberry.argument(description="What to go back to.")]
Archive = Annotated[ArchiveConfigInput, strawberry.argument(description="What to archive.")]
Unarchive = Annotated[ArchiveConfigInput, strawberry.argument(description="What to take back into use.")]


@strawberry.type
class ConfigQueries:
    @strawberry.field(
        description="One config. NOT_FOUND where the organisation has none such.",
        extensions=[Guarded(Scope.CONFIGS_READ)],
    )
    async def config(self, info: GraphInfo, by: By) -> Config | None:
        context = info.context
        return Config.of(await context.services.configs.get(context.principal, by.reference()))

    @strawberry.field(description="The organisation's configs.", extensions=[Guarded(Scope.CONFIGS_READ)])
    async def configs(
        self,
        info: GraphInfo,
        first: First = 50,
        after: After = None,
        filter: Filter = None,  # noqa: A002  # the argument's name
        order_by: OrderBy = ConfigOrder.UPDATED,
    ) -> ConfigConnection | None:
        context = info.context
        page = await context.services.configs.page(
            context.principal,
            first=first,
            after=after,
            where=records.ConfigFilter() if filter is None else filter.conditions(),
            order=records.ConfigOrder[order_by.name],
        )
        return ConfigConnection.of(page, after)

    @strawberry.field(
        description="What changed from one version of a config to another, or to its draft.",
        extensions=[Guarded(Scope.CONFIGS_READ)],
    )
    async def config_diff(self, info: GraphInfo, by: By, from_: From, to: To = None) -> ConfigDiff | None:
        context = info.context
        return ConfigDiff.of(await context.services.configs.diff(context.principal, by.reference(), from_, to))

    @strawberry.field(
        description="Whether publishConfig would take a draft, and why not. Nothing is kept.",
        extensions=[Guarded(Scope.CONFIGS_READ)],
    )
    async def config_check(self, info: GraphInfo, draft: Draft) -> ConfigCheck | None:
        context = info.context
        try:
            await context.services.configs.check(context.principal, draft.content())
        except BadUserInputError as error:
            return ConfigCheck(publishable=False, message=error.message, path=JSON(list(error.path[len(DRAFT) :])))
        return ConfigCheck(publishable=True, message=None, path=None)


@strawberry.type
class ConfigMutations:
    @strawberry.mutation(
        description="A new config, as a draft: completions get it once it is published.",
        extensions=[Guarded(Scope.CONFIGS_WRITE)],
    )
    async def create_config(self, info: GraphInfo, input: Create) -> Config | None:  # noqa: A002  # the argument's name
        context = info.context
        draft = input.draft.content()
        return Config.of(await context.services.configs.create(context.principal, input.slug, draft))

    @strawberry.mutation(
        description="A new draft in place of the old one. Completions go on with what is published.",
        extensions=[Guarded(Scope.CONFIGS_WRITE)],
    )
    async def update_config(self, info: GraphInfo, input: Update) -> Config | None:  # noqa: A002  # the argument's name
        context = info.context
        return Config.of(
            await context.services.configs.update_draft(
                context.principal,
                input.by.reference(),
                input.draft.content(),
                expected_revision=input.expected_revision,
            )
        )

    @strawberry.mutation(
        description="The draft becomes the next version, and that is what completions get. BAD_USER_INPUT, its path "
        'from ["input", "draft"] on, for a draft that no completion could be made of.',
        extensions=[Guarded(Scope.CONFIGS_WRITE)],
    )
    async def publish_config(self, info: GraphInfo, input: Publish) -> Config | None:  # noqa: A002  # the argument's name
        context = info.context
        return Config.of(
            await context.services.configs.publish(
                context.principal, input.by.reference(), expected_revision=input.expected_revision
            )
        )

    @strawberry.mutation(
        description="An older version is what completions get again. The draft stays as it is.",
        extensions=[Guarded(Scope.CONFIGS_WRITE)],
    )
    async def rollback_config(self, info: GraphInfo, input: Rollback) -> Config | None:  # noqa: A002  # the argument's name
        context = info.context
        return Config.of(
            await context.services.configs.rollback(
                context.principal, input.by.reference(), input.version, expected_revision=input.expected_revision
            )
        )

    @strawberry.mutation(
        description="From then on no completion gets the config. Twice is once.",
        extensions=[Guarded(Scope.CONFIGS_WRITE)],
    )
    async def archive_config(self, info: GraphInfo, input: Archive) -> Config | None:  # noqa: A002  # the argument's name
        context = info.context
        return Config.of(
            await context.services.configs.archive(
                context.principal, input.by.reference(), expected_revision=input.expected_revision
            )
        )

    @strawberry.mutation(
        description="Completions get an archived config again: the version that is published now. Twice is once.",
        extensions=[Guarded(Scope.CONFIGS_WRITE)],
    )
    async def unarchive_config(self, info: GraphInfo, input: Unarchive) -> Config | None:  # noqa: A002  # the argument's name
        context = info.context
        return Config.of(
            await context.services.configs.unarchive(
                context.principal, input.by.reference(), expected_revision=input.expected_revision
            )
        )
