"""From one schema to the next, with a ledger that is filled: every edition takes its entries and its sums along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from persistence.migrations.timescale import HEAD, check, current, migrate
from persistence.records import LedgerEntry, Outcome
from persistence.timescale.engine import open_engine
from persistence.timescale.ledger import open_timescale_ledger
from persistence.timescale.policies import Edition
from persistence.timescale.writing import NAMES, insertion
from persistence.usage_records import LabelName, UsageField, UsageSelection
from tests.persistence.entries import entry
from tests.persistence.usage_fold import folded
from tests.servers.community import running_community
from tests.servers.postgres import Kind, empty_database, rows, shared_postgres

EDITIONS = [*Kind, Edition.COMMUNITY]


@asynccontextmanager
async def empty(kind: Kind | Edition) -> AsyncIterator[str]:
    if isinstance(kind, Kind):
        async with empty_database(shared_postgres(kind)) as url:
            yield url
        return
    with running_community() as server:
        yield server.url


def first_schema(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "persistence:migrations/timescale")
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


async def fill(url: str, entries: list[LedgerEntry]) -> None:
    """As the first schema's release has done it."""
    _, values = insertion(Edition.POSTGRESQL, entries, None)
    connection = await asyncpg.connect(url)
    try:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=str)
        kinds = dict(await connection.fetch(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'ledger_entries'::regclass"
        ))  # fmt: skip
        arrays = ", ".join(f"${n}::{kinds[name]}[]" for n, name in enumerate(NAMES, 1))
        await connection.execute(
            f"INSERT INTO ledger_entries ({', '.join(NAMES)}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING",
            *(values[name] for name in NAMES),
        )
    finally:
        await connection.close()


def history(until: datetime) -> list[LedgerEntry]:
    """Three weeks, with retries and corrections."""
    found: list[LedgerEntry] = []
    for number in range(200):
        first = entry(time=until - timedelta(minutes=number * 151), latency_ms=number**2, model=f"m{number % 3}")
        found.append(replace(first, outcome=Outcome.FAILED, labels={"team": "search"}))
        found.append(replace(first, attempt=2))
        if number % 7 == 0:
            found.append(replace(first, attempt=-1, corrects=2, input_tokens=-5, note="why", config="support"))
    return found


@pytest.mark.parametrize("kind", EDITIONS)
async def test_a_filled_ledger_is_taken_along(kind: Kind | Edition) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    entries = history(now)
    async with empty(kind) as url:
        async with open_engine(url) as engine:
            async with engine.transaction() as connection:
                await connection.run_sync(first_schema)
            await fill(url, entries)
            assert await current(engine) == "0001"
            places = [migrate(url), migrate(url)]
            if kind is Edition.COMMUNITY:  # whose one session is in one place at a time
                await places.pop(0)
            await asyncio.gather(*places)
            assert await current(engine) == HEAD
            await check(engine)
        more = [replace(entries[0], attempt=3), entry(time=now)]
        async with open_timescale_ledger(url) as ledger:
            await ledger.append([*entries, *more])
            found = await ledger.completion("acme", entries[0].completion_id)
            assert list(found) == sorted([*entries[:3], more[0]], key=lambda each: each.attempt)
            midnight = now.replace(hour=0, minute=0, second=0)
            spans = [(midnight - timedelta(days=day), midnight - timedelta(days=day - 1)) for day in range(25, -1, -1)]
            for by in ((UsageField.MODEL, UsageField.OUTCOME), (UsageField.CONFIG,), (LabelName("team"),)):
                asked = UsageSelection(spans, by, max_groups=99)
                sums = {(cell.span, cell.group): cell.sums for cell in await ledger.usage("acme", asked)}
                expected = folded([*entries, *more], "acme", asked)
                assert sums == {(cell.span, cell.group): cell.sums for cell in expected}
        assert await rows(url, "SELECT count(*) FROM ledger_entries") == [(len(entries) + 2,)]
