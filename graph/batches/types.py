"""What batches are shown as."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self

import strawberry

from graph.completions.types import Completion, Label, PageInfo
from graph.context import GraphInfo
from graph.cost import ListSize
from graph.node import Node
from persistence import batch_records as records
from resolvers.batches.asked import Problem
from resolvers.batches.cases import BatchPage, ItemPage, Link
from resolvers.batches.submitting import Rehearsal

from .inputs import BatchItemState, BatchMode, BatchState

First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
States = Annotated[list[BatchItemState] | None, strawberry.argument(description="In one of these; absent, in any.")]


@strawberry.type(description="How many of a batch's items are in each state: exact, whole values.")
class BatchCounts:
    total: int = strawberry.field(description="All of them.")
    waiting: int = strawberry.field(description="For their turn, for a limit, or for another try.")
    queued: int = strawberry.field(description="For the next free worker.")
    running: int = strawberry.field(description="At a worker, or at the vendor.")
    succeeded: int = strawberry.field(description="With an answer.")
    failed: int = strawberry.field(description="With an error.")
    cancelled: int = strawberry.field(description="Stopped, or never begun.")

    @classmethod
    def of(cls, counts: records.Counts) -> Self:
        return cls(
            total=counts.total,
            waiting=counts.waiting,
            queued=counts.queued,
            running=counts.running,
            succeeded=counts.succeeded,
            failed=counts.failed,
            cancelled=counts.cancelled,
        )


@strawberry.type(description="Why an item has no answer.")
class BatchItemError:
    code: str = strawberry.field(description="As in `extensions.code`.")
    message: str = strawberry.field(description="For people.")


@strawberry.type(description="One completion of a batch.")
class BatchItem:
    index: int = strawberry.field(description="Its place among the inputs, from 0.")
    custom_id: str | None = strawberry.field(description="Your own name of it, where the file has one.")
    state: BatchItemState = strawberry.field(description="How far it is.")
    failures: int = strawberry.field(description="How many of its attempts ended badly; after the third it has failed.")
    completion_id: strawberry.ID | None = strawberry.field(
        description="The completion of its last attempt, which the ledger has; null where nothing was asked yet."
    )
    error: BatchItemError | None = strawberry.field(description="Of its last attempt; null where it has an answer.")
    cost: Decimal | None = strawberry.field(description="USD for all its attempts, as far as known; null before any.")
    ended_at: datetime | None = strawberry.field(description="When it ended, UTC.")
    record: strawberry.Private[records.Item]

    @strawberry.field(description="The answer; null where there is none.")
    async def completion(self, info: GraphInfo) -> Completion | None:
        found = await info.context.services.batches.answer(self.record)
        return None if found is None else Completion.of(found)

    @classmethod
    def of(cls, item: records.Item) -> Self:
        error = item.error if item.state is not records.ItemState.SUCCEEDED else None
        return cls(
            index=item.index,
            custom_id=item.custom_id,
            state=BatchItemState(item.state.value),
            failures=item.failures,
            completion_id=None if item.completion_id is None else strawberry.ID(item.completion_id),
            error=None if error is None else BatchItemError(code=error.code, message=error.message),
            cost=item.cost,
            ended_at=item.ended_at,
            record=item,
        )


@strawberry.type(description="An item and its place in the list.")
class BatchItemEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: BatchItem = strawberry.field(description="The item.")


@strawberry.type(description="A page of a batch's items, in the inputs' order (Relay).")
class BatchItemConnection:
    edges: list[BatchItemEdge] = strawberry.field(description="The page.")
    nodes: list[BatchItem] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: ItemPage, after: str | None) -> Self:
        edges = [BatchItemEdge(cursor=str(item.index), node=BatchItem.of(item)) for item in page.items]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page_info([edge.cursor for edge in edges], after, more=page.more),
        )


@strawberry.type(description="A link to a file. Whoever has it can use it until it expires.")
class FileLink:
    file: str = strawberry.field(description="The file's name in the organisation's object storage.")
    url: str = strawberry.field(description="Absolute, or relative to the address of this API.")
    expires_at: datetime = strawberry.field(description="When it stops to open, UTC.")

    @classmethod
    def of(cls, link: Link) -> Self:
        return cls(file=link.name, url=link.url, expires_at=link.expires_at)


@strawberry.type(description="Many completions under one id.")
class Batch(Node):
    id: strawberry.ID = strawberry.field(description="Sorts by time.")
    state: BatchState = strawberry.field(description="How far it is.")
    mode: BatchMode = strawberry.field(description="Who works on it.")
    priority: int = strawberry.field(description="0 to 9.")
    concurrency: int | None = strawberry.field(
        description="In mode LIVE: how many run at once at most; null for any number."
    )
    labels: list[Label] = strawberry.field(description="That its completions have besides their own.")
    webhook: strawberry.ID | None = strawberry.field(
        description="The one that is told of its end; null for all that ask for BATCH_COMPLETED."
    )
    idempotency_key: str | None = strawberry.field(description="Your own name of it.")
    principal: str = strawberry.field(description="Who submitted it, or tried it anew: its items run for him.")
    counts: BatchCounts = strawberry.field(description="How many of its items are how far.")
    cost: Decimal = strawberry.field(description="USD until now, as far as it is known.")
    unpriced: int = strawberry.field(description="How many items have cost what is not known.")
    run: int = strawberry.field(description="1, and one more for each retryBatch.")
    created_at: datetime = strawberry.field(description="When it was submitted, UTC.")
    started_at: datetime = strawberry.field(description="When this run of it began, UTC.")
    deadline: datetime | None = strawberry.field(description="What has not begun by then fails, UTC.")
    ended_at: datetime | None = strawberry.field(description="When all of it had ended, UTC.")
    record: strawberry.Private[records.Batch]

    @strawberry.field(
        description="When it will have ended at the pace of this run, UTC; null where that can't be told."
    )
    def estimated_end_at(self, info: GraphInfo) -> datetime | None:
        return info.context.services.batches.estimated_end(self.record)

    @strawberry.field(
        description="A link to all results, for an hour: JSON Lines, one for each input and in their order. Null until "
        "it has ended."
    )
    async def results(self, info: GraphInfo) -> FileLink | None:
        context = info.context
        link = await context.services.batches.results(context.principal, self.record)
        return None if link is None else FileLink.of(link)

    @strawberry.field(description="Its items, in the inputs' order.")
    async def items(
        self, info: GraphInfo, first: First = 50, after: After = None, states: States = None
    ) -> BatchItemConnection | None:
        asked = tuple(records.ItemState[state.name] for state in states or ())
        page = await info.context.services.batches.items(self.record, first=first, after=after, states=asked)
        return BatchItemConnection.of(page, after)

    @classmethod
    def of(cls, batch: records.Batch) -> Self:
        return cls(
            id=strawberry.ID(batch.id),
            state=BatchState.of(batch.state),
            mode=BatchMode(batch.mode.value),
            priority=batch.priority,
            concurrency=batch.concurrency,
            labels=[Label(name=name, value=value) for name, value in batch.labels.items()],
            webhook=None if batch.webhook is None else strawberry.ID(batch.webhook),
            idempotency_key=batch.idempotency_key,
            principal=batch.submitter.subject,
            counts=BatchCounts.of(batch.counts),
            cost=batch.cost,
            unpriced=batch.unpriced,
            run=batch.run,
            created_at=batch.created_at,
            started_at=batch.started_at,
            deadline=batch.deadline,
            ended_at=batch.ended_at,
            record=batch,
        )


@strawberry.type(description="A batch and its place in the list.")
class BatchEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: Batch = strawberry.field(description="The batch.")


@strawberry.type(description="A page of batches, newest first (Relay).")
class BatchConnection:
    edges: list[BatchEdge] = strawberry.field(description="The page.")
    nodes: list[Batch] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: BatchPage, after: str | None) -> Self:
        edges = [BatchEdge(cursor=batch.id, node=Batch.of(batch)) for batch in page.batches]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page_info([edge.cursor for edge in edges], after, more=page.more),
        )


@strawberry.type(description="What is wrong with an input.")
class BatchProblem:
    line: int = strawberry.field(description="Its line in the file, or its number among the inputs, from 1.")
    path: str = strawberry.field(description='The field, such as "messages.0.role"; empty for the input as a whole.')
    message: str = strawberry.field(description="For people.")

    @classmethod
    def of(cls, problem: Problem) -> Self:
        return cls(line=problem.line, path=".".join(map(str, problem.path)), message=problem.message)


@strawberry.type(description="What a batch would be.")
class BatchRehearsal:
    items: int = strawberry.field(description="How many inputs there are.")
    most_cost: Decimal = strawberry.field(
        description="USD, an upper bound for one attempt at each input, at the dearest of its models: as far as prices "
        "and bounds are known."
    )
    unpriced: int = strawberry.field(
        description="How many inputs are not in it: without a known price, or without maxTokens where the model's own "
        "bound is not known."
    )
    wrong: int = strawberry.field(description="How many inputs would be refused.")
    problems: list[BatchProblem] = strawberry.field(
        description="What is wrong with the first 100 of those.", directives=[ListSize(assumed_size=20)]
    )

    @classmethod
    def of(cls, found: Rehearsal) -> Self:
        return cls(
            items=found.items,
            most_cost=found.most_cost,
            unpriced=found.unpriced,
            wrong=found.wrong,
            problems=[BatchProblem.of(each) for each in found.problems],
        )


@strawberry.type(description="What submitBatch did.")
class SubmitBatchPayload:
    batch: Batch | None = strawberry.field(description="The batch, which is durable; null for a dryRun.")
    rehearsal: BatchRehearsal | None = strawberry.field(description="What it would be, for a dryRun; else null.")


def page_info(cursors: list[str], after: str | None, *, more: bool) -> PageInfo:
    return PageInfo(
        has_next_page=more,
        has_previous_page=after is not None,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )
