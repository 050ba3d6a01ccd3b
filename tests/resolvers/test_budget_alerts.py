"""Budgets that are spent up to a threshold: each is told of once, when it is settled and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from persistence.memory_reservations import MemoryReservations
from persistence.ports import Events, StoreUnavailableError
from persistence.reservation_records import Settled
from resolvers.alert_feed import BACKLOG, AlertFeed, open_alert_feed
from resolvers.budget_alerts import DEFAULT_ALERT_AT, BudgetAlert, open_budget_alerts, thresholds
from resolvers.errors import BadUserInputError, BudgetExceededError, ServiceUnavailableError, UnauthenticatedError
from resolvers.limit_rules import MAX_THRESHOLDS, NewLimits
from resolvers.principal import Principal
from tests.persistence.limits import limit_rule

from .clockwork import idle
from .scene import ACME, GLOBEX, Scene, texts
from .test_limits import limit, priced

COST = 27
"""Dollars that a call comes to; it may come to 125: see `test_limits`."""
LATER = replace(ACME, expires_at=4_000_000_000.0)


@dataclass
class Told:
    """What is told, once each, as webhooks keep it. `down` fails."""

    alerts: list[BudgetAlert] = field(default_factory=list)
    times: int = 0
    down: bool = False

    async def tell(self, alert: BudgetAlert) -> None:
        self.times += 1
        if self.down:
            raise StoreUnavailableError("down")
        if alert.id not in [each.id for each in self.alerts]:
            self.alerts.append(alert)

    @property
    def percents(self) -> list[int]:
        return [each.percent for each in self.alerts]


@asynccontextmanager
async def watching(scene: Scene, told: Told) -> AsyncIterator[None]:
    priced(scene)
    scene.alpha.will(*[texts("hi")] * 20)
    async with open_budget_alerts(told.tell) as alerts:
        scene.services.limits.touched = alerts.touched
        yield
        scene.services.limits.touched = None


async def called(scene: Scene, times: int = 1) -> None:
    for _ in range(times):
        await scene.complete(max_tokens=4)
    await asyncio.sleep(1)


async def test_each_threshold_once(scene: Scene) -> None:
    told = Told()
    limit(scene, usd_per_day=Decimal(10 * COST))
    async with watching(scene, told):
        await called(scene, 4)
        assert told.alerts == []
        await called(scene)
        assert told.percents == [50]
        await called(scene)
        assert (told.percents, told.times) == ([50], 1)
    (alert,) = told.alerts
    assert (alert.organisation, alert.limited, alert.name, alert.measure) == ("acme", "organisation", "", "usd_per_day")
    assert (alert.limit, alert.spent) == (10 * COST, 5 * COST)
    assert alert.begun_at <= datetime.now(UTC) < alert.ends_at


async def test_what_is_reserved_is_not_spent(scene: Scene) -> None:
    """Half of the budget is reserved at once, and a fifth of that spent."""
    told = Told()
    limit(scene, usd_per_day=Decimal(250), alert_at=(10, 11))
    async with watching(scene, told):
        await called(scene)
    assert [(each.percent, each.spent) for each in told.alerts] == [(10, COST)]


async def test_several_thresholds_and_several_budgets_at_once(scene: Scene) -> None:
    told = Told()
    limit(scene, usd_per_day=Decimal(130), usd_per_month=Decimal(1300), alert_at=(1, 2, 20, 99))
    async with watching(scene, told):
        await called(scene)
    assert [(each.measure, each.percent) for each in told.alerts] == [
        *(("usd_per_day", percent) for percent in (1, 2, 20)),
        *(("usd_per_month", percent) for percent in (1, 2)),
    ]
    assert len({each.id for each in told.alerts}) == 5


async def test_another_limit_is_another_alert(scene: Scene) -> None:
    told = Told()
    async with watching(scene, told):
        for budget in (500, 400, 500):
            limit(scene, usd_per_day=Decimal(budget), alert_at=(1,))
            await called(scene)
    assert [each.limit for each in told.alerts] == [500, 400]


async def test_while_the_store_is_away_it_is_told_later(scene: Scene) -> None:
    told = Told(down=True)
    limit(scene, usd_per_day=Decimal(500), alert_at=(1,))
    async with watching(scene, told):
        await called(scene)
        assert told.alerts == []
        await asyncio.sleep(20)
        assert 5 <= told.times <= 11, "it is asked every two seconds"
        told.down = False
        await asyncio.sleep(5)
        assert told.percents == [1]


async def test_what_is_settled_late_is_told_then(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where budgets can be looked at all the time."""
    told, settle, away = Told(), MemoryReservations.settle, True

    async def late(self: MemoryReservations, organisation: str, settled: Sequence[Settled]) -> Sequence[str]:
        if away:
            raise StoreUnavailableError("down")
        return await settle(self, organisation, settled)

    monkeypatch.setattr(MemoryReservations, "settle", late)
    limit(scene, usd_per_day=Decimal(500), alert_at=(1,))
    async with watching(scene, told):
        await called(scene)
        await asyncio.sleep(10)
        assert told.alerts == []
        away = False
        await asyncio.sleep(5)
        assert [(each.percent, each.spent) for each in told.alerts] == [(1, COST)]


async def test_what_was_not_told_before_the_end_is_told_when_a_call_has_no_room(scene: Scene) -> None:
    """A process was killed after it had settled, and before it told."""
    told = Told()
    limit(scene, usd_per_day=Decimal(130), alert_at=(20,))
    async with watching(scene, Told(down=True)):
        await called(scene)
    async with watching(scene, told):
        with pytest.raises(BudgetExceededError):
            await called(scene)
        await asyncio.sleep(1)
    assert told.percents == [20]


async def test_what_was_settled_last_is_told_at_the_end(scene: Scene) -> None:
    told = Told()
    limit(scene, usd_per_day=Decimal(500), alert_at=(1,))
    async with watching(scene, told):
        await scene.complete(max_tokens=4)
        await idle()
    assert told.percents == [1]


async def test_no_budget_no_alert(scene: Scene) -> None:
    told = Told()
    limit(scene, requests_per_minute=5, tokens_per_minute=10_000)
    async with watching(scene, told):
        await called(scene)
        limit(scene, usd_per_day=Decimal(500), alert_at=())
        await called(scene)
    assert told.times == 0


async def test_a_budget_of_nothing_is_no_news(scene: Scene) -> None:
    told = Told()
    limit(scene, usd_per_day=Decimal(0))
    async with watching(scene, told):
        with pytest.raises(BudgetExceededError):
            await called(scene)
        await asyncio.sleep(1)
    assert told.times == 0


def test_thresholds_unless_they_are_given() -> None:
    assert thresholds(limit_rule(alert_at=None)) == DEFAULT_ALERT_AT == (50, 80, 90, 100)
    assert thresholds(limit_rule(alert_at=(7,))) == (7,)
    assert thresholds(limit_rule(alert_at=None, usd_per_day=None)) == ()


@pytest.mark.parametrize("given", [(0,), (101,), (-1,), tuple(range(1, MAX_THRESHOLDS + 2))])
async def test_thresholds_that_are_refused(scene: Scene, given: tuple[int, ...]) -> None:
    for asked in (NewLimits(usd_per_day=Decimal(1), alert_at=given), NewLimits(streams=1, alert_at=(50,))):
        with pytest.raises(BadUserInputError) as caught:
            await scene.services.limit_rules.put(ACME, asked)
        assert caught.value.path == ("input", "alertAt")
    rule = await scene.services.limit_rules.put(ACME, NewLimits(usd_per_day=Decimal(1), alert_at=(90, 10, 90)))
    assert rule.alert_at == (10, 90)


class Channel:
    """Implements `persistence.ports.Events` for what a feed needs: two processes that hear each other."""

    def __init__(self) -> None:
        self.heed: list[Callable[[str], Awaitable[None]]] = []
        self.down = False

    async def publish(self, channel: str, message: str) -> None:
        if self.down:
            raise StoreUnavailableError("down")
        for heed in self.heed:
            await heed(message)


def alert(percent: int = 50, organisation: str = "acme") -> BudgetAlert:
    now = datetime.now(UTC)
    return BudgetAlert(organisation, "model", "a/b", "usd_per_day", percent, Decimal("12.5"), Decimal("7.1"), now, now)


async def heard(feed: AlertFeed, principal: Principal, count: int) -> list[BudgetAlert]:
    found: list[BudgetAlert] = []
    async with aclosing(feed.alerts(principal)) as alerts:
        async for each in alerts:
            found.append(each)
            if len(found) == count:
                break
    return found


async def test_who_listens_hears_its_own_organisation_s_from_any_process() -> None:
    channel = Channel()
    events: Events = channel  # type: ignore[assignment]  # of it no more is needed
    here, there = (AlertFeed(lambda: datetime.now(UTC), events) for _ in range(2))
    channel.heed = [here.hear, there.hear]
    listening = [asyncio.create_task(heard(feed, LATER, 2)) for feed in (here, there)]
    strangers = asyncio.create_task(heard(there, replace(GLOBEX, expires_at=LATER.expires_at), 1))
    await idle()
    told = [alert(), alert(80)]
    for each in told:
        await here.publish(each)
    assert [await each for each in listening] == [told, told]
    channel.down = True
    mine = asyncio.create_task(heard(here, LATER, 1))
    await idle()
    await here.publish(alert(90))
    assert [each.percent for each in await mine] == [90]
    assert not strangers.done()
    there.close()
    with pytest.raises(ServiceUnavailableError):
        await strangers


async def test_a_slow_listener_loses_the_oldest_and_one_that_has_expired_is_told() -> None:
    async with open_alert_feed(lambda: datetime.now(UTC), None) as feed, aclosing(feed.alerts(LATER)) as slow:
        first = asyncio.ensure_future(anext(slow))
        await idle()
        await feed.publish(alert(1))
        assert (await first).percent == 1
        for percent in range(BACKLOG + 5):
            await feed.publish(alert(percent))
        assert (await anext(slow)).percent == 5
        expired = asyncio.create_task(heard(feed, ACME, 1))
        await idle()
        await feed.publish(alert())
        with pytest.raises(UnauthenticatedError):
            await expired
