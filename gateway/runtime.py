"""Everything a process holds open, built and closed in one place: used by the server, the command line and tests."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypedDict

from persistence.memory_replays import MemoryReplays
from persistence.memory_reservations import MemoryReservations
from persistence.ports import (
    ApiKeyStore,
    LedgerStore,
    ObjectStore,
    ProviderKeyStore,
)
from providers.http import HttpTransport, open_transport
from providers.ports import ModelProvider
from providers.prices import load_prices
from providers.registry import ProviderRow
from providers.types import Credentials
from resolvers.api_keys import ApiKeys
from resolvers.audit import AuditLog
from resolvers.batches.vendor_budgets import held_at_vendors
from resolvers.config_cache import ConfigCache
from resolvers.configs import Configs, VendorsOf
from resolvers.draining import Drain
from resolvers.errors import ServiceUnavailableError
from resolvers.following import Caches, following
from resolvers.health import Health
from resolvers.key_cache import KeyCache
from resolvers.key_entrance import KeyEntrance, open_key_entrance
from resolvers.ledger import Ledger, open_ledger
from resolvers.limit_cache import LimitCache
from resolvers.limit_rules import LimitRules
from resolvers.limits import Limiter, Shared, open_limiter
from resolvers.live_usage import open_live_usage
from resolvers.observing import Observer
from resolvers.price_cache import PriceCache
from resolvers.prices import Prices
from resolvers.provider_keys import ProviderKeys
from resolvers.query_costs import CostBuckets
from resolvers.recordings import Recordings, open_recordings
from resolvers.recovery import recovering
from resolvers.routing import Circuits, Vendor
from resolvers.run import Services
from resolvers.running import RunningCompletions
from resolvers.sessions import Sessions, open_sessions
from resolvers.shared_circuits import sharing_circuits
from resolvers.shared_costs import sharing_costs
from resolvers.shared_keys import SharedKeys, open_shared_keys
from resolvers.siblings import Siblings, open_siblings
from resolvers.sinks import LEDGER_JOB
from resolvers.tracing import Tracer
from resolvers.trusted_documents import TrustedDocuments
from resolvers.upstream import Upstream, share_of
from resolvers.worker import Handler, working

from .auth import Authenticator, TokenMint
from .batch_work import SERVER_DRAIN_S, WORKER_DRAIN_S, batch_work, batches_of
from .capacity import Capacity
from .client_address import client_address
from .completion_log import CompletionLog
from .declared_providers import provider_rows
from .envelopes import Envelopes
from .heartbeat import Heartbeat
from .jwks import KeySet, fetching, open_key_set
from .key_forms import KeyForms
from .keys import DeploymentKeys, deployment_keys
from .object_links import ObjectLinks
from .observers import Observers
from .readiness import Dependency, Readiness, readiness
from .sealed_replays import SealedReplays
from .settings import Settings, SettingsError
from .stores import Documents, Stores, open_stores
from .tracing.opening import open_tracing
from .tracing.port import Tracing, traced
from .tracing.queue import traced_stores
from .usage_links import SignedLinks
from .vendors import keyed, vendors
from .webhooks import open_telling

if TYPE_CHECKING:
    from persistence.redis.server import RedisServer

    from .metrics.opening import ServerProcess

IDENTITY_PROVIDER = "the identity provider"
CONNECTIONS_BESIDE = 50
"""To vendors' batches, and to the identity provider."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a server works with. `keys` are secrets; nothing prints them. `batch_work`: closed, it works on batches no
    more."""

    settings: Settings
    keys: DeploymentKeys = field(repr=False)
    authenticator: Authenticator
    services: Services
    objects: ObjectStore
    object_links: ObjectLinks
    sessions: Sessions
    audit: AuditLog
    buckets: CostBuckets
    trusted: TrustedDocuments
    capacity: Capacity
    metrics: ServerProcess
    tracing: Tracing
    servers: Sequence[Dependency] = ()
    batch_work: AsyncExitStack = field(default_factory=AsyncExitStack)

    def address_of(self, peer: object, headers: Mapping[bytes, bytes]) -> str | None:
        """Where a request comes from: see `client_address`."""
        return client_address(peer, headers, self.settings.TRUSTED_PROXIES)

    def own_troubles(self) -> Sequence[str]:
        """What this process itself is missing."""
        ledger = self.services.ledger
        return ["ledger"] * (not ledger.available) + ["in-flight log"] * (not ledger.can_note())

    async def readiness(self) -> Readiness:
        return await readiness(self.own_troubles(), self.servers)


@asynccontextmanager
async def open_runtime(settings: Settings, *, worker: Heartbeat | None = None) -> AsyncIterator[Runtime]:
    """Opens every client; closes them in the opposite order. `worker`: of a worker, which takes jobs and items, in a
    DATA_DIR with others. Raises SettingsError for what the operator can mend."""
    from .metrics.opening import ServerProcess
    from .metrics.server import watching

    load_prices()  # now, and not while the first completion waits
    links = ObjectLinks((keys := deployment_keys(settings)).signing_secret)
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(open_tracing(settings))
        stores = traced_stores(await open_stores(settings, stack, links, beside_others=worker is not None), tracing)
        transport = await _open_transport(settings, stack)
        entrance = await _open_entrance(keys, stores.documents.api_keys, stack)
        metrics = ServerProcess(tuple(jobs := handlers(stores.ledger)))
        observer = Observers(metrics.observer, CompletionLog(content=settings.LOG_CONTENT), *tracing.observers)
        ledger = await _open_ledger(stores, observer, tracing, stack)
        bounds = await _open_bounds(settings, stores, stack)
        opened = await _open_services(settings, keys, stores, ledger, entrance, transport, observer, tracing, stack)
        services = replace(opened, observer=observer, batches=replace(opened.batches, buckets=bounds[0]))
        items = await _open_work(settings, stores, services, jobs, tracing, worker, stack)
        key_set = await _open_key_set(settings, transport, stack)
        runtime = Runtime(
            settings,
            keys,
            _authenticator(settings, keys, entrance, key_set),
            services,
            stores.objects,
            links,
            entrance.sessions,
            AuditLog(stores.documents.audit),
            *bounds,
            metrics,
            tracing,
            _dependencies(stores, key_set),
            items,
        )
        await stack.enter_async_context(watching(runtime, stores))
        yield runtime


async def _open_work(
    settings: Settings,
    stores: Stores,
    services: Services,
    jobs: Mapping[str, Handler],
    tracing: Tracing,
    worker: Heartbeat | None,
    stack: AsyncExitStack,
) -> AsyncExitStack:
    """What is taken from the queues here, if anything. Returns what closes the work on items."""
    items = AsyncExitStack()
    if settings.CONSUMER_STATUS or worker is not None:
        jobs = traced(jobs, tracing)
        watched, drain_s = (jobs, SERVER_DRAIN_S) if worker is None else (worker.over(jobs), WORKER_DRAIN_S)
        prefetch, observer = settings.PREFETCH_COUNT, services.observer
        await stack.enter_async_context(working(stores.queue, watched, prefetch=prefetch, observer=observer))
        await stack.enter_async_context(items)
        await _open_items(settings, stores, services, tracing, drain_s, items)
    return items


async def _open_items(
    settings: Settings, stores: Stores, services: Services, tracer: Tracer, drain_s: float, stack: AsyncExitStack
) -> None:
    kept_for, prefetch = timedelta(days=settings.BATCH_RETENTION_DAYS), settings.PREFETCH_COUNT
    working_on = batch_work(stores, services, tracer, prefetch=prefetch, drain_s=drain_s, kept_for=kept_for, now=_now)
    await stack.enter_async_context(working_on)


def _authenticator(
    settings: Settings, keys: DeploymentKeys, entrance: _Entrance, key_set: KeySet | None
) -> Authenticator:
    return Authenticator(keys.signing_secret, rules=settings.claim_rules(), keys=entrance.keys, key_set=key_set)


def _dependencies(stores: Stores, key_set: KeySet | None) -> Sequence[Dependency]:
    if key_set is None:
        return stores.servers
    return [*stores.servers, Dependency(IDENTITY_PROVIDER, key_set.look, spared=True)]


async def _open_services(
    settings: Settings,
    keys: DeploymentKeys,
    stores: Stores,
    ledger: Ledger,
    entrance: _Entrance,
    transport: HttpTransport,
    observer: Observer,
    tracer: Tracer,
    stack: AsyncExitStack,
) -> Services:
    documents, rows, api_keys = stores.documents, provider_rows(settings), entrance.api_keys
    ready, circuits, running = vendors(settings, keys, rows), Circuits(time.monotonic), RunningCompletions()
    provider_keys = _provider_keys(documents.provider_keys, keys, keyed(settings, rows))
    limits = await _open_limiter(settings, stores, ledger, stack)
    caches = await _open_caches(documents, api_keys, provider_keys, limits, stack)
    webhooks, alerts = await open_telling(settings, keys, documents, limits, stores.redis, observer, stack)
    return Services(
        vendors=ready,
        transport=transport,
        upstream=Upstream(settings.MAX_UPSTREAM_CONNECTIONS),
        ledger=ledger,
        configs=(configs := _configs(documents, caches, partial(provider_keys.vendors, deployment=ready))),
        prices=(prices := Prices(documents.prices, caches.prices, _names(rows, ready), _now)),
        health=Health([row.name for row in rows], ready, circuits, time.monotonic),
        live_usage=await stack.enter_async_context(open_live_usage(ledger, _now)),
        usage_links=SignedLinks(keys.signing_secret),
        api_keys=api_keys,
        tokens=TokenMint(keys.signing_secret, settings.claim_rules()),
        provider_keys=provider_keys,
        limits=limits,
        limit_rules=LimitRules(documents.limits, limits, api_keys, _names(rows, ready), _now),
        recordings=await _open_recordings(stores.redis, keys, entrance.sessions, stack),
        batches=batches_of(settings, stores, configs, prices, webhooks, tracer, _now),
        clock=time.monotonic,
        random=random.random,
        webhooks=webhooks,
        alerts=alerts,
        **await _open_shared(stores.redis, stack, running, circuits),
    )


def _names(rows: Sequence[ProviderRow], ready: Mapping[str, Vendor]) -> frozenset[str]:
    """Of all providers, those without a key too."""
    return frozenset({row.name for row in rows} | ready.keys())


async def _open_recordings(
    redis: RedisServer | None, keys: DeploymentKeys, sessions: Sessions, stack: AsyncExitStack
) -> Recordings:
    kept = MemoryReplays(time.monotonic) if redis is None else SealedReplays(redis.replays, keys.masters)
    return await stack.enter_async_context(open_recordings(kept, sessions, time.monotonic))


def _configs(documents: Documents, caches: Caches, vendors: VendorsOf) -> Configs:
    return Configs(documents.configs, caches.configs, vendors, now=_now)


async def _open_caches(
    documents: Documents, api_keys: ApiKeys, provider_keys: ProviderKeys, limits: Limiter, stack: AsyncExitStack
) -> Caches:
    """They follow other processes' writes, where there are such."""
    configs = ConfigCache(documents.configs, time.monotonic)
    prices = PriceCache(documents.prices, time.monotonic, _now)
    caches = Caches(configs, prices, api_keys.cache, provider_keys, limits.cache)
    if documents.feed is not None:
        await stack.enter_async_context(following(documents.feed, caches))
    return caches


def handlers(ledger: LedgerStore) -> Mapping[str, Handler]:
    """What a worker does, by the kind of job."""
    return {LEDGER_JOB: Drain(ledger)}


def _provider_keys(
    store: ProviderKeyStore, keys: DeploymentKeys, own: Mapping[str, Callable[[str], tuple[ModelProvider, Credentials]]]
) -> ProviderKeys:
    return ProviderKeys(store, Envelopes(keys.masters), own, time.monotonic, _now)


async def _open_limiter(settings: Settings, stores: Stores, ledger: Ledger, stack: AsyncExitStack) -> Limiter:
    cache = LimitCache(stores.documents.limits, time.monotonic)
    redis = stores.redis
    shared = None if redis is None else Shared(redis.reservations, redis.leases, stores.documents.prices)
    local, outstanding = MemoryReservations(time.monotonic), partial(held_at_vendors, stores.documents.batches)
    opening = open_limiter(
        cache, ledger, local, outstanding, shared, share=settings.LIMIT_FALLBACK_SHARE, now=_now, clock=time.monotonic
    )
    return await stack.enter_async_context(opening)


@dataclass(frozen=True, slots=True)
class _Entrance:
    """By which API keys come in, and what they have open."""

    keys: KeyEntrance
    sessions: Sessions
    api_keys: ApiKeys


async def _open_entrance(keys: DeploymentKeys, store: ApiKeyStore, stack: AsyncExitStack) -> _Entrance:
    cache, forms = KeyCache(store, time.monotonic), KeyForms(keys.masters)
    sessions = await stack.enter_async_context(open_sessions(store, _now))
    cache.changed, cache.anything_changed = sessions.suspect, sessions.suspect_all
    entrance = await stack.enter_async_context(open_key_entrance(cache, forms, store, _now))
    return _Entrance(entrance, sessions, ApiKeys(store, cache, forms, _now))


async def _open_bounds(
    settings: Settings, stores: Stores, stack: AsyncExitStack
) -> tuple[CostBuckets, TrustedDocuments, Capacity]:
    """What operations may take."""
    buckets = await _open_buckets(settings, stores.redis, stack)
    trusted = TrustedDocuments(stores.documents.trusted, buckets, time.monotonic, alone=settings.TRUSTED_DOCUMENTS)
    return buckets, trusted, Capacity(settings.MAX_OPERATIONS_IN_FLIGHT)


async def _open_key_set(settings: Settings, transport: HttpTransport, stack: AsyncExitStack) -> KeySet | None:
    if settings.JWT_JWKS_URL is None:
        return None
    return await stack.enter_async_context(open_key_set(fetching(transport, settings.JWT_JWKS_URL), time.monotonic))


async def _open_transport(settings: Settings, stack: AsyncExitStack) -> HttpTransport:
    limit = settings.MAX_UPSTREAM_CONNECTIONS
    opening = open_transport(max_connections=limit + share_of(limit) + CONNECTIONS_BESIDE)
    try:
        return await stack.enter_async_context(opening)
    except ValueError as error:  # the proxy variables of the environment
        raise SettingsError(str(error)) from None


async def _open_ledger(stores: Stores, observer: Observer, tracer: Tracer, stack: AsyncExitStack) -> Ledger:
    """With what an earlier process left in flight."""
    ledger = await stack.enter_async_context(
        open_ledger(stores.ledger, stores.inflight, stores.queue if stores.waits else None, observer, tracer)
    )
    await ledger.probe()
    try:
        await stack.enter_async_context(recovering(ledger, stores.documents.prices))
    except ServiceUnavailableError as error:
        raise SettingsError(f"DATA_DIR: {error.message}") from None
    if not ledger.available and not stores.waits:
        raise SettingsError("DATA_DIR: the usage ledger can't be written")
    return ledger


async def _open_buckets(settings: Settings, redis: RedisServer | None, stack: AsyncExitStack) -> CostBuckets:
    buckets = CostBuckets(settings.COST_BUCKET, settings.COST_RESTORE_RATE, time.monotonic)
    if redis is not None:
        await stack.enter_async_context(sharing_costs(redis.events, buckets))
    return buckets


class _Between(TypedDict):
    running: RunningCompletions
    circuits: Circuits
    siblings: Siblings | None
    keys: SharedKeys | None


async def _open_shared(
    redis: RedisServer | None, stack: AsyncExitStack, running: RunningCompletions, circuits: Circuits
) -> _Between:
    """What runs here, and what ties this process to the others, where there are any."""
    if redis is None:
        return {"running": running, "circuits": circuits, "siblings": None, "keys": None}
    await stack.enter_async_context(sharing_circuits(redis.events, circuits))
    siblings = await stack.enter_async_context(open_siblings(redis.events, running))
    keys = await stack.enter_async_context(open_shared_keys(redis.values))
    return {"running": running, "circuits": circuits, "siblings": siblings, "keys": keys}


def _now() -> datetime:
    return datetime.now(UTC)
