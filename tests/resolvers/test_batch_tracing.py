"""Items know the operation that their batch was submitted in, or tried anew."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog

from gateway.tracing.port import NoTracing
from persistence.batch_records import Batch
from providers.errors import ProviderInvalidRequestError
from resolvers.observing import CompletionEnd, Unobserved
from resolvers.principal import Origin

from .batch_stage import BatchStage, answering, open_batch_stage, until
from .scene import ACME, texts

FIRST, SECOND = (f"00-{trace * 32}-b7ad6b7169203331-01" for trace in "ab")


class Listener(Unobserved):
    """What a log of completions has of their operation."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def completed(self, end: CompletionEnd) -> None:
        trace = structlog.contextvars.get_contextvars().get("trace_id")
        self.told.append((end.principal.origin.request_id, trace))


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        stage.tracer = NoTracing()
        stage.batches = replace(stage.batches, tracer=stage.tracer)
        yield stage


@pytest.fixture
def listener(stage: BatchStage) -> Listener:
    listener = Listener()
    stage.scene.services = replace(stage.scene.services, observer=listener)
    return listener


async def submitted(stage: BatchStage, count: int, traceparent: str | None, request_id: str) -> Batch:
    assert isinstance(stage.tracer, NoTracing)
    with stage.tracer.operation(traceparent):
        return await stage.submit(count, replace(ACME, origin=Origin(request_id=request_id)))


async def test_completions_of_items_have_the_submissions_trace_and_request(
    stage: BatchStage, listener: Listener
) -> None:
    answering(stage.alpha)
    traced = await submitted(stage, 3, FIRST, "r-1")
    untraced = await submitted(stage, 1, None, "r-2")
    assert [(each.submitter.request_id, each.submitter.trace) for each in (traced, untraced)] == [
        ("r-1", FIRST),
        ("r-2", None),
    ]
    async with stage.running():
        await stage.ended(traced)
        await stage.ended(untraced)
    assert sorted(listener.told, key=str) == [*[("r-1", "a" * 32)] * 3, ("r-2", None)]


async def test_a_ticket_that_has_lost_its_trace_finds_it_by_its_batch(stage: BatchStage, listener: Listener) -> None:
    answering(stage.alpha)
    batch = await submitted(stage, 2, FIRST, "r-1")
    async with stage.dispatcher():
        await until(lambda: len(stage.queue.jobs) == 2)
        assert {job.trace for job in stage.queue.jobs} == {FIRST}
        stage.queue.jobs = deque(replace(job, trace=None) for job in stage.queue.jobs)
        async with stage.worker():
            await stage.ended(batch)
    assert listener.told == [("r-1", "a" * 32)] * 2


async def test_what_is_tried_anew_is_of_the_operation_that_asked_for_it(stage: BatchStage, listener: Listener) -> None:
    stage.alpha.will([ProviderInvalidRequestError("no", provider="alpha", status=400)])
    batch = await submitted(stage, 1, FIRST, "r-1")
    async with stage.running():
        await stage.ended(batch)
        stage.alpha.will(texts("a"))
        with NoTracing().operation(SECOND):
            await stage.batches.retry(replace(ACME, origin=Origin(request_id="r-2")), batch.id, only_failed=True)
        await stage.ended(batch)
    assert listener.told == [("r-1", "a" * 32), ("r-2", "b" * 32)]


async def test_the_same_by_its_idempotency_key_stays_in_the_first_trace(stage: BatchStage) -> None:
    assert isinstance(stage.tracer, NoTracing)
    found = []
    for traceparent in (FIRST, SECOND):
        with stage.tracer.operation(traceparent):
            found.append(await stage.submit(1, idempotency_key="once"))
    assert [each.submitter.trace for each in found] == [FIRST, FIRST]
