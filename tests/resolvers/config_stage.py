"""A stage for configs: their use cases on the embedded store, which can be held up and taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from persistence.config_records import Config, ConfigContent, TemplateMessage, Variable
from persistence.migrations.sqlite import migrate
from persistence.ports import StoreUnavailableError
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import open_database
from providers.types import Credentials
from resolvers.config_cache import ConfigCache
from resolvers.configs import Configs
from resolvers.key_pool import KeyPool
from resolvers.routing import Vendor
from resolvers.types import ConfigBy, ConfigCall, ConfigRef

from .scene import ACME, FakeProvider, always

CONTENT = ConfigContent(
    model="alpha/a-1",
    description="Greets",
    prompt="You speak {{language}}.",
    messages=(TemplateMessage("user", "Hello {{name}}"),),
    variables=(Variable("language", default="English"), Variable("name")),
    temperature=0.5,
    stop=("\n",),
    labels={"team": "a", "tier": "b"},
)
GREET = ConfigBy(slug="greet")
CALL = ConfigCall(ConfigRef("greet", variables={"name": "Ada"}))


class WatchedStore(SQLiteConfigs):
    """Counts the reads of completions; `down`: it can't be reached. `hold` lets a read wait after it has read."""

    reads = 0
    down = False
    hold: asyncio.Event | None = None
    reached: asyncio.Event

    async def by_slug(self, organisation: str, slug: str) -> Config | None:
        self.reads += 1
        if self.down:
            raise StoreUnavailableError("away")
        found = await super().by_slug(organisation, slug)
        if self.hold is not None:
            self.reached.set()
            await self.hold.wait()
        return found


@dataclass
class Stage:
    store: WatchedStore
    configs: Configs
    seconds: float = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=self.seconds, microseconds=1)

    async def published(self, slug: str = "greet", content: ConfigContent = CONTENT) -> Config:
        await self.configs.create(ACME, slug, content)
        return await self.configs.publish(ACME, ConfigBy(slug=slug))

    async def publish(self, **changes: Any) -> Config:
        standing = await self.configs.get(ACME, GREET)
        draft = replace(standing.draft, **changes)
        await self.configs.update_draft(ACME, GREET, draft, expected_revision=standing.revision)
        return await self.configs.publish(ACME, GREET)

    async def prompt(self) -> str | None:
        return (await self.configs.resolve(ACME, CALL)).messages[0].content


@asynccontextmanager
async def open_stage(folder: Path) -> AsyncIterator[Stage]:
    migrate(folder / "configs.db")
    vendors = {name: Vendor(FakeProvider(name), KeyPool.of(Credentials("secret"))) for name in ("alpha", "beta")}
    async with open_database(folder / "configs.db") as database:
        store = WatchedStore(database)
        cache = ConfigCache(store, lambda: stage.seconds)
        stage = Stage(store, Configs(store, cache, always(vendors), lambda: stage.now()))
        yield stage
