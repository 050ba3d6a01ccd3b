"""Batches in mode PROVIDER: given to the vendor in parts, asked after with longer and longer pauses, their results
collected, cancelled there too. Run by whoever dispatches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus

import structlog

from persistence.batch_records import Batch, BatchMode, BatchState, Item, ItemError, ItemState, Move, VendorRun
from persistence.ports import BatchStore, ObjectStore
from providers.batching import BatchLine, BatchResult, BatchStatus, VendorBatches
from providers.errors import ProviderError
from providers.types import Credentials

from ..errors import ServiceUnavailableError
from ..key_cache import KeyCache
from ..run import Services
from ..tracing import UNTRACED, Tracer, VendorStep
from ..types import CompleteCommand, Target
from .asked import LABEL
from .json_texts import Texts, command_of, completion_text, result_name
from .moving import Mover
from .vendor_budgets import hold, name_of, release
from .vendor_items import Judge, Outcome, parsed_id
from .vendor_parts import AT_VENDOR, PAGE, REST, CalledVendor, Parts
from .vendor_search import SENDING, search

PARTS_AT_ONCE = 3  # are made and uploaded: each may be 50 MB in memory
COLLECTED_AT_ONCE = 50
POLL_S, POLL_AT_MOST_S = 5.0, 300.0

log = structlog.get_logger("batches")


class VendorRuns:
    """Implements `dispatching.VendorSide`. `now` is aware UTC."""

    def __init__(
        self,
        services: Services,
        store: BatchStore,
        objects: ObjectStore,
        keys: KeyCache,
        mover: Mover,
        now: Callable[[], datetime],
        tracer: Tracer = UNTRACED,
    ) -> None:
        self._tracer = tracer
        self._services = services
        self._store = store
        self._texts = Texts(objects)
        self._mover = mover
        self._now = now
        self._unheard: set[str] = set()  # what could not be told to stop: asked after as all else is
        self._parts = Parts(services, store, objects, keys, mover, now)
        self._sending = asyncio.Semaphore(PARTS_AT_ONCE)

    async def advance(self, batch: Batch) -> None:
        runs = await self._store.vendor_runs(batch.organisation, batch.id)
        for run in runs:
            if not run.ended:
                await self._look(batch, run)
        late = batch.deadline is not None and batch.deadline <= self._now()
        waits = batch.state is BatchState.RUNNING and batch.counts.waiting and not late
        if waits and not self._sending.locked():  # else at another look: meanwhile others have their turn
            async with self._sending:
                await self._send(batch, len(runs) + 1)

    async def close(self, batch: Batch) -> None:
        for run in await self._store.vendor_runs(batch.organisation, batch.id):
            if not run.ended:
                await self._end(run)

    async def _send(self, batch: Batch, number: int) -> None:
        part = await self._parts.next(batch)
        if part is None:
            return
        vendor = await self._parts.vendor(batch.organisation, part.target)
        if vendor is None:
            return  # it can't be called any more: the next look says so of each item
        batches, key_id, credentials = vendor
        now, held = self._time(), part.room.asked(sum(part.amounts))
        run = VendorRun(batch.organisation, batch.id, number, part.target.provider, part.target.model, key_id, now)
        run = replace(run, reserved=tuple(need.asked for need in held))
        # before anything is held, so that it is released whoever dies here
        if not await self._store.add_vendor_run(run):
            return  # somebody else leads by now, and has sent one
        if held:
            count, run = await hold(self._services.limits, run, part.room, part.amounts)
            part.items = part.items[:count]
            await self._store.save_vendor_run(run)
        lines = await self._parts.claim(part, number)
        if not lines:
            await self._end(run)
            return
        await self._submit(batch, run, batches, lines, credentials)

    async def _submit(
        self,
        batch: Batch,
        run: VendorRun,
        batches: VendorBatches,
        lines: Sequence[BatchLine],
        credentials: Credentials,
    ) -> None:
        try:
            with self._tracer.at_vendor(VendorStep.UPLOAD, batch, Target(run.provider, run.model)):
                status = await batches.submit(
                    lines, name_of(run), credentials=credentials, transport=self._services.transport
                )
        except ProviderError as error:
            if _is_unknown(error):  # it is looked for, later
                log.warning("a vendor may have a batch", batch=batch.id, part=run.number, reason=str(error))
            else:
                await self._give_back(batch, run, error)
            return
        log.info("a batch is at the vendor", batch=batch.id, provider=run.provider, items=len(lines), name=status.id)
        poll_at = self._time() + timedelta(seconds=POLL_S)
        await self._store.save_vendor_run(replace(run, vendor_id=status.id, poll_at=poll_at))

    async def _end(self, run: VendorRun) -> None:
        """All that came of it is counted by now."""
        await release(self._services.limits, run)
        await self._store.save_vendor_run(replace(run, ended=True))
        await release(self._services.limits, run)  # who began a budget meanwhile has held it again
        self._unheard.discard(name_of(run))
        self._parts.room_came(run.organisation)

    async def _look(self, batch: Batch, run: VendorRun) -> None:
        now, stopping = self._now(), batch.state is BatchState.CANCELLING and not run.cancelled
        if run.vendor_id is None and now < run.created_at + SENDING:
            return
        hurries = stopping and run.vendor_id is not None and name_of(run) not in self._unheard
        if run.poll_at is not None and now < run.poll_at and not hurries:
            return
        target = Target(run.provider, run.model)
        vendor = await self._parts.vendor(batch.organisation, target, run.key_id)
        if vendor is None:
            await self._give_back(batch, run, None)
            return
        try:
            with self._tracer.at_vendor(VendorStep.POLL, batch, target):
                seen = await self._seen(vendor, run, stopping=stopping)
            if seen is None:
                await self._give_back(batch, run, None)
                return
            run, status = seen
            if status.ended and status.failure is None:
                await self._collect(batch, vendor, target, status)
        except (ProviderError, ServiceUnavailableError) as error:
            log.warning("a vendor's batch can't be looked at", batch=batch.id, reason=str(error))
            if isinstance(error, ProviderError) and self._is_lost(run, error):
                await self._leave(batch, run, None)
                return
            if hurries:
                self._unheard.add(name_of(run))
                run = replace(run, polls=0)
            await self._later(run)
            return
        if not status.ended:
            await self._later(run)
            return
        await self._leave(batch, run, status.failure)

    def _is_lost(self, run: VendorRun, error: ProviderError) -> bool:
        """Whether nobody will ever know what became of it."""
        age = self._now() - run.created_at
        return age >= AT_VENDOR or (error.status == HTTPStatus.NOT_FOUND and bool(run.vendor_id) and age >= SENDING)

    async def _seen(
        self, vendor: CalledVendor, run: VendorRun, *, stopping: bool
    ) -> tuple[VendorRun, BatchStatus] | None:
        """How it stands; `stopping`: after the vendor was told to stop. None where the vendor has none such."""
        batches, _, credentials = vendor
        transport = self._services.transport
        if run.vendor_id is None:  # whoever sent it died before he knew
            items = await self._store.of_vendor_run(run.organisation, run.batch, run.number)
            known = [
                each.vendor_id for each in await self._store.unended_vendor_runs(run.organisation) if each.vendor_id
            ]
            found, goes_on = await search(batches, run, items, known, credentials=credentials, transport=transport)
            if goes_on:
                return run, BatchStatus("", ended=False)
            if found is None:
                return None
            run = replace(run, vendor_id=found.id)
        name = run.vendor_id or ""
        if stopping:
            try:
                await batches.cancel(name, credentials=credentials, transport=transport)
            except ProviderError as error:
                if error.retryable:
                    raise  # it goes on there until it hears of it
            run = replace(run, cancelled=True, polls=0)  # or it has ended meanwhile
        return run, await batches.look(name, credentials=credentials, transport=transport)

    async def _collect(self, batch: Batch, vendor: CalledVendor, target: Target, status: BatchStatus) -> None:
        batches, _, credentials = vendor
        judge = Judge(batch, await self._services.prices.book(batch.organisation), self._now)
        arriving = batches.results(status, credentials=credentials, transport=self._services.transport)
        async with aclosing(arriving) as results:
            more = True
            while more:
                with self._tracer.at_vendor(VendorStep.COLLECT, batch, target):
                    outcomes = await self._next(judge, target, results)
                    await self._keep(batch, outcomes)
                    more = len(outcomes) == COLLECTED_AT_ONCE

    async def _next(self, judge: Judge, target: Target, results: AsyncIterator[BatchResult]) -> Sequence[Outcome]:
        """Fewer than COLLECTED_AT_ONCE are the last."""
        outcomes: list[Outcome] = []
        async for result in results:
            item = await self._named(judge.batch, result)
            if item is None:
                continue
            outcomes.append(judge.outcome(item, await self._command(judge.batch, item, target), result))
            if len(outcomes) == COLLECTED_AT_ONCE:
                break
        return outcomes

    async def _command(self, batch: Batch, item: Item, target: Target) -> CompleteCommand:
        """Where it can't be read any more, what is known of it: the vendor's answer is booked, and kept, all the
        same."""
        try:
            return command_of(await self._texts.read(item.organisation, item.input))
        except (FileNotFoundError, ValueError):
            log.warning("what an item asked is lost", batch=item.batch, item=item.index)
            return CompleteCommand(target=target, messages=(), labels={**batch.labels, LABEL: batch.id})

    async def _named(self, batch: Batch, result: BatchResult) -> Item | None:
        """The item that a result is of; None where it was collected before."""
        named = parsed_id(result.custom_id)
        if named is None or named[0] != batch.id:
            return None
        found = await self._store.items(batch.organisation, batch.id, limit=1, after=named[1] - 1)
        if found and (found[0].index, found[0].fence) == named[1:] and found[0].state is ItemState.RUNNING:
            return found[0]
        return None

    async def _keep(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Booked and counted first: an item that has ended has its entry, and no budget misses it."""
        entries = [each.entry for each in outcomes if each.entry is not None]
        for commit in [self._services.ledger.book(entry) for entry in entries]:
            await commit
        if entries:
            await self._services.limits.count_all(batch.organisation, entries)
        for entry in entries:
            self._services.observer.collected(entry, batch)
        moves = [each.move if each.completion is None else await self._with_result(each) for each in outcomes]
        await self._mover.move_all(moves, BatchMode.PROVIDER)

    async def _with_result(self, outcome: Outcome) -> Move:
        move = outcome.move
        assert outcome.completion is not None  # noqa: S101  # who calls this has looked
        name = result_name(move.batch, move.index, move.fence or 0)
        return replace(
            move, result=await self._texts.keep(move.organisation, name, completion_text(outcome.completion))
        )

    async def _leave(self, batch: Batch, run: VendorRun, failure: str | None) -> None:
        """What the vendor did not come to is tried again, or given up."""
        judge = Judge(batch, await self._services.prices.book(batch.organisation), self._now)
        left = await self._store.of_vendor_run(batch.organisation, batch.id, run.number)
        told = None if failure is None else ItemError("PROVIDER_INVALID_REQUEST", failure[:1000])
        moves = [judge.undone(item) for item in left]
        if told is not None:
            ended = {"to": ItemState.FAILED, "error": told, "due": None, "ended_at": self._time()}
            moves = [replace(move, **ended) for move in moves]  # type: ignore[arg-type]  # the fields' own
        for start in range(0, len(moves), PAGE):
            await self._mover.move_all(moves[start : start + PAGE], BatchMode.PROVIDER)
        await self._end(run)

    async def _give_back(self, batch: Batch, run: VendorRun, error: ProviderError | None) -> None:
        """The vendor has none of it. Without an error that was no failure of the items'."""
        judge = Judge(batch, await self._services.prices.book(batch.organisation), self._now)
        for item in await self._store.of_vendor_run(batch.organisation, batch.id, run.number):
            if error is None or (error.retryable and batch.state is BatchState.RUNNING):
                due = self._time() if error is None else self._time() + REST
                running = (ItemState.RUNNING,)
                await self._mover.move(
                    Move(item.organisation, item.batch, item.index, running, ItemState.WAITING, item.fence, due=due),
                    BatchMode.PROVIDER,
                )
            else:
                await self._mover.move(judge.failed(item, error), BatchMode.PROVIDER)
        await self._end(run)
        if error is not None and error.retryable:  # the rest of it, too, would be refused
            self._parts.rest(batch)

    async def _later(self, run: VendorRun) -> None:
        pause = min(POLL_S * 2.0**run.polls, POLL_AT_MOST_S)
        poll_at = self._time() + timedelta(seconds=pause)
        await self._store.save_vendor_run(replace(run, polls=min(run.polls + 1, 10), poll_at=poll_at))

    def _time(self) -> datetime:
        now = self._now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _is_unknown(error: ProviderError) -> bool:
    """Whether the vendor may have taken what it was sent."""
    return error.sent and (error.status is None or error.status >= 500 or error.status < 400)
