"""The stage with configs on the embedded store, and what tests say to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from graph.engine import Engine
from graph.schema import build_schema
from persistence.migrations.sqlite import migrate
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import open_database
from tests.resolvers.scene import configs_in, open_scene

from .stage import Stage

CONTENT = """
fragment Everything on ConfigContent {
  model description prompt messages { role content } variables { name description default }
  temperature topP maxTokens stop seed tools { name description parameters } toolChoice { mode name }
  responseFormat reasoningEffort fallbacks timeoutMs cache labels { name value } providerOptions
}
"""
DRAFT: Mapping[str, Any] = {
    "model": "alpha/a-1",
    "description": "Greets",
    "prompt": "You speak {{language}}.",
    "messages": [{"role": "USER", "content": "Hello {{name}}"}],
    "variables": [{"name": "language", "default": "English"}, {"name": "name", "description": "Whom to greet"}],
    "temperature": 0.5,
    "topP": 0.9,
    "maxTokens": 100,
    "stop": ["\n"],
    "seed": 7,
    "tools": [{"name": "look_up", "description": "Looks it up", "parameters": {"type": "object"}}],
    "toolChoice": {"name": "look_up"},
    "responseFormat": {"jsonSchema": {"name": "greeting", "schema": {"type": "object"}}},
    "reasoningEffort": "LOW",
    "fallbacks": ["beta/b-1"],
    "timeoutMs": 30_000,
    "cache": {"ttlMs": 1000},
    "labels": [{"name": "team", "value": "a"}],
    "providerOptions": {"alpha": {"tier": "flex"}},
}
GREET = {"slug": "greet"}


@asynccontextmanager
async def open_configs_stage(folder: Path) -> AsyncIterator[Stage]:
    migrate(folder / "configs.db")
    async with open_scene() as scene, open_database(folder / "configs.db") as database:
        configs = configs_in(SQLiteConfigs(database), scene.services.vendors)
        scene.services = replace(scene.services, configs=configs)
        yield Stage(scene, Engine(build_schema()))


async def told(stage: Stage, query: str, **variables: Any) -> Any:
    """The one root field's value; nothing may have gone wrong."""
    data, errors = await stage.ask(query, variables)
    assert errors == []
    assert data is not None
    (value,) = data.values()
    return value


def mutation(field: str, selection: str = "slug revision publishedVersion archivedAt") -> str:
    kind = "ArchiveConfigInput" if field == "unarchiveConfig" else f"{field[0].upper()}{field[1:]}Input"
    return f"mutation ($input: {kind}!) {{ {field}(input: $input) {{ {selection} }} }}"


async def write(stage: Stage, field: str, **given: Any) -> Any:
    return await told(stage, mutation(field), input=given)


async def create(stage: Stage, slug: str = "greet", **changes: Any) -> None:
    await write(stage, "createConfig", slug=slug, draft={**DRAFT, **changes})


async def publish(stage: Stage, slug: str = "greet", **changes: Any) -> None:
    """A config published as version 1."""
    await create(stage, slug, **changes)
    await write(stage, "publishConfig", by={"slug": slug})
