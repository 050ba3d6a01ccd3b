"""A stage for the completion use cases: vendors that do what a test tells them, and a ledger in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from gateway.auth import TokenMint
from gateway.envelopes import Envelopes
from gateway.key_forms import KeyForms
from persistence.config_records import Config, ConfigCursor, ConfigFilter, ConfigOrder
from persistence.memory_replays import MemoryReplays
from persistence.ports import ApiKeyStore, ConfigStore, PriceStore, ProviderKeyStore, StoreUnavailableError
from persistence.records import CompletionFilter, Cursor, LedgerEntry
from persistence.usage_records import UsageCell, UsageSelection
from providers.errors import ProviderUnavailableError
from providers.fold import Fold
from providers.ports import Transport, current_dispatch
from providers.types import (
    CompletionRequest,
    Credentials,
    EmbeddingRequest,
    Finished,
    FinishReason,
    Message,
    ProviderCompletion,
    ProviderEmbeddings,
    Role,
    StreamEvent,
    TextDelta,
    Usage,
)
from resolvers import completions
from resolvers.api_keys import ApiKeys
from resolvers.config_cache import ConfigCache
from resolvers.configs import Configs, VendorsOf
from resolvers.health import Health
from resolvers.key_cache import KeyCache
from resolvers.key_pool import KeyPool
from resolvers.ledger import open_ledger
from resolvers.limit_rules import LimitRules
from resolvers.limits import Shared
from resolvers.live_usage import open_live_usage
from resolvers.price_cache import PriceCache
from resolvers.prices import Prices
from resolvers.principal import Principal
from resolvers.provider_keys import ProviderKeys
from resolvers.recordings import open_recordings
from resolvers.routing import Circuits, Vendor
from resolvers.run import Services
from resolvers.running import RunningCompletions
from resolvers.sessions import Sessions
from resolvers.types import CompleteCommand, Completion, CompletionEvent, CompletionRef, Target
from resolvers.upstream import Upstream
from tests.persistence.api_keys import MemoryApiKeys
from tests.persistence.leases import MemoryLeases
from tests.persistence.limits import MemoryLimits
from tests.persistence.memory_batches import MemoryBatches
from tests.persistence.prices import MemoryPrices
from tests.persistence.provider_keys import MemoryProviderKeys
from tests.persistence.usage_fold import folded

from .batches_in_memory import batches_in
from .limiting import limiter_in
from .links import OpenLinks
from .receivers import telling_nobody

ALPHA, BETA = Target("alpha", "a-1"), Target("beta", "b-1")
ACME, GLOBEX = (Principal(*each, frozenset(), 0.0) for each in (("key_1", "acme"), ("key_2", "globex")))
USAGE = Usage(input_tokens=7, output_tokens=2)
STOP = (Finished(FinishReason.STOP, USAGE),)
BESIDE = {"ledger-writer", "ledger-mender", "limits-settler", "stream-recorder"}
SHARING = {"leases", "leases-begun", "leases-left"}


class Hold:
    """A vendor that falls silent until the test sets `free`; `reached` tells that it has."""

    def __init__(self) -> None:
        self.reached, self.free = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.free.wait()


class Unconnected(Hold):
    """A vendor that the transport has no connection to yet."""

    async def wait(self) -> None:
        dispatch = current_dispatch.get()
        assert dispatch is not None
        dispatch.waiting = True
        await super().wait()
        dispatch.waiting = False


Step = Sequence[StreamEvent] | BaseException | Hold
Script = Sequence[Step]
Events = AsyncGenerator[CompletionEvent, None]
Batches = AsyncGenerator[Sequence[StreamEvent], None]


def texts(*pieces: str) -> Script:
    """An answer that comes piece by piece, with its usage."""
    return [*((TextDelta(piece),) for piece in pieces), STOP]


def unavailable(provider: str = "alpha", **changes: Any) -> ProviderUnavailableError:
    return ProviderUnavailableError("overloaded", provider=provider, **{"status": 503} | changes)


@dataclass
class Call:
    """One call as the vendor saw it. `ended`: "whole", or the class of what ended it."""

    request: Any
    streamed: bool
    at: float
    key: str
    ended: str | None = None


class FakeProvider:
    """Plays one script a call, plain or streamed alike."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[Call] = []
        self._scripts: deque[Script] = deque()

    def will(self, *scripts: Script) -> None:
        self._scripts.extend(scripts)

    async def complete(
        self, request: CompletionRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderCompletion:
        fold = Fold()
        async with aclosing(self._play(request, credentials, streamed=False)) as batches:
            async for events in batches:
                for event in events:
                    fold.add(event)
        return fold.completion()

    def stream(self, request: CompletionRequest, *, credentials: Credentials, transport: Transport) -> Batches:
        return self._play(request, credentials, streamed=True)

    async def embed(
        self, request: EmbeddingRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderEmbeddings:
        """A vector of one number for each text: its length. Steps of the script come before it."""
        async with aclosing(self._play(request, credentials, streamed=False)) as batches:
            usages = [each.usage async for events in batches for each in events if isinstance(each, Finished)]
        return ProviderEmbeddings(tuple([float(len(text))] for text in request.inputs), *usages)

    async def _play(self, request: Any, credentials: Credentials, *, streamed: bool) -> Batches:
        call = Call(request, streamed, asyncio.get_running_loop().time(), credentials.api_key)
        self.calls.append(call)
        try:
            for step in self._scripts.popleft():
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, Hold):
                    await step.wait()
                else:
                    yield step
        except BaseException as error:  # a cancellation is an ending too
            call.ended = type(error).__name__
            raise
        call.ended = "whole"

    @property
    def endings(self) -> list[str | None]:
        return [call.ended for call in self.calls]


class MemoryStore:
    """A ledger store. Commits wait for `gate`; `down` fails every call."""

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.appending = asyncio.Event()
        self.down = False
        self.filters: list[CompletionFilter] = []

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        self.appending.set()
        await self.gate.wait()
        self._check()
        self.entries.extend(entries)

    async def completion(self, organisation: str, completion_id: str) -> Sequence[LedgerEntry]:
        return self._found(organisation=organisation, completion_id=completion_id)

    async def completion_by_key(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        return self._found(organisation=organisation, idempotency_key=idempotency_key)

    def _found(self, **values: str) -> Sequence[LedgerEntry]:
        self._check()
        found = (each for each in self.entries if all(getattr(each, name) == value for name, value in values.items()))
        return sorted(found, key=lambda entry: entry.attempt)

    async def completions(
        self, organisation: str, *, where: CompletionFilter, limit: int, after: Cursor | None = None
    ) -> Sequence[Sequence[LedgerEntry]]:
        self._check()
        self.filters.append(where)
        keys = sorted({(each.time, each.completion_id) for each in self.entries if each.organisation == organisation})
        older = [key for key in reversed(keys) if after is None or key < (after.time, after.completion_id)]
        return [await self.completion(organisation, completion_id) for _, completion_id in older[:limit]]

    async def usage(self, organisation: str, asked: UsageSelection) -> Sequence[UsageCell]:
        self._check()
        return folded(self.entries, organisation, asked)

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("gone")


class NoConfigs:
    """A config store where nothing is. Tests of configs bring a real one."""

    async def by_id(self, organisation: str, config_id: str) -> Config | None:
        return None

    async def by_slug(self, organisation: str, slug: str) -> Config | None:
        return None

    async def page(
        self,
        organisation: str,
        *,
        where: ConfigFilter,
        order: ConfigOrder,
        limit: int,
        after: ConfigCursor | None = None,
    ) -> Sequence[Config]:
        return ()


class MemoryInflight:
    """Notes in memory; `full` refuses new ones, `spool_full` what has ended."""

    def __init__(self) -> None:
        self.noted: dict[tuple[str, int], LedgerEntry] = {}
        self.full = False
        self.spool_full = False

    def begin(self, entry: LedgerEntry) -> None:
        if self.full:
            raise StoreUnavailableError("no room")
        self.noted[entry.completion_id, entry.attempt] = entry

    async def keep(self, entries: Sequence[LedgerEntry]) -> None:
        if self.spool_full:
            raise StoreUnavailableError("no room")
        for entry in entries:
            self.begin(entry)

    def end(self, *entries: LedgerEntry) -> None:
        for entry in entries:
            self.noted.pop((entry.completion_id, entry.attempt), None)

    def abandoned(self) -> Sequence[LedgerEntry]:
        return ()


@dataclass
class Scene:
    services: Services
    store: MemoryStore
    inflight: MemoryInflight
    rules: MemoryPrices
    alpha: FakeProvider
    beta: FakeProvider
    limits: MemoryLimits
    jitter: list[float] = field(default_factory=lambda: [0.0])

    async def complete(self, principal: Principal = ACME, **changes: Any) -> Completion:
        return await completions.complete(self.services, principal, command(**changes))

    def stream(self, principal: Principal = ACME, *, detached: bool = False, **changes: Any) -> Events:
        return completions.stream(self.services, principal, command(**changes), detached=detached)

    async def cancel(self, principal: Principal = ACME, **ref: str) -> tuple[str, bool]:
        return await completions.cancel(self.services, principal, CompletionRef(**ref))

    def started(self, **changes: Any) -> asyncio.Task[Completion]:
        return asyncio.create_task(self.complete(**changes))

    async def events(self, **changes: Any) -> list[CompletionEvent]:
        return await collected(self.stream(**changes))

    def booked(self, *fields: str) -> list[tuple[Any, ...]]:
        """The given fields of each committed entry."""
        return [tuple(getattr(entry, name) for name in fields) for entry in self.store.entries]


def command(**changes: Any) -> CompleteCommand:
    asked: dict[str, Any] = {"target": ALPHA, "messages": (Message(Role.USER, "hello"),)}
    return CompleteCommand(**asked | changes)


async def collected(events: Events) -> list[CompletionEvent]:
    async with aclosing(events):
        return [event async for event in events]


def only(events: Iterable[CompletionEvent], kind: type) -> Any:
    (found,) = (event for event in events if isinstance(event, kind))
    return found


def other_tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def configs_in(store: ConfigStore, vendors: Mapping[str, Vendor]) -> Configs:
    clock = asyncio.get_running_loop().time
    return Configs(store, ConfigCache(store, clock), always(vendors), now=lambda: datetime.now(UTC))


def prices_in(store: PriceStore) -> Prices:
    now = partial(datetime.now, UTC)
    return Prices(store, PriceCache(store, asyncio.get_running_loop().time, now), {"alpha", "beta", "openai"}, now)


def always(vendors: Mapping[str, Vendor]) -> VendorsOf:
    async def vendors_of(_: str) -> Mapping[str, Vendor]:
        return vendors

    return vendors_of


def provider_keys_in(store: ProviderKeyStore, *providers: FakeProvider) -> ProviderKeys:
    """`providers` may have keys of an organisation's own."""
    keyed = {each.name: lambda key, each=each: (each, Credentials(key)) for each in providers}
    clock = asyncio.get_running_loop().time
    return ProviderKeys(store, Envelopes([b"m" * 32]), keyed, clock, partial(datetime.now, UTC))


def api_keys_in(store: ApiKeyStore) -> ApiKeys:
    cache = KeyCache(store, asyncio.get_running_loop().time)
    return ApiKeys(store, cache, KeyForms([b"k" * 32]), partial(datetime.now, UTC))


@asynccontextmanager
async def open_scene(leases: MemoryLeases | None = None) -> AsyncIterator[Scene]:
    """At its end nothing may be left: no task, no running completion, no note of an attempt in flight. `leases`: what
    it shares with other processes."""
    before = other_tasks()
    store, inflight, rules, jitter = MemoryStore(), MemoryInflight(), MemoryPrices(), [0.0]
    alpha, beta = FakeProvider("alpha"), FakeProvider("beta")
    clock, now = asyncio.get_running_loop().time, partial(datetime.now, UTC)
    limits, batches = MemoryLimits(), MemoryBatches()
    async with (
        open_ledger(store, inflight) as ledger,
        open_live_usage(ledger, now) as live_usage,
        limiter_in(limits, ledger, batches, None if leases is None else Shared(leases, leases, rules)) as limiter,
        open_recordings(MemoryReplays(clock), Sessions(MemoryApiKeys(), now), clock) as recordings,
    ):
        vendors = {each.name: Vendor(each, KeyPool.of(Credentials("secret"))) for each in (alpha, beta)}
        circuits, api_keys = Circuits(clock), api_keys_in(MemoryApiKeys())
        configs, prices = configs_in(cast("ConfigStore", NoConfigs()), vendors), prices_in(rules)
        services = Services(
            vendors=vendors,
            transport=cast("Transport", None),
            upstream=Upstream(1_000),
            ledger=ledger,
            configs=configs,
            prices=prices,
            circuits=circuits,
            health=Health(["alpha", "gamma"], vendors, circuits, clock),
            running=RunningCompletions(),
            live_usage=live_usage,
            usage_links=OpenLinks(),
            api_keys=api_keys,
            tokens=TokenMint("a-signing-secret-of-more-than-32-bytes"),
            provider_keys=provider_keys_in(MemoryProviderKeys(), alpha, beta),
            limits=limiter,
            limit_rules=LimitRules(limits, limiter, api_keys, vendors.keys(), now),
            recordings=recordings,
            **(telling := telling_nobody()),
            batches=batches_in(configs, prices, telling["webhooks"], batches),
            clock=clock,
            random=lambda: jitter[0],
        )
        yield Scene(services, store, inflight, rules, alpha, beta, limits, jitter)
        assert (len(services.running), other_tasks() - before) == (0, BESIDE if leases is None else BESIDE | SHARING)
    assert (other_tasks(), inflight.noted) == (before, {})
