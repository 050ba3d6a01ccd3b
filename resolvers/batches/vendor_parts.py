"""What goes to a vendor as one batch: as many of the items that wait as fit into one, and into what budgets leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from persistence.batch_records import Batch, BatchMode, Item, ItemError, ItemState, Move
from persistence.ports import BatchStore, ObjectStore, StoreUnavailableError
from providers.batching import BatchLine, BatchProvider, VendorBatches
from providers.errors import ProviderError
from providers.types import Credentials

from ..errors import BadUserInputError, BudgetExceededError, DomainError, ServiceUnavailableError
from ..ids import new_completion_id
from ..key_cache import KeyCache
from ..run import Services
from ..types import CompleteCommand, Target
from .json_texts import Texts, command_of
from .moving import Mover
from .standing import Standing
from .vendor_budgets import Room, room_for
from .vendor_items import custom_id, request_of
from .verdicts import MAX_FAILURES, UNEXPECTED

PAGE = 100
PART, PART_BYTES = 10_000, 50_000_000
"""Of what is at hand at once to be sent; a vendor may take more."""
AT_VENDOR = timedelta(days=3)
"""Longer than a vendor takes: none is taken for lost meanwhile."""
REST = timedelta(seconds=60)
"""For so long an item waits for a vendor that is in trouble, or a batch for room that others may leave in a budget."""

log = structlog.get_logger("batches")

CalledVendor = tuple[VendorBatches, str, Credentials]
"""With the id of the key that it is called by."""


@dataclass(frozen=True, slots=True)
class Sendable:
    """An item that can go. `completion_id`: what it is booked under, in the day of that; `amount`: what is to be held
    for it, in units of its budgets."""

    item: Item
    line: BatchLine
    completion_id: str
    amount: int


@dataclass(slots=True)
class Part:
    """All of one model, one kind, and one day (UTC)."""

    target: Target
    room: Room
    items: list[Sendable] = field(default_factory=list)
    size: int = 0

    @property
    def amounts(self) -> Sequence[int]:
        return [each.amount for each in self.items]


class Parts:
    """`now` is aware UTC."""

    def __init__(
        self,
        services: Services,
        store: BatchStore,
        objects: ObjectStore,
        keys: KeyCache,
        mover: Mover,
        now: Callable[[], datetime],
    ) -> None:
        self._services = services
        self._store = store
        self._texts = Texts(objects)
        self._mover = mover
        self._now = now
        self._standing = Standing(keys, now)
        self._resting: dict[tuple[str, str], float] = {}

    async def next(self, batch: Batch) -> Part | None:
        """What can't be sent fails; what a budget has no room for waits, as all of its model does behind it."""
        if self._resting.get((batch.organisation, batch.id), 0.0) > self._services.clock():
            return None
        part: Part | None = None
        full: set[Target] = set()
        after = -1
        while found := await self._store.items(
            batch.organisation, batch.id, states=(ItemState.WAITING,), limit=PAGE, after=after
        ):
            for item in found:
                after = item.index
                if item.due is not None and item.due > self._now():
                    continue
                part, whole = await self._with(part, batch, item, full)
                if whole:
                    return part
            await asyncio.sleep(0)
        if part is None and full:
            self.rest(batch)
        return part

    def rest(self, batch: Batch) -> None:
        """Nothing of it is sent for a while."""
        now = self._services.clock()
        self._resting = {each: until for each, until in self._resting.items() if until > now}
        self._resting[batch.organisation, batch.id] = now + REST.total_seconds()

    def room_came(self, organisation: str) -> None:
        """Its batches need not wait until it is their time to look again."""
        self._resting = {name: until for name, until in self._resting.items() if name[0] != organisation}

    async def _with(self, part: Part | None, batch: Batch, item: Item, full: set[Target]) -> tuple[Part | None, bool]:
        """The part, with the item where that fits; whether it takes no more."""
        try:
            command = command_of(await self._texts.read(item.organisation, item.input))
            if command.target in full or (part is not None and part.target != command.target):
                return part, False
            line, batches = await self._line(batch, item, command)
            completion_id, at = new_completion_id()
            if part is not None and part.items[0].line.kind != line.kind:
                return part, False
            if part is not None and part.room.at.date() != at.date():
                return part, True
            filled = part or Part(command.target, await room_for(self._services, batch, command.target, at))
            amount = filled.room.take(command)
        except BudgetExceededError as error:
            if not error.retryable:
                await self.fail(item, error)
                return part, False
            await self._wait(item, error)
            full.add(command.target)
            return part, part is not None
        except ServiceUnavailableError:
            raise
        except (DomainError, ProviderError) as error:
            await self.fail(item, error)
            return part, False
        except StoreUnavailableError:
            raise
        except Exception:  # whatever it is, the other items go on
            log.exception("an item broke", batch=item.batch, item=item.index, failures=item.failures + 1)
            await self._broke(item)
            return part, False
        filled.items.append(Sendable(item, line, completion_id, amount))
        filled.size += len(line.content)
        most_lines, most_bytes = batches.codec.most_lines, batches.codec.most_bytes
        return filled, len(filled.items) >= min(most_lines, PART) or filled.size >= min(most_bytes, PART_BYTES)

    async def _line(self, batch: Batch, item: Item, command: CompleteCommand) -> tuple[BatchLine, VendorBatches]:
        await self._standing.principal(batch, command)
        vendor = await self.vendor(batch.organisation, command.target)
        if vendor is None:
            raise BadUserInputError(f"{command.target.provider} can't be called")
        return vendor[0].line(custom_id(replace(item, fence=item.fence + 1)), request_of(command)), vendor[0]

    async def claim(self, part: Part, number: int) -> Sequence[BatchLine]:
        """The lines of those that were still to be had."""
        due = self._time() + AT_VENDOR
        moves = [
            Move(
                each.item.organisation,
                each.item.batch,
                each.item.index,
                (ItemState.WAITING,),
                ItemState.RUNNING,
                each.item.fence,
                due=due,
                claims=True,
                vendor_run=number,
                completion_id=each.completion_id,
            )
            for each in part.items
        ]
        claimed: list[Item | None] = []
        for start in range(0, len(moves), PAGE):
            claimed += await self._mover.move_all(moves[start : start + PAGE], BatchMode.PROVIDER)
        return [each.line for each, item in zip(part.items, claimed, strict=True) if item is not None]

    async def vendor(self, organisation: str, target: Target, key_id: str | None = None) -> CalledVendor | None:
        """By the key that was named, where there still is one such: others don't see its batches."""
        vendors = await self._services.provider_keys.vendors(organisation, self._services.vendors)
        vendor = vendors.get(target.provider)
        provider = None if vendor is None else vendor.provider
        if vendor is None or not isinstance(provider, BatchProvider) or provider.batches is None:
            return None
        key = (
            vendor.keys.pick()
            if key_id is None
            else next((each for each in vendor.keys.keys if each.id == key_id), None)
        )
        return None if key is None else (provider.batches, key.id, key.credentials)

    async def fail(self, item: Item, error: DomainError | ProviderError) -> None:
        ended = self._time()
        await self._waiting(item, ItemState.FAILED, failures=1, error=_told(error), ended_at=ended)

    async def _broke(self, item: Item) -> None:
        """As `Verdicts.broke`."""
        now, is_last = self._time(), item.failures + 1 >= MAX_FAILURES
        to, values = (ItemState.FAILED, {"ended_at": now}) if is_last else (ItemState.WAITING, {"due": now + REST})
        await self._waiting(item, to, failures=1, error=UNEXPECTED, **values)

    async def _wait(self, item: Item, error: DomainError) -> None:
        await self._waiting(item, ItemState.WAITING, error=_told(error), due=self._time())

    async def _waiting(self, item: Item, to: ItemState, **values: Any) -> None:
        waiting = (ItemState.WAITING,)
        move = Move(item.organisation, item.batch, item.index, waiting, to, item.fence, **values)
        await self._mover.move(move, BatchMode.PROVIDER)

    def _time(self) -> datetime:
        now = self._now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _told(error: DomainError | ProviderError) -> ItemError:
    return ItemError(error.code, error.message[:1000])
