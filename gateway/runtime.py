"""Everything a process holds open, built and closed in one place: used by the server, the command line and tests."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from persistence.inflight import open_inflight_log
from persistence.ports import StoreUnavailableError
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import Database, open_database
from persistence.sqlite.ledger import SQLiteLedger
from persistence.sqlite.prices import SQLitePrices
from providers.http import open_transport
from providers.prices import load_prices
from providers.registry import ProviderRow, build_providers
from providers.scripted import ScriptedProvider
from providers.types import Credentials
from resolvers.config_cache import ConfigCache
from resolvers.configs import Configs
from resolvers.errors import DomainError
from resolvers.health import Health
from resolvers.ledger import Ledger, open_ledger
from resolvers.live_usage import open_live_usage
from resolvers.price_cache import PriceCache
from resolvers.prices import Prices
from resolvers.routing import Circuits, Vendor
from resolvers.run import Services
from resolvers.running import RunningCompletions

from .auth import Authenticator
from .declared_providers import provider_rows
from .keys import DeploymentKeys, deployment_keys
from .settings import Environment, Settings, SettingsError
from .usage_links import SignedLinks

DATABASE_FILE = "ai-middleware.db"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a server works with. `keys` are secrets; nothing prints them."""

    settings: Settings
    keys: DeploymentKeys = field(repr=False)
    authenticator: Authenticator
    services: Services

    def missing(self) -> list[str]:
        """The dependencies that don't answer, by name; empty when the process is ready to serve."""
        ledger = self.services.ledger
        return ["ledger"] * (not ledger.available) + ["in-flight log"] * (not ledger.can_note())


def vendors(settings: Settings, keys: DeploymentKeys, rows: Sequence[ProviderRow]) -> Mapping[str, Vendor]:
    """Of the providers those that this deployment can call: where there is an address, and a key if one is needed.
    Raises SettingsError for a key that doesn't open."""
    providers = build_providers(rows)
    sealer = keys.sealer()
    found: dict[str, Vendor] = {}
    for row in rows:
        base_url: str | None = getattr(settings, row.base_url_variable) if row.base_url_variable else None
        key = settings.api_key(row.key_variable, sealer) if row.key_variable else None
        if (base_url or row.base_url) and (key or row.keyless):
            found[row.name] = Vendor(providers[row.name], Credentials(key or "", base_url))
    if settings.ENVIRONMENT is Environment.LOCAL:
        scripted = ScriptedProvider()
        found[scripted.name] = Vendor(scripted, Credentials(""))
    return found


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Opens every client; closes them in the opposite order. Raises SettingsError for what the operator can mend."""
    keys = deployment_keys(settings)
    load_prices()  # now, and not while the first completion waits
    async with AsyncExitStack() as stack:
        database, ledger = await _open_stores(settings, stack)
        try:
            transport = await stack.enter_async_context(
                open_transport(max_connections=settings.MAX_UPSTREAM_CONNECTIONS)
            )
        except ValueError as error:  # the proxy variables of the environment
            raise SettingsError(str(error)) from None
        rows = provider_rows(settings)
        ready = vendors(settings, keys, rows)
        circuits = Circuits(time.monotonic)
        configs = SQLiteConfigs(database)
        services = Services(
            vendors=ready,
            transport=transport,
            ledger=ledger,
            configs=Configs(configs, ConfigCache(configs, time.monotonic), ready, now=_now),
            prices=_prices(database, {row.name for row in rows} | ready.keys()),
            circuits=circuits,
            health=Health([row.name for row in rows], ready, circuits, time.monotonic),
            running=RunningCompletions(),
            live_usage=await stack.enter_async_context(open_live_usage(ledger, _now)),
            usage_links=SignedLinks(keys.signing_secret),
            clock=time.monotonic,
            random=random.random,
        )
        yield Runtime(settings, keys, Authenticator(keys.signing_secret), services)


@asynccontextmanager
async def open_usage_store(settings: Settings) -> AsyncIterator[SQLiteLedger]:
    """The ledger's store alone, for a command that books without a server. Raises SettingsError."""
    try:
        async with open_database(settings.DATA_DIR / DATABASE_FILE) as database:
            yield SQLiteLedger(database)
    except StoreUnavailableError as error:
        raise SettingsError(f"DATA_DIR: {error}") from None


async def _open_stores(settings: Settings, stack: AsyncExitStack) -> tuple[Database, Ledger]:
    try:
        inflight = stack.enter_context(open_inflight_log(settings.DATA_DIR))
        database = await stack.enter_async_context(open_database(settings.DATA_DIR / DATABASE_FILE))
    except StoreUnavailableError as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
    ledger = await stack.enter_async_context(open_ledger(SQLiteLedger(database), inflight))
    try:
        await ledger.recover(SQLitePrices(database))
    except DomainError as error:
        raise SettingsError(f"DATA_DIR: {error.message}") from None
    return database, ledger


def _prices(database: Database, providers: Collection[str]) -> Prices:
    store = SQLitePrices(database)
    return Prices(store, PriceCache(store, time.monotonic, _now), providers, _now)


def _now() -> datetime:
    return datetime.now(UTC)
