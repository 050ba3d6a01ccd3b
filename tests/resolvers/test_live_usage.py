"""Live usage: who is told what, and when; one poller for all who ask the same; what ends it, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persistence.usage_records import LabelName, UsageCell, UsageField, UsageFilter, UsageSelection
from resolvers import live_usage, usage
from resolvers.calendar import Bucket
from resolvers.errors import (
    BadUserInputError,
    RateLimitedError,
    ServiceUnavailableError,
    UnauthenticatedError,
)
from resolvers.ledger import Ledger, open_ledger
from resolvers.live_usage import (
    HEARTBEAT_S,
    MAX_BUCKETS,
    MAX_QUERIES_OF_ONE,
    LiveQuery,
    LiveUsage,
    Tick,
    latest,
    open_live_usage,
)
from resolvers.usage import MAX_CELLS, UsageReport
from tests.persistence.entries import NOON, entry

from .clockwork import idle
from .scene import ACME, GLOBEX, MemoryInflight, MemoryStore, other_tasks

ADA = replace(ACME, expires_at=NOON.timestamp() + 86_400)
BOB = replace(ADA, subject="key_9")
EVE = replace(GLOBEX, expires_at=ADA.expires_at)
INTERVAL_S = 2.0
Ticks = AsyncGenerator[Tick, None]


class WatchedStore(MemoryStore):
    """Counts what is asked of it, and by how many at once; answers once `free` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()
        self.looks = self.looking = self.most = 0
        self.defect: Exception | None = None

    async def usage(self, organisation: str, asked: UsageSelection) -> Sequence[UsageCell]:
        self.looks += 1
        self.looking += 1
        self.most = max(self.most, self.looking)
        try:
            await self.free.wait()
            if self.defect:
                raise self.defect
            return await super().usage(organisation, asked)
        finally:
            self.looking -= 1


@pytest.fixture
async def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
async def ledger(store: WatchedStore) -> AsyncIterator[Ledger]:
    async with open_ledger(store, MemoryInflight()) as ledger:
        yield ledger


@pytest.fixture
async def live(ledger: Ledger) -> AsyncIterator[LiveUsage]:
    before = other_tasks()
    async with open_live_usage(ledger, now) as live:
        yield live
        assert other_tasks() == before, "no poller outlives its listeners"


def now() -> datetime:
    return NOON + timedelta(seconds=asyncio.get_running_loop().time())


def query(**changes: Any) -> LiveQuery:
    return LiveQuery(**{"last": 3, "bucket": Bucket.HOUR} | changes)


async def following(ticks: Ticks) -> UsageReport:
    return (await anext(ticks)).report


async def silent(ticks: Ticks, seconds: float) -> asyncio.Task[UsageReport]:
    """The next tick, which does not come within that time."""
    tick = asyncio.create_task(following(ticks))
    await asyncio.wait([tick], timeout=seconds)
    assert not tick.done()
    return tick


async def exhausted(ticks: Ticks) -> None:
    async for _ in ticks:
        pass


async def cancelled(*tasks: asyncio.Task[UsageReport]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def used(report: UsageReport) -> list[int]:
    return [bucket.sums.attempts for bucket in report.buckets]


async def test_the_first_tick_comes_at_once(live: LiveUsage, store: WatchedStore) -> None:
    store.entries = [entry(time=NOON - timedelta(hours=hours)) for hours in (0, 1, 1, 3)]
    async with aclosing(live.ticks(ADA, query(group_by=(UsageField.MODEL,)))) as ticks:
        report = await following(ticks)
    assert asyncio.get_running_loop().time() == pytest.approx(0, abs=0.001)
    assert used(report) == [0, 2, 1]
    assert (report.since, report.until) == (NOON - timedelta(hours=2), NOON + timedelta(hours=1))
    assert report.totals.attempts == report.groups[0].sums.attempts == 3


async def test_a_tick_for_each_change_and_a_heartbeat_without(live: LiveUsage, store: WatchedStore) -> None:
    async with aclosing(live.ticks(ADA, query())) as ticks:
        first = await following(ticks)
        unchanged = await silent(ticks, HEARTBEAT_S - 2 * INTERVAL_S)
        store.entries.append(entry())
        assert used(await unchanged) == [0, 0, 1]
        changed_at = asyncio.get_running_loop().time()
        beat = await following(ticks)
        waited = asyncio.get_running_loop().time() - changed_at
        assert HEARTBEAT_S <= waited <= HEARTBEAT_S + INTERVAL_S
        assert used(beat) == [0, 0, 1]
        assert beat.as_of > first.as_of


async def test_the_window_goes_with_the_time(live: LiveUsage, store: WatchedStore) -> None:
    store.entries = [entry(time=NOON)]
    async with aclosing(live.ticks(ADA, query(last=2, bucket=Bucket.MINUTE))) as ticks:
        seen = [used(await following(ticks))]
        while seen[-1] != [0, 0]:
            report = await following(ticks)
            if used(report) != seen[-1]:
                seen.append(used(report))
    assert seen == [[0, 1], [1, 0], [0, 0]]
    assert report.since == NOON + timedelta(minutes=1)


async def test_all_who_ask_the_same_share_a_poller(live: LiveUsage, store: WatchedStore) -> None:
    fields = {UsageField.MODEL: ["a", "b"], UsageField.PROVIDER: ["x"]}
    turned = {UsageField.PROVIDER: ["x"], UsageField.MODEL: ["b", "a"]}
    same = [query(where=UsageFilter(each, [("team", "search")])) for each in (fields, turned)]
    before = other_tasks()
    async with aclosing(live.ticks(ADA, same[0])) as one, aclosing(live.ticks(BOB, same[1])) as two:
        first = await anext(one)
        assert await anext(two) is first, "what is made of it can be shared as well"
        await asyncio.sleep(3.5 * INTERVAL_S)
        assert store.looks == 4
        assert len(other_tasks() - before) == 1
    assert other_tasks() == before


@pytest.mark.parametrize(
    ("principal", "changes"),
    [
        (EVE, {}),
        (ADA, {"interval_ms": 1_000}),
        (ADA, {"last": 4}),
        (ADA, {"bucket": Bucket.DAY}),
        (ADA, {"time_zone": "Asia/Kolkata"}),
        (ADA, {"group_by": (UsageField.MODEL,)}),
        (ADA, {"where": UsageFilter({UsageField.MODEL: ["a"]})}),
        (ADA, {"where": UsageFilter({}, [("team", "search")])}),
    ],
)
async def test_what_differs_has_a_poller_of_its_own(
    live: LiveUsage, store: WatchedStore, principal: Any, changes: dict[str, Any]
) -> None:
    store.entries = [entry()]
    async with aclosing(live.ticks(ADA, query())) as one, aclosing(live.ticks(principal, query(**changes))) as two:
        await anext(one)
        other = await following(two)
    assert store.looks == 2
    assert other.totals.attempts == int(principal is ADA and "where" not in changes)


async def test_who_comes_later_sees_what_is_known(live: LiveUsage, store: WatchedStore) -> None:
    slow = query(interval_ms=60_000)
    async with aclosing(live.ticks(ADA, slow)) as one:
        first = await following(one)
        await asyncio.sleep(30)
        async with aclosing(live.ticks(BOB, slow)) as two:
            assert await following(two) == first
        store.entries.append(entry())
        assert used(await following(one)) == [0, 0, 1], "the poller outlives one of its listeners"
    assert store.looks == 2


async def test_a_slow_listener_gets_the_newest_alone(live: LiveUsage, store: WatchedStore) -> None:
    async with aclosing(live.ticks(ADA, query())) as ticks:
        await anext(ticks)
        for _ in range(50):
            store.entries.append(entry())
            await asyncio.sleep(INTERVAL_S)
        await asyncio.sleep(INTERVAL_S)
        assert used(await following(ticks)) == [0, 0, 50]
        await cancelled(await silent(ticks, INTERVAL_S))


async def test_the_last_to_leave_ends_a_look_that_hangs(live: LiveUsage, store: WatchedStore) -> None:
    store.free.clear()
    ticks = live.ticks(ADA, query())
    await cancelled(await silent(ticks, 60))
    assert (store.looks, store.looking) == (1, 0)
    store.free.set()
    async with aclosing(live.ticks(ADA, query())) as again:
        assert used(await following(again)) == [0, 0, 0]


async def test_looks_neither_pile_up_nor_run_side_by_side(live: LiveUsage, store: WatchedStore) -> None:
    async with AsyncExitStack() as stack:
        for last in range(1, 6):
            ticks = await stack.enter_async_context(aclosing(live.ticks(ADA, query(last=last))))
            await anext(ticks)
        looks = store.looks
        store.free.clear()
        await asyncio.sleep(100)
        assert (store.looks, store.looking) == (looks + 1, 1), "one at a time, and it takes as long as it takes"
        store.free.set()
        await idle()
        assert (store.looks, store.most) == (looks + 5, 1)
        await asyncio.sleep(INTERVAL_S / 2)
        assert store.looks == looks + 5, "the next come an interval after the end of the last"


async def test_another_organisation_does_not_wait(live: LiveUsage, store: WatchedStore) -> None:
    async with aclosing(live.ticks(ADA, query())) as one, aclosing(live.ticks(EVE, query())) as two:
        store.free.clear()
        waiting = [await silent(one, 1), await silent(two, 1)]
        assert store.looking == 2
        store.free.set()
        await asyncio.wait(waiting)


async def test_a_ledger_that_is_down_brings_silence_and_no_end(live: LiveUsage, store: WatchedStore) -> None:
    store.down = True
    async with aclosing(live.ticks(ADA, query())) as ticks:
        waiting = await silent(ticks, 600)
        store.down = False
        assert used(await waiting) == [0, 0, 0]
        store.down = True
        waiting = await silent(ticks, 600)
        store.entries.append(entry())
        store.down = False
        assert used(await waiting) == [0, 0, 1]


async def test_a_defect_ends_it_for_all_and_not_for_good(live: LiveUsage, store: WatchedStore) -> None:
    async with aclosing(live.ticks(ADA, query())) as one, aclosing(live.ticks(BOB, query())) as two:
        await anext(one)
        await anext(two)
        store.defect = ZeroDivisionError("ours")
        for each in (one, two):
            with pytest.raises(ZeroDivisionError):
                await anext(each)
            store.defect = None
            async with aclosing(live.ticks(ADA, query())) as again:
                assert used(await following(again)) == [0, 0, 0]


async def test_groups_may_become_too_many(live: LiveUsage, store: WatchedStore) -> None:
    by_user = query(last=MAX_BUCKETS, group_by=(UsageField.END_USER,))
    async with aclosing(live.ticks(ADA, by_user)) as ticks:
        await anext(ticks)
        store.entries = [entry(end_user=f"u{n}") for n in range(MAX_CELLS // MAX_BUCKETS + 1)]
        with pytest.raises(BadUserInputError) as caught:
            await anext(ticks)
    assert caught.value.path == ("input", "bucket")


async def test_it_ends_with_the_token(live: LiveUsage, store: WatchedStore) -> None:
    async with (
        aclosing(live.ticks(replace(ADA, expires_at=NOON.timestamp() + 60), query())) as short,
        aclosing(live.ticks(ADA, query())) as long,
    ):
        await anext(short)
        with pytest.raises(UnauthenticatedError):
            await exhausted(short)
        assert 60 <= asyncio.get_running_loop().time() <= 60 + HEARTBEAT_S + INTERVAL_S
        await anext(long)
        await anext(long)


async def test_an_organisation_has_only_so_many(live: LiveUsage, store: WatchedStore) -> None:
    async with AsyncExitStack() as stack:
        queries = [query(last=last) for last in range(1, MAX_QUERIES_OF_ONE + 1)]
        for each in queries:
            await anext(await stack.enter_async_context(aclosing(live.ticks(ADA, each))))
        with pytest.raises(RateLimitedError):
            await anext(live.ticks(BOB, query(last=MAX_BUCKETS)))
        async with aclosing(live.ticks(BOB, queries[7])) as shared, aclosing(live.ticks(EVE, query())) as other:
            await anext(shared)
            await anext(other)
    async with aclosing(live.ticks(BOB, query(last=MAX_BUCKETS))) as ticks:
        await anext(ticks)


async def test_a_process_has_only_so_many(
    live: LiveUsage, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_usage, "MAX_QUERIES", 1)
    async with aclosing(live.ticks(ADA, query())) as ticks:
        await anext(ticks)
        with pytest.raises(ServiceUnavailableError):
            await anext(live.ticks(EVE, query()))


async def test_whoever_still_listens_at_the_end_is_told(ledger: Ledger, store: WatchedStore) -> None:
    before = other_tasks()
    async with open_live_usage(ledger, now) as live:
        ticks = live.ticks(ADA, query())
        await anext(ticks)
        waiting = await silent(ticks, 1)
    with pytest.raises(ServiceUnavailableError):
        await waiting
    assert other_tasks() == before


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"last": 0}, ("input", "last")),
        ({"last": MAX_BUCKETS + 1}, ("input", "last")),
        ({"interval_ms": 999}, ("input", "intervalMs")),
        ({"interval_ms": 60_001}, ("input", "intervalMs")),
        ({"time_zone": "Europe/Nowhere"}, ("input", "timeZone")),
        ({"group_by": (LabelName(""),)}, ("input", "groupBy", 0, "label")),
    ],
)
async def test_what_cannot_be_asked(
    live: LiveUsage, store: WatchedStore, changes: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await anext(live.ticks(ADA, query(**changes)))
    assert caught.value.path == path
    assert store.looks == 0


LORD_HOWE = "Australia/Lord_Howe"  # half an hour more in summer
CHANGES = [datetime(2026, 4, 4, 15, 0, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC)]


@given(
    moment=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    last=st.integers(1, MAX_BUCKETS),
    bucket=st.sampled_from(Bucket),
    zone=st.sampled_from(["UTC", "Asia/Kolkata", LORD_HOWE, "Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"]),
)
@example(CHANGES[0], 1, Bucket.HOUR, LORD_HOWE)
@example(CHANGES[1], 1, Bucket.HOUR, LORD_HOWE)
@example(CHANGES[1] + timedelta(minutes=10), 1, Bucket.HOUR, LORD_HOWE)
async def test_the_present_bucket_is_the_last_of_as_many_as_asked(
    moment: datetime, last: int, bucket: Bucket, zone: str
) -> None:
    asked = latest(LiveQuery(last, bucket, zone), moment)
    assert asked.since <= moment < asked.until
    async with open_ledger(MemoryStore(), MemoryInflight()) as ledger:
        report = await usage.report(ledger, ADA, asked)
    assert len(report.buckets) == last
    edges = report.buckets[0].start, report.buckets[-1].start, report.buckets[-1].end
    start, present, end = (edge.astimezone(UTC) for edge in edges)
    assert (start, end) == (asked.since, asked.until)
    assert present <= moment
    assert report.buckets[0].start.tzinfo == ZoneInfo(zone)
