"""A stage for batches: their use cases, a queue in memory, and as many workers and dispatchers as a test wants."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from persistence.batch_records import ENDED, Batch, Item
from persistence.ports import Delivery, StoreUnavailableError
from persistence.queue_records import Job, QueueDepth
from providers.types import Credentials
from resolvers.batches.asked import BatchAsked, Given, ItemAsked
from resolvers.batches.cases import Batches
from resolvers.batches.dispatching import Dispatcher, dispatching
from resolvers.batches.finishing import Finisher
from resolvers.batches.forgetting import Forgetter
from resolvers.batches.moving import open_mover
from resolvers.batches.running import ItemRunner
from resolvers.batches.vendor_runs import VendorRuns
from resolvers.batches.working import ItemWorker, working
from resolvers.key_cache import KeyCache
from resolvers.key_pool import KeyPool, ProviderKey
from resolvers.principal import Principal
from resolvers.routing import Vendor
from resolvers.tracing import UNTRACED, Tracer
from tests.persistence.api_keys import MemoryApiKeys
from tests.persistence.leases import MemoryLeases
from tests.persistence.memory_batches import MemoryBatches, MemoryObjects

from .batches_in_memory import batches_in, loop_time
from .scene import ACME, FakeProvider, Scene, command, open_scene, texts

KEPT_FOR = timedelta(days=2)


class MemoryQueue:
    """`persistence.ports.JobQueue` in memory. `down` fails every call. `lose`: what is published is lost."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.published: list[Job] = []
        self.refused: list[Job] = []
        self.down = False
        self.lose = False
        self._changed = asyncio.Event()

    async def publish(self, jobs: Sequence[Job]) -> None:
        self._check()
        self.published += jobs
        if not self.lose:
            self.jobs += jobs
        self._changed.set()

    @asynccontextmanager
    async def work(self, *, prefetch: int) -> AsyncIterator[AsyncGenerator[Sequence[Delivery], None]]:
        self._check()
        hand: set[str] = set()
        yield self._batches(hand, prefetch)

    async def _batches(self, hand: set[str], prefetch: int) -> AsyncGenerator[Sequence[Delivery], None]:
        while True:
            self._changed.clear()
            taken: list[Delivery] = []
            while self.jobs and len(hand) < prefetch:
                job = self.jobs.popleft()
                hand.add(job.id)
                taken.append(_MemoryDelivery(self, job, hand))
            if taken:
                yield taken
            else:
                await self._changed.wait()

    async def parked(self, *, limit: int) -> Sequence[Job]:
        return self.refused[:limit]

    async def replay(self, job_ids: Collection[str]) -> Set[str]:
        raise NotImplementedError

    async def drop(self, job_ids: Collection[str]) -> Set[str]:
        raise NotImplementedError

    async def depth(self) -> QueueDepth:
        self._check()
        return QueueDepth(len(self.jobs), 0, len(self.refused))

    def let_go(self, job: Job, hand: set[str]) -> None:
        hand.discard(job.id)
        self._changed.set()

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("the queue is down")


class _MemoryDelivery:
    def __init__(self, queue: MemoryQueue, job: Job, hand: set[str]) -> None:
        self.job = job
        self._queue = queue
        self._hand = hand

    async def done(self) -> None:
        self._queue.let_go(self.job, self._hand)

    async def failed(self, reason: str) -> None:
        raise NotImplementedError

    async def refused(self, reason: str) -> None:
        self._queue.refused.append(self.job)
        self._queue.let_go(self.job, self._hand)

    async def put_back(self) -> None:
        self._queue.jobs.append(self.job)
        self._queue.let_go(self.job, self._hand)


@dataclass
class ToldEvents:
    """`resolvers.batches.finishing.BatchEvents` for tests."""

    told: list[Batch] = field(default_factory=list)

    async def ended(self, batch: Batch) -> None:
        self.told.append(batch)


@dataclass
class BatchStage:
    scene: Scene
    store: MemoryBatches
    objects: MemoryObjects
    queue: MemoryQueue
    keys: MemoryApiKeys
    cache: KeyCache
    events: ToldEvents
    batches: Batches
    bell: asyncio.Event
    tracer: Tracer = UNTRACED

    @property
    def alpha(self) -> FakeProvider:
        return self.scene.alpha

    async def submit(self, count: int = 3, principal: Principal = ACME, **asked: Any) -> Batch:
        return await self.batches.submit(principal, BatchAsked(**asked), inputs(count))

    async def ended(self, batch: Batch) -> Batch:
        while (found := self.now(batch)).state not in ENDED:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)
        return found

    def now(self, batch: Batch) -> Batch:
        return self.store.batches[batch.organisation, batch.id]

    def items(self, batch: Batch) -> Sequence[Item]:
        return [each for _, each in sorted(self.store.kept[batch.organisation, batch.id].items())]

    def states(self, batch: Batch) -> list[str]:
        return [each.state.value for each in self.items(batch)]

    @asynccontextmanager
    async def worker(self, *, prefetch: int = 10, drain_s: float = 5.0) -> AsyncIterator[None]:
        async with open_mover(self.store, self.scene.services.observer) as mover:
            runner = ItemRunner(self.scene.services, self.objects, self.cache, mover, loop_time, self.tracer)
            made = ItemWorker(self.queue, self.store, mover, runner, prefetch=prefetch, drain_s=drain_s, now=loop_time)
            async with working(made):
                yield

    @asynccontextmanager
    async def dispatcher(self, *, vendors: bool = False) -> AsyncIterator[None]:
        """`vendors`: batches in mode PROVIDER too."""
        clock = asyncio.get_running_loop().time
        async with open_mover(self.store, self.scene.services.observer) as mover:
            finisher = Finisher(self.store, self.objects, self.events, loop_time)
            forgetter = Forgetter(self.store, self.objects, KEPT_FOR, loop_time)
            runs = VendorRuns(self.scene.services, self.store, self.objects, self.cache, mover, loop_time, self.tracer)
            side = runs if vendors else None
            made = Dispatcher(
                self.store,
                self.queue,
                mover,
                finisher,
                forgetter,
                side,
                self.bell,
                now=loop_time,
                clock=clock,
                observer=self.scene.services.observer,
                tracer=self.tracer,
            )
            async with dispatching(made):
                yield

    @asynccontextmanager
    async def running(self, **worker: Any) -> AsyncIterator[None]:
        async with self.worker(**worker), self.dispatcher():
            yield


def given(raw: bytes = b"line", **changes: Any) -> Given:
    return Given(raw, lambda: ItemAsked(command(**changes)))


def inputs(count: int, **changes: Any) -> list[Given]:
    return [given(str(number).encode(), **changes) for number in range(count)]


def answering(provider: FakeProvider, count: int = 100) -> None:
    provider.will(*[texts("a", "b") for _ in range(count)])


@asynccontextmanager
async def open_batch_stage(leases: MemoryLeases | None = None) -> AsyncIterator[BatchStage]:
    """`leases`: as `open_scene`."""
    async with open_scene(leases) as scene:
        objects, bell, store = MemoryObjects(), asyncio.Event(), scene.services.batches.store
        assert isinstance(store, MemoryBatches)
        services, clock = scene.services, asyncio.get_running_loop().time
        pools = {
            each.name: KeyPool([ProviderKey("1", Credentials("secret"))], clock) for each in (scene.alpha, scene.beta)
        }
        vendors = {each.name: Vendor(each, pools[each.name]) for each in (scene.alpha, scene.beta)}
        made = batches_in(services.configs, services.prices, services.webhooks, store, objects)
        batches = replace(made, wake=bell.set)
        scene.services = replace(services, vendors=vendors, batches=batches)
        keys = MemoryApiKeys()
        cache = KeyCache(keys, clock)
        yield BatchStage(scene, store, objects, MemoryQueue(), keys, cache, ToldEvents(), batches, bell)


Check = Callable[[], bool]


async def until(check: Check, *, within_s: float = 600.0) -> None:
    """Of the loop's time, which jumps."""
    async with asyncio.timeout(within_s):
        while not check():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)
