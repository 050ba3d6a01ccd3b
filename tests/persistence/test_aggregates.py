"""The ledger under TimescaleDB's community licence: what its continuous aggregates say is what the entries say, at any
moment, however late an entry comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from persistence.migrations.timescale import check
from persistence.records import LedgerEntry, Outcome
from persistence.timescale import upkeep
from persistence.timescale.engine import open_engine
from persistence.timescale.ledger import TimescaleLedger, open_timescale_ledger
from persistence.timescale.policies import Edition, Policies
from persistence.timescale.upkeep import keep_up
from persistence.usage_records import Dimension, LabelName, UsageField, UsageSelection
from tests.persistence.entries import entry
from tests.persistence.usage_fold import folded
from tests.servers.community import community_database
from tests.servers.postgres import rows

ROUNDS = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink one would take minutes on this server
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
CALL = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = $1 AND hypertable_name = 'ledger_entries'"


@pytest.fixture
async def database(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Which is kept up when a test says so."""
    monkeypatch.setattr(upkeep.Upkeep, "hurry", lambda self: None)
    async with community_database() as url:
        yield url


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def kept_up(url: str, policies: Policies | None = None) -> None:
    async with open_engine(url, statement_timeout_s=None) as engine:
        await keep_up(engine, await check(engine), policies or Policies())


async def agree(ledger: TimescaleLedger, entries: list[LedgerEntry], *by: Dimension) -> None:
    """Days, and one span without an end on any quarter hour, agree with a plain fold."""
    midnight = now().replace(hour=0, minute=0, second=0)
    days = list(pairwise(midnight + (day - 12) * DAY for day in range(14)))
    for spans in (days, [(midnight - 11 * DAY - HOUR / 7, midnight + DAY)]):
        asked = UsageSelection(spans, by, max_groups=99)
        found = {(cell.span, cell.group): cell.sums for cell in await ledger.usage("acme", asked)}
        assert found == {(cell.span, cell.group): cell.sums for cell in folded(entries, "acme", asked)}


async def run_job(url: str, procedure: str) -> None:
    [(job,)] = await rows(url, CALL, procedure)
    await rows(url, f"CALL run_job({job})")


AGES = st.one_of(st.integers(0, 20), st.integers(25, 300), st.integers(60 * 24, 60 * 24 * 10))
FIGURES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["x", "y"]),
        "outcome": st.sampled_from(Outcome),
        "config": st.sampled_from([None, "support"]),
        "latency_ms": st.sampled_from([0, 7, 512, 10**9]),
        "labels": st.sampled_from([{}, {"team": "search"}]),
    }
)


GROUPS = st.sampled_from([(), (UsageField.MODEL,), (UsageField.CONFIG, UsageField.OUTCOME), (LabelName("team"),)])


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, dict[str, Any], int]]:
    """Attempts: their completion's number, figures and age in minutes; in any order, some of them twice."""
    found = []
    for number in range(draw(st.integers(1, 8))):
        age = draw(AGES)
        for attempt in draw(st.sampled_from([(1,), (0,), (1, 2), (2, 1, 3), (1, -1)])):
            corrects = {"corrects": 1, "settles_cost": True} if attempt < 0 else {}
            found.append((number, draw(FIGURES) | {"attempt": attempt} | corrects, age))
    return list(draw(st.permutations(found + found[:2])))


@ROUNDS
@given(histories(), st.data())
async def test_it_agrees_with_a_plain_fold_at_any_moment(
    database: str, history: list[tuple[int, dict[str, Any], int]], data: st.DataObject
) -> None:
    await rows(database, "TRUNCATE ledger_entries, usage_late, usage_quarters, usage_hours, usage_days")
    began = now()
    firsts = {number: entry(time=began - timedelta(minutes=age)) for number, _, age in history}
    rest = [replace(firsts[number], **changes) for number, changes, _ in history]
    booked: dict[tuple[str, int], LedgerEntry] = {}
    async with open_timescale_ledger(database) as ledger:
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            await ledger.append(rest[:size])
            for each in rest[:size]:
                booked.setdefault((each.completion_id, each.attempt), each)
            rest = rest[size:]
            if data.draw(st.booleans()):
                await kept_up(database)
            by = data.draw(
                st.sampled_from(
                    [(), (UsageField.MODEL,), (UsageField.CONFIG, UsageField.OUTCOME), (LabelName("team"),)]
                )
            )
            await agree(ledger, list(booked.values()), *by)


async def test_sums_are_read_from_the_aggregates_once_they_have_them(database: str) -> None:
    written = [entry(time=now() - age) for age in (2 * HOUR, 3 * DAY, 3 * DAY + HOUR)]
    async with open_timescale_ledger(database) as ledger:
        await ledger.append(written)
        assert len(await rows(database, "SELECT FROM usage_late")) == 3
        await kept_up(database)
        assert await rows(database, "SELECT FROM usage_late") == []
        await rows(database, "TRUNCATE ledger_entries")
        await agree(ledger, written, UsageField.MODEL, UsageField.OUTCOME)


async def test_a_late_entry_hides_nothing_that_is_not_summed_up_yet(database: str) -> None:
    """TimescaleDB reads what lies before an aggregate's newest bucket from it alone, whether or not it was ever summed
    up: entries that came in time, and one after them that came late and was refreshed by itself, would do that."""
    in_time = [entry(time=now() - age) for age in (3 * DAY, 2 * DAY, 5 * HOUR, 3 * HOUR)]
    async with open_timescale_ledger(database) as ledger:
        await ledger.append([entry(time=now() - 9 * DAY)])
        await kept_up(database)
        await rows(database, "TRUNCATE ledger_entries, usage_quarters, usage_hours, usage_days")
        await ledger.append(in_time)
        await rows(database, "TRUNCATE usage_late")  # as they were noted by nobody when they came in time
        late = entry(time=now() - 4 * HOUR)
        await ledger.append([late])
        await agree(ledger, [*in_time, late], UsageField.MODEL)
        await kept_up(database)
        await agree(ledger, [*in_time, late], UsageField.MODEL)
        assert await rows(database, "SELECT FROM usage_late") == []


async def test_one_that_comes_while_its_quarter_is_refreshed_is_not_forgotten(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = now() - 2 * DAY
    day = moment.replace(hour=0, minute=0, second=0)
    first, second = entry(time=moment), entry(time=moment)
    retried = replace(first, attempt=2)
    refresh = upkeep._refresh
    async with open_timescale_ledger(database) as ledger:

        async def refresh_and_be_late(connection: Any, view: str, start: Any, end: datetime) -> None:
            await refresh(connection, view, start, end)
            if (view, start) == ("usage_days", day):
                await ledger.append([second])

        await ledger.append([first])
        await kept_up(database)
        await ledger.append([retried])
        monkeypatch.setattr(upkeep, "_refresh", refresh_and_be_late)
        await kept_up(database)
        assert await rows(database, "SELECT FROM usage_late") == []
        await rows(database, "TRUNCATE ledger_entries")
        await agree(ledger, [first, retried, second], UsageField.MODEL)


async def test_the_task_sees_to_late_entries_by_itself(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    done = asyncio.Event()

    async def keep_up_and_tell(*arguments: Any) -> None:
        await keep_up(*arguments)
        done.set()

    monkeypatch.setattr(upkeep, "keep_up", keep_up_and_tell)
    async with open_timescale_ledger(database) as ledger:
        await ledger.append([entry(time=now() - 2 * DAY)])
        async with asyncio.timeout(30):
            await done.wait()
        assert await rows(database, "SELECT FROM usage_late") == []


async def test_compressed_entries_take_late_ones(database: str) -> None:
    moment = now() - 10 * DAY
    first = entry(time=moment)
    async with open_timescale_ledger(database) as ledger:
        await ledger.append([first, *(entry(time=moment + n * HOUR) for n in range(3))])
        written = list(await ledger.completion("acme", first.completion_id))
        await kept_up(database, Policies(compress_after=DAY))
        await run_job(database, "policy_compression")
        compressed = (
            "SELECT FROM timescaledb_information.chunks WHERE is_compressed AND hypertable_name = 'ledger_entries'"
        )
        assert await rows(database, compressed)
        second, other = replace(first, attempt=2), entry(time=moment)
        await ledger.append([first, second, other])
        assert list(await ledger.completion("acme", first.completion_id)) == [*written, second]
        totals = await ledger.usage("acme", UsageSelection([(moment - HOUR, moment + DAY)]))
        assert (totals[0].sums.attempts, totals[0].sums.completions) == (6, 5)
        await kept_up(database, Policies(compress_after=DAY))
        totals = await ledger.usage("acme", UsageSelection([(moment - HOUR, moment + DAY)]))
        assert (totals[0].sums.attempts, totals[0].sums.completions) == (6, 5)


async def configured(url: str) -> dict[str, str]:
    found = await rows(
        url,
        "SELECT proc_name, coalesce(config ->> 'drop_after', config ->> 'compress_after') "
        "FROM timescaledb_information.jobs WHERE hypertable_name = 'ledger_entries'",
    )
    return dict(found)


async def test_policies_are_as_the_settings_say(database: str) -> None:
    async with open_engine(database) as engine:
        assert await check(engine) is Edition.COMMUNITY
    for kept, compressed in ((90, 14), (30, 7), (30, 7)):
        await kept_up(database, Policies(kept * DAY, compressed * DAY))
        assert await configured(database) == {
            "policy_retention": f"{kept + 1} days",
            "policy_compression": f"{compressed} days",
        }
    await kept_up(database, Policies(None, None))
    assert await configured(database) == {}
    refreshed = await rows(
        database, "SELECT config ->> 'start_offset' FROM timescaledb_information.jobs WHERE proc_name ~ 'refresh'"
    )
    assert refreshed == [("4 days",)] * 3


async def test_retention_drops_entries_and_keeps_sums(database: str) -> None:
    policies = Policies(retention=10 * DAY)
    old, young = [entry(time=now() - age) for age in (25 * DAY, 2 * DAY)]
    async with open_timescale_ledger(database) as before:
        await before.append([old, young])
    await kept_up(database, policies)
    await run_job(database, "policy_retention")
    async with open_timescale_ledger(database, policies=policies) as ledger:
        assert await ledger.completion("acme", old.completion_id) == []
        assert list(await ledger.completion("acme", young.completion_id)) == [young]
        await ledger.append([entry(time=now() - 9 * DAY)])
        await kept_up(database, policies)
        midnight = now().replace(hour=0, minute=0, second=0)
        [cell] = await ledger.usage("acme", UsageSelection([(midnight - 30 * DAY, midnight + DAY)]))
        assert (cell.sums.attempts, cell.sums.completions) == (3, 3)
