"""The use cases are tested on a loop whose time jumps; those that go with a real store, which has threads, on a real
one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from .clockwork import VirtualTimeLoop
from .scene import Scene, open_scene

REAL_TIME = {"test_ledger.py", "test_configs.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"real": asyncio.new_event_loop} if item.path.name in REAL_TIME else {"virtual": VirtualTimeLoop}


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with open_scene() as scene:
        yield scene
