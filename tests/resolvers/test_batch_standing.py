"""Items of a batch whose key is taken back meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from persistence.key_records import Grant
from tests.persistence.api_keys import api_key

from .batch_stage import open_batch_stage, until
from .scene import ACME, Hold, texts


class Second(Hold):
    async def wait(self) -> None:
        await asyncio.sleep(1)


async def test_a_key_that_is_revoked_begins_no_item_more() -> None:
    """As soon as it opens nothing else: both go by what is told of its write."""
    async with open_batch_stage() as stage:
        stage.alpha.will(*[[Second(), *texts("a")] for _ in range(10)])
        key = api_key(id="key_1", organisation="acme", grant=Grant(roles=("caller",)))
        stage.keys.keys["acme", "key_1"] = key
        batch = await stage.submit(6, replace(ACME, key_id="key_1"), concurrency=1)
        async with stage.running(prefetch=1):
            await until(lambda: stage.now(batch).counts.succeeded == 1)
            stage.keys.keys["acme", "key_1"] = replace(key, revoked_at=stage.batches.now())
            stage.cache.outdate("acme", "key_1")
            ended = await stage.ended(batch)
        assert ended.counts.succeeded <= 2, "one may have been running"
