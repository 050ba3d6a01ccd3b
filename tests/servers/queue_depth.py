"""What a queue comes to hold."""

from __future__ import annotations

import asyncio

from persistence.ports import JobQueue
from persistence.queue_records import QueueDepth


async def until_depth(queue: JobQueue, depth: QueueDepth) -> None:
    """A broker counts a little later, and whoever looks has no other way to know."""
    async with asyncio.timeout(30):
        while await queue.depth() != depth:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)
