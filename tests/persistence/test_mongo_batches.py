"""Moves on a real MongoDB, by processes that die in the middle of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from persistence.batch_records import Batch, Counts, ItemState
from persistence.mongo import batch_moving
from persistence.mongo.batches import MongoBatches
from persistence.mongo.client import Mongo, open_mongo
from persistence.ports import StoreUnavailableError
from tests.persistence.audit import noted
from tests.persistence.batches import SOON, batch, item, move
from tests.servers.mongo import migrated_database, shared_mongo

WAITING, RUNNING, SUCCEEDED = ItemState.WAITING, ItemState.RUNNING, ItemState.SUCCEEDED


@pytest.fixture
async def mongo() -> AsyncIterator[Mongo]:
    async with open_mongo(await migrated_database(shared_mongo())) as opened:
        yield opened


async def opened(store: MongoBatches, count: int) -> Batch:
    made = batch(counts=Counts(waiting=count))
    await store.begin(made)
    await store.add([item(made, index) for index in range(count)])
    return await store.open(made, at_most=9, audit=noted)


async def test_what_a_process_left_uncounted_is_counted_once(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, others = MongoBatches(mongo), [MongoBatches(mongo) for _ in range(3)]
    made = await opened(killed, 4)
    claims = [move(made, index, WAITING, RUNNING, claims=True, due=SOON) for index in range(2)]
    count, dead = batch_moving._count, True

    async def counted(database: Any, marked: Any, writer: str, turn: int) -> None:
        if dead:
            raise StoreUnavailableError("killed here")
        await count(database, marked, writer, turn)

    monkeypatch.setattr(batch_moving, "_count", counted)
    with pytest.raises(StoreUnavailableError):
        await killed.move(claims)
    dead = False
    assert [each.state for each in await killed.items("acme", made.id, limit=9)] == [RUNNING, RUNNING, WAITING, WAITING]
    assert await counts(killed, made) == Counts(waiting=4), "not yet"
    late = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5)
    end = move(made, 0, RUNNING, SUCCEEDED, fence=1, cost=Decimal("0.5"))
    assert await others[0].move([end]) == [None], "nobody moves what was not counted"
    assert await others[0].mend("acme", made.id, before=late - timedelta(hours=1)) == 0
    assert await killed.move([move(made, 3, WAITING, RUNNING, claims=True, due=SOON)]) != [None]
    found = await asyncio.gather(*(each.mend("acme", made.id, before=late) for each in others))
    assert max(found) == 2
    assert await counts(killed, made) == Counts(waiting=1, running=3)
    assert await others[0].move([end]) != [None]
    assert await counts(killed, made) == Counts(waiting=1, running=2, succeeded=1)
    again = await killed.by_id("acme", made.id)
    assert again is not None
    assert again.cost == Decimal("0.5")


async def counts(store: MongoBatches, made: Batch) -> Counts:
    found = await store.by_id("acme", made.id)
    assert found is not None
    return found.counts
