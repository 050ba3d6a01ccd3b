"""Everything a process holds open, built and closed in one place: used by the server, the command line and tests."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from persistence.inflight import open_inflight_log
from persistence.ports import ChangeFeed, ConfigStore, LedgerStore, PriceStore, StoreUnavailableError
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import open_database
from persistence.sqlite.ledger import SQLiteLedger, open_sqlite_ledger
from persistence.sqlite.prices import SQLitePrices
from providers.http import open_transport
from providers.prices import load_prices
from providers.registry import ProviderRow, build_providers
from providers.scripted import ScriptedProvider
from providers.types import Credentials
from resolvers.config_cache import ConfigCache
from resolvers.configs import Configs
from resolvers.errors import ServiceUnavailableError
from resolvers.following import following
from resolvers.health import Health
from resolvers.key_pool import KeyPool, ProviderKey
from resolvers.ledger import Ledger, open_ledger
from resolvers.live_usage import open_live_usage
from resolvers.price_cache import PriceCache
from resolvers.prices import Prices
from resolvers.recovery import recovering
from resolvers.routing import Circuits, Vendor
from resolvers.run import Services
from resolvers.running import RunningCompletions

from .auth import Authenticator
from .declared_providers import provider_rows
from .keys import DeploymentKeys, deployment_keys
from .readiness import Dependency, Readiness, readiness
from .settings import Environment, Settings, SettingsError
from .usage_links import SignedLinks

if TYPE_CHECKING:
    from persistence.timescale.ledger import TimescaleLedger

DATABASE_FILE = "ai-middleware.db"
MONGODB = "MongoDB"
TIMESCALE = "TimescaleDB"

log = structlog.get_logger("runtime")


@dataclass(frozen=True, slots=True)
class Documents:
    """Where configs and price rules are. `feed` tells of other processes' writes; None where there are no others."""

    configs: ConfigStore
    prices: PriceStore
    feed: ChangeFeed | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a server works with. `keys` are secrets; nothing prints them."""

    settings: Settings
    keys: DeploymentKeys = field(repr=False)
    authenticator: Authenticator
    services: Services
    servers: Sequence[Dependency] = ()

    async def readiness(self) -> Readiness:
        ledger = self.services.ledger
        own = ["ledger"] * (not ledger.available) + ["in-flight log"] * (not ledger.can_note())
        return await readiness(own, self.servers)


def vendors(settings: Settings, keys: DeploymentKeys, rows: Sequence[ProviderRow]) -> Mapping[str, Vendor]:
    """Of the providers those that this deployment can call: where there is an address, and a key if one is needed.
    Raises SettingsError for a key that doesn't open."""
    providers = build_providers(rows)
    sealer = keys.sealer()
    found: dict[str, Vendor] = {}
    for row in rows:
        base_url: str | None = getattr(settings, row.base_url_variable) if row.base_url_variable else None
        given = settings.api_keys(row.key_variable, sealer) if row.key_variable else []
        if (base_url or row.base_url) and (given or row.keyless):
            numbered = enumerate(given or [("", 1)], start=1)
            pool = [ProviderKey(str(number), Credentials(key, base_url), weight) for number, (key, weight) in numbered]
            found[row.name] = Vendor(providers[row.name], KeyPool(pool))
    if settings.ENVIRONMENT is Environment.LOCAL:
        scripted = ScriptedProvider()
        found[scripted.name] = Vendor(scripted, KeyPool.of(Credentials("")))
    return found


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Opens every client; closes them in the opposite order. Raises SettingsError for what the operator can mend."""
    keys = deployment_keys(settings)
    load_prices()  # now, and not while the first completion waits
    async with AsyncExitStack() as stack:
        servers: list[Dependency] = []
        documents, ledger = await _open_stores(settings, stack, servers)
        try:
            transport = await stack.enter_async_context(
                open_transport(max_connections=settings.MAX_UPSTREAM_CONNECTIONS)
            )
        except ValueError as error:  # the proxy variables of the environment
            raise SettingsError(str(error)) from None
        rows = provider_rows(settings)
        ready = vendors(settings, keys, rows)
        circuits = Circuits(time.monotonic)
        configs = ConfigCache(documents.configs, time.monotonic)
        prices = PriceCache(documents.prices, time.monotonic, _now)
        if documents.feed is not None:
            await stack.enter_async_context(following(documents.feed, configs, prices))
        services = Services(
            vendors=ready,
            transport=transport,
            ledger=ledger,
            configs=Configs(documents.configs, configs, ready, now=_now),
            prices=Prices(documents.prices, prices, {row.name for row in rows} | ready.keys(), _now),
            circuits=circuits,
            health=Health([row.name for row in rows], ready, circuits, time.monotonic),
            running=RunningCompletions(),
            live_usage=await stack.enter_async_context(open_live_usage(ledger, _now)),
            usage_links=SignedLinks(keys.signing_secret),
            clock=time.monotonic,
            random=random.random,
        )
        yield Runtime(settings, keys, Authenticator(keys.signing_secret), services, servers)


@asynccontextmanager
async def open_usage_store(settings: Settings) -> AsyncIterator[LedgerStore]:
    """The ledger's store alone, for a command that books without a server. What was booked is summed up at the end.
    Raises SettingsError."""
    variable = "DATA_DIR" if settings.TIMESCALE_SERVICE_URL is None else "TIMESCALE_SERVICE_URL"
    try:
        async with AsyncExitStack() as stack:
            if settings.TIMESCALE_SERVICE_URL is not None:
                yield await _open_timescale(settings, stack)
                return
            database = await stack.enter_async_context(open_database(settings.DATA_DIR / DATABASE_FILE))
            store = SQLiteLedger(database)
            yield store
            await store.fold(_now())
    except StoreUnavailableError as error:
        raise SettingsError(f"{variable}: {error}") from None


async def _open_timescale(settings: Settings, stack: AsyncExitStack) -> TimescaleLedger:
    from persistence.timescale.ledger import open_timescale_ledger  # here: a start without it loads no SQLAlchemy

    assert settings.TIMESCALE_SERVICE_URL is not None  # noqa: S101  # who calls this has looked
    replica = settings.TIMESCALE_REPLICA_URL
    opening = open_timescale_ledger(
        settings.TIMESCALE_SERVICE_URL.get_secret_value(),
        replica_url=None if replica is None else replica.get_secret_value(),
        max_lag_s=settings.TIMESCALE_REPLICA_MAX_LAG_S,
        pool_size=settings.TIMESCALE_POOL_SIZE,
        statement_timeout_s=settings.TIMESCALE_TIMEOUT_S,
        policies=settings.ledger_policies(),
    )
    return await stack.enter_async_context(opening)


async def _open_mongo(settings: Settings, stack: AsyncExitStack, servers: list[Dependency]) -> Documents:
    """What the settings keep it from is refused at once; a server that is away is waited for."""
    from persistence.mongo import changes, client, configs, prices  # here: a start without it loads no driver

    assert settings.MONGODB_CONNECTION_URI is not None  # noqa: S101  # who calls this has looked
    try:
        opening = client.open_mongo(
            settings.MONGODB_CONNECTION_URI.get_secret_value(),
            ca_file=settings.MONGODB_TLS_CA_FILE,
            pool_size=settings.MONGODB_POOL_SIZE,
            timeout_s=settings.MONGODB_TIMEOUT_S,
        )
        mongo = await stack.enter_async_context(opening)
        dependency = Dependency(MONGODB, mongo.look, spared=True)
        servers.append(dependency)
        await mongo.probe()
        dependency.answered = True
    except (ValueError, client.MongoRefusedError) as error:
        raise SettingsError(f"MONGODB_CONNECTION_URI: {error}") from None
    except StoreUnavailableError as error:
        log.warning("configs and price rules can't be reached", reason=str(error))
    return Documents(configs.MongoConfigs(mongo), prices.MongoPrices(mongo), changes.MongoChanges(mongo))


async def _open_stores(
    settings: Settings, stack: AsyncExitStack, servers: list[Dependency]
) -> tuple[Documents, Ledger]:
    try:
        inflight = stack.enter_context(open_inflight_log(settings.DATA_DIR))
        database = await stack.enter_async_context(open_database(settings.DATA_DIR / DATABASE_FILE))
    except StoreUnavailableError as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
    store: LedgerStore
    if settings.TIMESCALE_SERVICE_URL is None:
        store = await stack.enter_async_context(open_sqlite_ledger(database))
    else:
        store = timescale = await _open_timescale(settings, stack)
        servers.append(Dependency(TIMESCALE, timescale.look, spared=False))
    documents = Documents(SQLiteConfigs(database), SQLitePrices(database))
    if settings.MONGODB_CONNECTION_URI is not None:
        documents = await _open_mongo(settings, stack, servers)
    ledger = await stack.enter_async_context(open_ledger(store, inflight))
    await ledger.probe()
    try:
        await stack.enter_async_context(recovering(ledger, documents.prices))
    except ServiceUnavailableError as error:
        if settings.TIMESCALE_SERVICE_URL is None:  # what a server could not take is owed, and booked when it is back
            raise SettingsError(f"DATA_DIR: {error.message}") from None
    return documents, ledger


def _now() -> datetime:
    return datetime.now(UTC)
