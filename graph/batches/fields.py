"""The root fields of batches. They translate; the use cases decide."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import strawberry

from graph.context import GraphInfo
from graph.scopes import Guarded
from resolvers.principal import Scope

from .inputs import BatchState, CancelBatchInput, RetryBatchInput, SubmitBatchInput, UploadBatchFileInput
from .lines import reader
from .types import After, Batch, BatchConnection, BatchRehearsal, FileLink, First, SubmitBatchPayload

Submit = Annotated[SubmitBatchInput, strawberry.argument(description="The batch that is asked for.")]
Upload = Annotated[UploadBatchFileInput, strawberry.argument(description="How the file is to be brought.")]
Cancel = Annotated[CancelBatchInput, strawberry.argument(description="Which batch.")]
Retry = Annotated[RetryBatchInput, strawberry.argument(description="Which batch.")]
Id = Annotated[strawberry.ID, strawberry.argument(description="The batch's id.")]
States = Annotated[list[BatchState] | None, strawberry.argument(description="In one of these; absent, in any.")]


@strawberry.type
class BatchQueries:
    @strawberry.field(
        description="A batch. NOT_FOUND where the organisation has none such.",
        extensions=[Guarded(Scope.BATCHES_READ)],
    )
    async def batch(self, info: GraphInfo, id: Id) -> Batch | None:  # noqa: A002  # the argument's name
        context = info.context
        return Batch.of(await context.services.batches.get(context.principal, id))

    @strawberry.field(description="The organisation's batches, newest first.", extensions=[Guarded(Scope.BATCHES_READ)])
    async def batches(
        self, info: GraphInfo, first: First = 50, after: After = None, states: States = None
    ) -> BatchConnection | None:
        context = info.context
        asked = tuple(kept for state in states or () for kept in state.kept_as)
        page = await context.services.batches.page(context.principal, first=first, after=after, states=asked)
        return BatchConnection.of(page, after)


@strawberry.type
class BatchMutations:
    @strawberry.mutation(
        description="A signed link that takes a batch's file by PUT, and the name to submit it by.",
        extensions=[Guarded(Scope.BATCHES_WRITE)],
    )
    async def upload_batch_file(
        self,
        info: GraphInfo,
        input: Upload,  # noqa: A002  # the argument's name
    ) -> FileLink | None:
        context = info.context
        return FileLink.of(
            await context.services.batches.upload(context.principal, context.audit, seconds=input.seconds)
        )

    @strawberry.mutation(
        description="Accepts many completions, which are worked on from then on: once this answers, none of them is "
        "lost. Every input is checked before; one that is wrong is BAD_USER_INPUT, named by its line and field, and "
        "nothing is accepted.",
        extensions=[Guarded(Scope.BATCHES_WRITE)],
    )
    async def submit_batch(
        self,
        info: GraphInfo,
        input: Submit,  # noqa: A002  # the argument's name
    ) -> SubmitBatchPayload | None:
        context, asked = info.context, input.asked()
        schema = info._raw_info.schema  # what a line is read by; Strawberry's own has no other way to it
        source = input.given() if input.file is None else reader(schema, info.schema.config, input.defaults)
        if input.dry_run:
            found = await context.services.batches.rehearse(context.principal, asked, source)
            return SubmitBatchPayload(batch=None, rehearsal=BatchRehearsal.of(found))
        batch = await context.services.batches.submit(context.principal, asked, source)
        return SubmitBatchPayload(batch=Batch.of(batch), rehearsal=None)

    @strawberry.mutation(
        description="Stops a batch: what waits is not begun, what runs is stopped, at the vendor's too. One that has "
        "ended stays as it is.",
        extensions=[Guarded(Scope.BATCHES_WRITE)],
    )
    async def cancel_batch(
        self,
        info: GraphInfo,
        input: Cancel,  # noqa: A002  # the argument's name
    ) -> Batch | None:
        context = info.context
        return Batch.of(await context.services.batches.cancel(context.principal, input.id))

    @strawberry.mutation(
        description="Has what failed in a batch that has ended run anew, for whoever asks, with another 7 days. What "
        "succeeded stays.",
        extensions=[Guarded(Scope.BATCHES_WRITE)],
    )
    async def retry_batch(
        self,
        info: GraphInfo,
        input: Retry,  # noqa: A002  # the argument's name
    ) -> Batch | None:
        context, only_failed = info.context, input.only_failed is not False
        return Batch.of(await context.services.batches.retry(context.principal, input.id, only_failed=only_failed))


@strawberry.type
class BatchSubscriptions:
    @strawberry.subscription(
        description="A batch as it is now, then whenever that has changed, and after 15 seconds without a change: whole"
        " values, so that one that is missed does no harm. It ends when the batch has ended; with UNAUTHENTICATED when "
        "the token has expired. An organisation watches at most 50 batches at once (RATE_LIMITED).",
        extensions=[Guarded(Scope.BATCHES_READ)],
    )
    async def batch_progress(
        self,
        info: GraphInfo,
        id: Id,  # noqa: A002  # the argument's name
    ) -> AsyncGenerator[Batch, None]:
        context = info.context
        async with aclosing(context.services.batches.progress.of(context.principal, id)) as states:
            async for batch in states:
                yield Batch.of(batch)
