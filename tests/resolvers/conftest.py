"""The use cases are tested on a loop whose time jumps; those that go with a real store, which has threads, on a real
one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from .clockwork import VirtualTimeLoop
from .config_stage import Stage, open_stage
from .scene import Scene, open_scene

REAL_TIME = {"test_ledger.py", "test_worker.py", "test_configs.py", "test_config_cache.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"real": asyncio.new_event_loop} if item.path.name in REAL_TIME else {"virtual": VirtualTimeLoop}


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with open_scene() as scene:
        yield scene


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path) as stage:
        yield stage
