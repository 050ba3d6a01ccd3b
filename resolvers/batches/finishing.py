"""The end of a batch: all of its results in one file, in the order of its inputs, and whoever wants to know told."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import orjson
import structlog

from persistence.batch_records import Batch, BatchState, Item, ItemError, ItemState
from persistence.ports import BatchStore, ObjectStore

from ..types import Completion
from .json_texts import Texts, completion_of, results_name

AT_ONCE = 100
LOST = ItemError("INTERNAL", "the answer's file is not there any more")

log = structlog.get_logger("batches")


class BatchEvents(Protocol):
    """Who tells the world that a batch has ended."""

    async def ended(self, batch: Batch) -> None:
        """Once for a run of the batch, however often it is called. Raises StoreUnavailableError where that can't be
        kept: then it is called again."""
        ...


@dataclass(frozen=True, slots=True)
class Finisher:
    """`now` is aware UTC."""

    store: BatchStore
    objects: ObjectStore
    events: BatchEvents | None
    now: Callable[[], datetime]

    async def finish(self, batch: Batch) -> Batch | None:
        """Of a batch whose items have all ended; may be done again, by whoever comes after one that was killed. Raises
        StoreUnavailableError."""
        name = results_name(batch.id, batch.run)
        await self.objects.put(batch.organisation, name, self._lines(batch))
        now = self.now()
        cancelled = batch.state is BatchState.CANCELLING
        values: dict[str, Any] = {
            "state": BatchState.CANCELLED if cancelled else BatchState.COMPLETED,
            "ended_at": now.replace(microsecond=now.microsecond // 1000 * 1000),
            "result_file": name,
        }
        if self.events is not None:
            await self.events.ended(replace(batch, **values))
        states = batch.state, BatchState.CANCELLING  # who cancels it now comes too late: it ends as was told
        ended = await self.store.change(batch.organisation, batch.id, expects=states, values=values)
        if ended is not None:
            log.info("a batch has ended", batch=batch.id, organisation=batch.organisation, state=ended.state.value)
        return ended

    async def _lines(self, batch: Batch) -> AsyncGenerator[bytes, None]:
        texts, after = Texts(self.objects), -1
        while items := await self.store.items(batch.organisation, batch.id, limit=AT_ONCE, after=after):
            for item in items:
                yield await line_of(texts, item)
            after = items[-1].index


async def line_of(texts: Texts, item: Item) -> bytes:
    """A line of the file of results, its names those of the API."""
    completion = None
    error = item.error
    if item.state is ItemState.SUCCEEDED and item.result is not None:
        try:
            completion = shown(completion_of(await texts.read(item.organisation, item.result)))
        except FileNotFoundError:
            log.warning("an item's answer is lost", batch=item.batch, item=item.index)
            error = LOST
    line = {
        "index": item.index,
        "customId": item.custom_id,
        "state": item.state.name,
        "completion": completion,
        "error": None if error is None else {"code": error.code, "message": error.message},
        "completionId": item.completion_id,
        "cost": None if item.cost is None else format(item.cost, "f"),
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def shown(completion: Completion) -> Mapping[str, Any]:
    """What of an answer a line has."""
    usage = completion.usage
    return {
        "id": completion.id,
        "provider": completion.provider,
        "model": completion.model,
        "content": completion.content,
        "parsed": completion.parsed,
        "reasoning": completion.reasoning,
        "toolCalls": [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in completion.tool_calls
        ],
        "finishReason": completion.finish_reason.name,
        "usage": {
            "inputTokens": usage.input_tokens,
            "outputTokens": usage.output_tokens,
            "cachedInputTokens": usage.cached_input_tokens,
            "cacheWriteTokens": usage.cache_write_tokens,
            "reasoningTokens": usage.reasoning_tokens,
            "cost": None if usage.cost is None else format(usage.cost, "f"),
            "costSource": usage.cost_source.name,
            "estimated": usage.estimated,
        },
        "latencyMs": completion.latency_ms,
        "createdAt": completion.created_at.isoformat(),
    }
