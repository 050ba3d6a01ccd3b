"""The buckets of what callers may spend: in one process, and between several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.ports import StoreUnavailableError
from resolvers import query_costs, shared_costs
from resolvers.errors import RateLimitedError
from resolvers.query_costs import TURN_S, CostBuckets, Meter, Throttle
from resolvers.shared_costs import sharing_costs

ANNA, BOB = ("acme", "anna"), ("acme", "bob")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_taken_comes_back_at_the_rate() -> None:
    clock = Clock()
    buckets = CostBuckets(100, 10, clock)
    buckets.take(ANNA, 100)
    assert buckets.throttle(ANNA) == Throttle(100, 0, 10)
    clock.now += 2.5
    assert buckets.throttle(ANNA) == Throttle(100, 25, 10)
    clock.now += 60
    assert buckets.throttle(ANNA) == Throttle(100, 100, 10)
    assert buckets.throttle(BOB) == Throttle(100, 100, 10)


def test_what_is_refused_takes_nothing_and_says_when_to_ask_again() -> None:
    clock = Clock()
    buckets = CostBuckets(100, 10, clock)
    buckets.take(ANNA, 90)
    with pytest.raises(RateLimitedError, match="costs 30 points, and 10 of 100 are left; 10 a second") as caught:
        buckets.take(ANNA, 30)
    assert caught.value.retry_after_ms == 2_000
    assert buckets.throttle(ANNA).currently_available == 10
    clock.now += 2
    buckets.take(ANNA, 30)


async def work_amiss(meter: Meter, worked: Clock) -> None:
    with meter.working():
        worked.now += 2**-9
        raise ValueError("amiss")


async def test_work_is_paid_as_it_is_done_and_leaves_half_to_other_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    worked, loop = Clock(), asyncio.get_running_loop()
    monkeypatch.setattr(query_costs, "thread_time", worked)
    buckets = CostBuckets(100, 10, loop.time)
    meter = Meter(buckets, ANNA)

    async def work(seconds: float) -> None:
        with meter.working():
            worked.now += seconds
        worked.now += 60  # of others
        await meter.turn()

    for _ in range(3):
        await work(2**-10)  # which is 9.8 points
    assert (loop.time(), buckets.throttle(ANNA).currently_available) == (0.0, 70), "there is more than half"
    await work(TURN_S / 2)
    assert (loop.time(), buckets.throttle(ANNA).currently_available) == (0.0, 70), "it is paid in pieces"
    await work(2**-6)
    assert loop.time() == pytest.approx((3 * 2**-10 + 2**-6 + TURN_S / 2) * 1_000 - 5)
    assert buckets.throttle(ANNA).currently_available == pytest.approx(50, abs=1)
    with pytest.raises(ValueError, match="amiss"):
        await work_amiss(meter, worked)
    meter.pay()
    assert buckets.throttle(ANNA).currently_available == pytest.approx(30, abs=1)
    await Meter(None, ANNA).turn()


def test_what_was_not_needed_is_given_back_and_what_was_needed_beyond_is_owed() -> None:
    buckets = CostBuckets(100, 10, Clock())
    buckets.take(ANNA, 50)
    buckets.add(ANNA, -40)
    assert buckets.throttle(ANNA).currently_available == 90
    buckets.add(ANNA, 300)
    assert buckets.throttle(ANNA).currently_available == 0
    with pytest.raises(RateLimitedError) as caught:
        buckets.take(ANNA, 1)
    assert caught.value.retry_after_ms == 21_100


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 100)), max_size=60))
def test_never_more_is_let_through_than_the_bucket_and_what_came_back(asked: list[tuple[float, int]]) -> None:
    clock = Clock()
    buckets = CostBuckets(100, 10, clock)
    taken = 0
    for pause_s, points in asked:
        clock.now += pause_s
        try:
            buckets.take(ANNA, points)
        except RateLimitedError as error:
            clock.now += (error.retry_after_ms or 0) / 1000 + 1e-9
            buckets.take(ANNA, points)
        taken += points
        assert taken <= 100 + clock.now * 10 + 1e-6


def test_buckets_are_bounded_and_the_longest_unused_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_costs, "MAX_BUCKETS", 2)
    buckets = CostBuckets(100, 10, Clock())
    for name in ("a", "b", "a", "c"):
        buckets.take(("acme", name), 10)
    assert len(buckets) == 2
    assert buckets.throttle(("acme", "a")).currently_available == 80
    assert buckets.throttle(("acme", "b")).currently_available == 100


@dataclass
class Channel:
    """`persistence.ports.Events` in memory."""

    listeners: list[asyncio.Queue[str]] = field(default_factory=list)
    away: bool = False
    sent: int = 0

    async def publish(self, channel: str, message: str) -> None:
        if self.away:
            raise StoreUnavailableError("away")
        self.sent += 1
        for listener in self.listeners:
            listener.put_nowait(message)

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncGenerator[str, None]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self.listeners.append(queue)

        async def messages() -> AsyncGenerator[str, None]:
            while True:
                yield await queue.get()

        yield messages()


async def _until(buckets: CostBuckets, left: int) -> None:
    async with asyncio.timeout(20):
        while buckets.throttle(ANNA).currently_available != left:  # noqa: ASYNC110  # it is another task's to change
            await asyncio.sleep(0.005)


async def test_what_is_spent_in_one_process_counts_in_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_costs, "INTERVAL_S", 0.01)
    channel, clock = Channel(), Clock()
    first, second, third = (CostBuckets(100, 10, clock) for _ in range(3))
    async with AsyncExitStack() as stack:
        for each in (first, second, third):
            await stack.enter_async_context(sharing_costs(channel, each))
        for _ in range(10):
            first.take(ANNA, 5)
        first.add(ANNA, -10)
        second.take(ANNA, 20)
        for each in (first, second, third):
            await _until(each, 40)
        with pytest.raises(RateLimitedError):
            third.take(ANNA, 41)
        assert channel.sent <= 4, "many operations are told of together"
        channel.away = True
        first.take(ANNA, 10)
        second.take(ANNA, 40)
        assert (first.throttle(ANNA).currently_available, second.throttle(ANNA).currently_available) == (30, 0)
