"""Beginning a budget on Redis while nobody can say what is outstanding."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import pytest
import redis

from persistence.ports import StoreUnavailableError
from persistence.redis.reservations import known_of
from persistence.redis.server import RedisServer, open_redis
from persistence.reservation_records import Kept
from resolvers.allowances import Need, budgets_of
from resolvers.taking import Taker
from tests.persistence.limits import limit_rule
from tests.servers.redis import redis_or_skip


class Spent:
    """A ledger, of which this is all that is asked."""

    async def spent(self, *_: Any) -> Decimal:
        return Decimal(3)


async def unreadable(_: str) -> Sequence[Kept]:
    raise StoreUnavailableError("MongoDB: no answer")


@pytest.fixture
async def shared() -> AsyncIterator[RedisServer]:
    async with open_redis(redis_or_skip().uri) as server:
        yield server


@pytest.fixture
def org() -> str:
    return uuid4().hex


def of_today() -> Need:
    rule = limit_rule(usd_per_day=Decimal(10), requests_per_minute=None, tokens_per_minute=None)
    [need] = [each for each in budgets_of([rule], Decimal(1), datetime.now(UTC)) if each.measure == "usd_per_day"]
    return need


def known_since(org: str, at: datetime) -> None:
    """As where Redis had lost all then. It told the others to wait long ago."""
    with redis.Redis.from_url(redis_or_skip().uri) as client:
        client.set(known_of(org), int(at.timestamp() * 1000))


async def test_a_new_day_begins_though_nobody_can_say(shared: RedisServer, org: str) -> None:
    need = of_today()
    assert need.begun_at is not None
    known_since(org, need.begun_at - timedelta(hours=1))
    taker = Taker(cast(Any, Spent()), unreadable)
    assert await taker.take(shared.reservations, org, Kept("a", "", [need.asked]), [need], 30.0) is None
    [used] = await shared.reservations.used(org, [need.asked])
    assert used == 4 * need.asked.amount, "what the ledger has, and what is reserved"


async def test_what_was_lost_in_the_day_stays_closed(shared: RedisServer, org: str) -> None:
    need = of_today()
    assert need.begun_at is not None
    known_since(org, max(need.begun_at, datetime.fromtimestamp(time.time() - 3600, UTC)))
    taker = Taker(cast(Any, Spent()), unreadable)
    with pytest.raises(StoreUnavailableError, match="no answer"):
        await taker.take(shared.reservations, org, Kept("a", "", [need.asked]), [need], 30.0)
    assert await shared.reservations.used(org, [need.asked]) == [None]
