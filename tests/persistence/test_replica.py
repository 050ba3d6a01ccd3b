"""Reports from a real streaming replica: while it keeps up, and when it is behind, frozen, killed or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from persistence.ports import StoreUnavailableError
from persistence.records import CompletionFilter
from persistence.timescale.ledger import TimescaleLedger, open_timescale_ledger
from persistence.timescale.replica import WATCH_INTERVAL_S, Lag
from persistence.usage_records import UsageSelection
from tests.persistence.entries import NOON, entry
from tests.servers.postgres import (
    PASSWORD,
    Postgres,
    migrated_database,
    rows,
    running_postgres,
    running_replica,
)

DAY = UsageSelection([(NOON - timedelta(hours=12), NOON + timedelta(hours=12))])


@pytest.fixture(scope="module")
def primary() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def replica(primary: Postgres) -> Iterator[Postgres]:
    with running_replica(primary) as server:
        yield server


@pytest.fixture
async def url(primary: Postgres, replica: Postgres) -> AsyncIterator[str]:
    async with migrated_database(primary) as url:
        yield url


def beside(url: str, replica: Postgres) -> str:
    return replica.url(url.rpartition("/")[2].partition("?")[0])


async def booked(ledger: TimescaleLedger) -> int:
    return sum(cell.sums.attempts for cell in await ledger.usage("acme", DAY))


async def until(said: str, logs: list[Any]) -> None:
    """The watcher has said this last."""
    async with asyncio.timeout(20):
        while not logs or said not in f"{logs[-1]['event']} {logs[-1].get('reason')}":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(url: str, replica_url: str, max_lag_s: float = 60) -> AsyncIterator[tuple[TimescaleLedger, list[Any]]]:
    with structlog.testing.capture_logs() as logs:
        async with open_timescale_ledger(url, replica_url=replica_url, max_lag_s=max_lag_s) as ledger:
            yield ledger, logs
    assert PASSWORD not in str(logs)


@asynccontextmanager
async def paused(replica: Postgres) -> AsyncIterator[None]:
    await rows(replica.url(), "SELECT pg_wal_replay_pause()")
    try:
        async with asyncio.timeout(10):
            while await rows(replica.url(), "SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
                pass
        yield
    finally:
        await rows(replica.url(), "SELECT pg_wal_replay_resume()")


async def caught_up(primary: Postgres, replica: Postgres) -> None:
    [(position,)] = await rows(primary.url(), "SELECT pg_current_wal_lsn()::text")
    async with asyncio.timeout(20):
        while await rows(replica.url(), f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn") != [(True,)]:
            pass


async def test_reports_and_lists_are_the_replica_s_and_single_completions_the_primary_s(
    url: str, primary: Postgres, replica: Postgres
) -> None:
    async with opened(url, beside(url, replica)) as (ledger, logs):
        await ledger.append([entry()])
        await caught_up(primary, replica)
        await until("from the replica", logs)
        async with paused(replica):
            new = entry(idempotency_key="once")
            await ledger.append([new])
            assert await booked(ledger) == 1
            assert len(await ledger.completions("acme", where=CompletionFilter(), limit=9)) == 1
            assert list(await ledger.completion("acme", new.completion_id)) == [new]
            assert list(await ledger.completion_by_key("acme", "once")) == [new]
        await caught_up(primary, replica)
        assert await booked(ledger) == 2


async def test_one_that_is_behind_is_passed_over_until_it_has_caught_up(
    url: str, primary: Postgres, replica: Postgres
) -> None:
    async with opened(url, beside(url, replica), max_lag_s=1) as (ledger, logs):
        await caught_up(primary, replica)
        await until("from the replica", logs)
        async with paused(replica):
            await ledger.append([entry()])
            await until("is behind", logs)
            assert await booked(ledger) == 1
        await until("from the replica", logs)
        assert await booked(ledger) == 1


async def test_one_that_is_killed_or_frozen_is_not_waited_for(url: str, primary: Postgres, replica: Postgres) -> None:
    async with opened(url, beside(url, replica)) as (ledger, logs):
        await ledger.append([entry()])
        await caught_up(primary, replica)
        await until("from the replica", logs)
        replica.kill()
        assert await booked(ledger) == 1
        await until("from the primary", logs)
        replica.start()
        await until("from the replica", logs)
        with replica.frozen():
            async with asyncio.timeout(10):  # and not the fifteen seconds that a statement may take
                assert await booked(ledger) == 1
        await until("from the replica", logs)
        assert await booked(ledger) == 1


async def test_without_its_primary_it_goes_on(primary: Postgres, replica: Postgres, url: str) -> None:
    async with opened(url, beside(url, replica), max_lag_s=1) as (ledger, logs):
        await ledger.append([entry()])
        await caught_up(primary, replica)
        await until("from the replica", logs)
        primary.stop()
        try:
            with pytest.raises(StoreUnavailableError):
                await ledger.append([entry()])
            for _ in range(3):
                assert await booked(ledger) == 1
                await asyncio.sleep(2 * WATCH_INTERVAL_S)
        finally:
            primary.start()
        await ledger.append([entry()])


@pytest.mark.parametrize("change", ["password", "port", "primary"])
async def test_one_that_is_none_is_passed_over(url: str, replica: Postgres, change: str) -> None:
    changed = {
        "password": beside(url, replica).replace(PASSWORD, "wrong"),
        "port": beside(url, replica).replace(f":{replica.port}/", ":1/"),
        "primary": url,
    }
    async with opened(url, changed[change]) as (ledger, logs):
        await ledger.append([entry()])
        assert await booked(ledger) == 1
        await until("from the primary", logs)
        assert await booked(ledger) == 1


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), max_size=60))
def test_the_lag_is_since_when_something_was_not_replayed(steps: list[tuple[int, int]]) -> None:
    """Against the plain definition: the oldest position that is written and not replayed."""
    lag, written, position, replayed = Lag(3.0), [], 0, 0
    for number, (more, caught) in enumerate(steps):
        at = number * WATCH_INTERVAL_S
        position += more
        replayed = min(position, replayed + caught)
        lag.write(at, position)
        written.append((at, position))
        missing = [when for when, reached in written if reached > replayed]
        assert lag.is_too_long(at, replayed) is (bool(missing) and at - missing[0] > 3.0)
