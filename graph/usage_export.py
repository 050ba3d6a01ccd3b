"""Usage as a file: a link that a browser may follow."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from graph.context import GraphInfo
from graph.scopes import Guarded
from resolvers import usage_links
from resolvers.principal import Scope

from .usage_inputs import UsageInput


@strawberry.type(description="A link to a usage report as CSV. Whoever has it can read that report until it expires.")
class UsageExport:
    url: str = strawberry.field(
        description='Relative to the address of this API: "/usage.csv?…". A GET without a token answers with CSV (RFC'
        " 4180, UTF-8), a line for each bucket of each group; with 403 where the link was changed, 410 once it has"
        " expired, 400 where the report has too many groups, and 503 while the ledger can't be read."
    )
    expires_at: datetime = strawberry.field(description="When it stops to open, 15 minutes from now, UTC.")


Input = Annotated[UsageInput, strawberry.argument(description="The report, as `usage` takes it.")]


@strawberry.type
class UsageExportMutations:
    @strawberry.mutation(
        description="A signed link to what `usage` tells, with the same limits. The report is made when the link is"
        " followed, each time anew.",
        extensions=[Guarded(Scope.USAGE_READ)],
    )
    async def export_usage(
        self,
        info: GraphInfo,
        input: Input,  # noqa: A002  # the argument's name
    ) -> UsageExport | None:
        context = info.context
        link = await usage_links.export(context.services.usage_links, context.audit, context.principal, input.query())
        return UsageExport(url=link.url, expires_at=link.expires_at)
