"""The root fields of completions. They translate; the use cases decide."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import strawberry

from graph.context import GraphInfo
from graph.cost import Cost, ListSize
from graph.scopes import Guarded
from persistence import records
from resolvers import completions, history
from resolvers.principal import Scope
from resolvers.resuming import resume

from .events import CompletionEvent, event_of
from .inputs import CompleteInput, CompletionFilter, CompletionRef, resolved
from .many import CompletionOutcome, complete_many
from .types import (
    Attempt,
    CancelCompletionPayload,
    Completion,
    CompletionRecord,
    CompletionRecordConnection,
    CompletionRecordEdge,
    Correction,
    FinishReason,
    Label,
    Outcome,
    PageInfo,
    Usage,
)

Input = Annotated[CompleteInput, strawberry.argument(description="The completion that is asked for.")]
Inputs = Annotated[
    list[CompleteInput], strawberry.argument(description="The completions that are asked for, up to 50.")
]
By = Annotated[CompletionRef, strawberry.argument(description="Which completion.")]
First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
Filter = Annotated[CompletionFilter | None, strawberry.argument(description="Which completions.")]

Detached = Annotated[
    bool,
    strawberry.argument(
        description="True: it goes on when its reader leaves, to its end or its deadline, for resumeCompletion to come "
        "back to; cancelCompletion stops it. False: it is cancelled when its reader leaves."
    ),
]
StreamId = Annotated[strawberry.ID, strawberry.argument(description="The completion's, as its first event told it.")]
AfterSequence = Annotated[
    int, strawberry.argument(description="The `sequence` of the last event that was seen; 0 for all of them.")
]


@strawberry.type
class CompletionMutations:
    @strawberry.mutation(
        description="Asks a model and waits for the whole answer. Several in one document, under aliases, run in turn; "
        "completeMany runs them in parallel.",
        extensions=[Guarded(Scope.COMPLETIONS_WRITE)],
        directives=[Cost(weight=0)],
    )
    async def complete(self, info: GraphInfo, input: Input) -> Completion | None:  # noqa: A002  # the argument's name
        context = info.context
        command = input.command() if input.config is None else await resolved(input, input.config, context)
        return Completion.of(await completions.complete(context.services, context.principal, command))

    @strawberry.mutation(
        description="Asks for several answers in parallel, 8 at a time, and waits for all. The outcomes are in the "
        "inputs' order, each its own success or failure. The largest timeoutMs of the inputs bounds them all; "
        "an input's own, where it is shorter, counts from its start.",
        extensions=[Guarded(Scope.COMPLETIONS_WRITE)],
        directives=[Cost(weight=0), ListSize(slicing_argument="inputs")],
    )
    async def complete_many(self, info: GraphInfo, inputs: Inputs) -> list[CompletionOutcome] | None:
        return await complete_many(info.context, inputs)

    @strawberry.mutation(
        description="Stops a running completion: its stream, or answer, ends with finishReason CANCELLED.",
        extensions=[Guarded(Scope.COMPLETIONS_WRITE)],
    )
    async def cancel_completion(self, info: GraphInfo, by: By) -> CancelCompletionPayload | None:
        context = info.context
        completion_id, cancelled = await completions.cancel(context.services, context.principal, by.reference())
        return CancelCompletionPayload(completion_id=strawberry.ID(completion_id), cancelled=cancelled)


@strawberry.type
class CompletionQueries:
    @strawberry.field(
        description="One past completion, from the ledger. NOT_FOUND where the organisation has none such.",
        extensions=[Guarded(Scope.COMPLETIONS_READ)],
    )
    async def completion(self, info: GraphInfo, by: By) -> CompletionRecord | None:
        context = info.context
        return record_of(await history.completion(context.services.ledger, context.principal, by.reference()))

    @strawberry.field(
        description="Past completions of the organisation, newest first.",
        extensions=[Guarded(Scope.COMPLETIONS_READ)],
    )
    async def completions(
        self,
        info: GraphInfo,
        first: First = 50,
        after: After = None,
        filter: Filter = None,  # noqa: A002  # the argument's name
    ) -> CompletionRecordConnection | None:
        context = info.context
        page = await history.completions(
            context.services.ledger,
            context.principal,
            first=first,
            after=after,
            where=records.CompletionFilter() if filter is None else filter.conditions(),
        )
        return _connection(page, after)


@strawberry.type
class CompletionSubscriptions:
    @strawberry.subscription(
        description="Asks a model and shows the answer as it is written. Its events are kept for 5 minutes after its "
        "end, for resumeCompletion.",
        extensions=[Guarded(Scope.COMPLETIONS_WRITE)],
        directives=[Cost(weight=10)],
    )
    async def completion_stream(
        self,
        info: GraphInfo,
        input: Input,  # noqa: A002  # the argument's name
        detached: Detached = False,
    ) -> AsyncGenerator[CompletionEvent, None]:
        context = info.context
        command = input.command() if input.config is None else await resolved(input, input.config, context)
        async with aclosing(
            completions.stream(context.services, context.principal, command, detached=detached)
        ) as events:
            async for event in events:
                yield event_of(event)

    @strawberry.subscription(
        description="A stream of the caller's own once more, in whatever process it runs or ran: what came after "
        "`after`, and what comes from then on, to the same end. Deltas may be merged otherwise than the first time; "
        "the text is the same. NOT_FOUND where it is not, or no longer, kept.",
        extensions=[Guarded(Scope.COMPLETIONS_WRITE)],
    )
    async def resume_completion(
        self,
        info: GraphInfo,
        id: StreamId,  # noqa: A002  # the argument's name
        after: AfterSequence = 0,
    ) -> AsyncGenerator[CompletionEvent, None]:
        context = info.context
        async with aclosing(resume(context.services, context.principal, id, after)) as events:
            async for event in events:
                yield event_of(event)


def record_of(record: history.CompletionRecord) -> CompletionRecord:
    return CompletionRecord(
        id=strawberry.ID(record.id),
        created_at=record.created_at,
        provider=record.provider,
        model=record.model,
        outcome=Outcome(record.outcome.value),
        error_code=record.error_code,
        finish_reason=None if record.finish_reason is None else FinishReason(record.finish_reason),
        usage=Usage.of(record.usage),
        latency_ms=record.latency_ms,
        time_to_first_token_ms=record.time_to_first_token_ms,
        streamed=record.streamed,
        cached=record.cached,
        organisation=record.organisation,
        principal=record.principal,
        end_user=record.end_user,
        idempotency_key=record.idempotency_key,
        config=record.config,
        config_version=record.config_version,
        labels=[Label(name=name, value=value) for name, value in record.labels],
        attempts=[Attempt.of(attempt) for attempt in record.attempts],
        corrections=[Correction.of(correction) for correction in record.corrections],
    )


def _connection(page: history.Page, after: str | None) -> CompletionRecordConnection:
    edges = [CompletionRecordEdge(cursor=cursor, node=record_of(record)) for cursor, record in page.records]
    return CompletionRecordConnection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=PageInfo(
            has_next_page=page.more,
            has_previous_page=after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )
