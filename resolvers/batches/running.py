"""One item of a batch that a worker has claimed: asked as any completion is, its end kept under the claim's fence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import structlog

from persistence.batch_records import Batch, BatchMode, Item, ItemError, ItemState, Move
from persistence.ports import BatchStore, ObjectStore, StoreUnavailableError

from .. import completions
from ..errors import CompletionFailedError, DomainError
from ..key_cache import KeyCache
from ..run import DEFAULT_TIMEOUT_MS, Services
from ..tracing import UNTRACED, Tracer
from ..types import CompleteCommand, Completion
from .brakes import Brakes
from .json_texts import Texts, command_of, completion_text, result_name
from .moving import Mover
from .standing import Standing
from .tickets import ITEM_JOB
from .verdicts import Verdicts

KEEP_FOR_S = 60.0
"""For so long the end of an item is tried to be kept while the store is away: longer than its lease lasts."""
REST_S = 0.5
MAX_MESSAGE = 1_000

log = structlog.get_logger("batches")


class BatchesOf:
    """The batches of items that were claimed together: each is read once."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._reads: dict[tuple[str, str], asyncio.Task[Batch | None]] = {}

    async def find(self, item: Item) -> Batch | None:
        """Raises StoreUnavailableError."""
        name = item.organisation, item.batch
        if name not in self._reads:
            self._reads[name] = asyncio.create_task(_read(self._store, *name), name="batch-read")
        return await asyncio.shield(self._reads[name])


async def _read(store: BatchStore, organisation: str, batch_id: str) -> Batch | None:
    return await store.by_id(organisation, batch_id)


class ItemRunner:
    """Brings items to their ends. `now` is aware UTC."""

    def __init__(
        self,
        services: Services,
        objects: ObjectStore,
        keys: KeyCache,
        mover: Mover,
        now: Callable[[], datetime],
        tracer: Tracer = UNTRACED,
    ) -> None:
        self._services = services
        self._texts = Texts(objects)
        self._mover = mover
        self._now = now
        self._tracer = tracer
        self._standing = Standing(keys, now)
        self._brakes = Brakes(services.clock)

    async def run(self, item: Item, batches: BatchesOf, trace: str | None) -> None:
        """Until its end, or what comes before another try, is kept. Cancelled, it gives the item back, if it is still
        its own. `trace`: the ticket's, None where the queue has forgotten it."""
        verdicts = Verdicts(item, self._now, self._services.random)
        try:
            origin = trace or await _origin(item, batches)
            with self._tracer.working(ITEM_JOB, [] if origin is None else [origin]):
                move = await self._attempt(item, batches, verdicts)
        except asyncio.CancelledError:
            with suppress(StoreUnavailableError):  # then it comes again when its lease is over
                await self._mover.move(verdicts.left(), BatchMode.LIVE)
            raise
        await self._keep(_bounded(move))

    async def _attempt(self, item: Item, batches: BatchesOf, verdicts: Verdicts) -> Move:
        try:
            batch = await batches.find(item)
            if batch is None:
                return verdicts.left()
            command = command_of(await self._texts.read(item.organisation, item.input))
            if (seconds := await self._held_s(item, command)) > 0:
                return verdicts.held(seconds)
            completion = await self._complete(batch, command)
            return await self._with_result(item, verdicts.succeeded(completion), completion)
        except DomainError as error:
            return verdicts.failed(error)
        except StoreUnavailableError as error:
            log.warning("an item waits for what it needs", batch=item.batch, item=item.index, reason=str(error))
            return verdicts.held(REST_S)
        except Exception:  # whatever it is, the other items go on
            log.exception("an item broke", batch=item.batch, item=item.index, failures=item.failures + 1)
            return verdicts.broke()

    async def _complete(self, batch: Batch, command: CompleteCommand) -> Completion:
        principal = await self._standing.principal(batch, command)
        timeout_ms = command.timeout_ms or DEFAULT_TIMEOUT_MS
        if batch.deadline is not None:
            left_ms = int((batch.deadline - self._now()).total_seconds() * 1000)
            timeout_ms = max(1, min(timeout_ms, left_ms))
        command = replace(command, timeout_ms=timeout_ms)
        try:
            completion = await completions.complete(self._services, principal, command, background=True)
        except CompletionFailedError as error:
            if error.code == "PROVIDER_RATE_LIMITED" and error.retryable:
                wait_ms = error.retry_after_ms
                wait_s = None if wait_ms is None else wait_ms / 1000
                self._brakes.refused(batch.organisation, command.target, wait_s)
            raise
        self._brakes.answered(batch.organisation, command.target)
        return completion

    async def _held_s(self, item: Item, command: CompleteCommand) -> float:
        vendors = await self._services.provider_keys.vendors(item.organisation, self._services.vendors)
        if command.fallbacks:  # another target may have room
            return 0.0
        target = command.target
        return self._brakes.seconds(item.organisation, target, vendors.get(target.provider))

    async def _with_result(self, item: Item, move: Move, completion: Completion) -> Move:
        if move.to is not ItemState.SUCCEEDED:
            return move
        name = result_name(item.batch, item.index, item.fence)
        text = completion_text(completion)
        give_up = self._services.clock() + KEEP_FOR_S
        while True:
            try:
                return replace(move, result=await self._texts.keep(item.organisation, name, text))
            except StoreUnavailableError:
                if self._services.clock() >= give_up:
                    raise
                await asyncio.sleep(REST_S)

    async def _keep(self, move: Move) -> None:
        give_up = self._services.clock() + KEEP_FOR_S
        while True:
            try:
                kept = await self._mover.move(move, BatchMode.LIVE)
            except StoreUnavailableError as error:
                if self._services.clock() >= give_up:
                    log.warning("an item's end can't be kept", batch=move.batch, item=move.index, reason=str(error))
                    return
                await asyncio.sleep(REST_S)
            else:
                if kept is None:
                    log.warning("an item was lost before its end", batch=move.batch, item=move.index)
                return


async def _origin(item: Item, batches: BatchesOf) -> str | None:
    """In which its batch was submitted."""
    try:
        batch = await batches.find(item)
    except Exception:  # noqa: BLE001  # whatever it is, who asks for the batch next is told the same
        return None
    return None if batch is None else batch.submitter.trace


def _bounded(move: Move) -> Move:
    error = move.error
    if error is None or len(error.message) <= MAX_MESSAGE:
        return move
    return replace(move, error=ItemError(error.code, error.message[:MAX_MESSAGE]))
