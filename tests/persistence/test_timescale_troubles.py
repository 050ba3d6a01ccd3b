"""The ledger's server refuses, or answers nothing: what goes on, and what ends in time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from persistence.inflight import open_inflight_log
from persistence.migrations.timescale import check
from persistence.timescale import upkeep
from persistence.timescale.address import dsn
from persistence.timescale.engine import open_engine, rows_of
from persistence.timescale.ledger import open_timescale_ledger
from persistence.timescale.policies import Edition, Policies
from persistence.timescale.writing import insertion
from resolvers.audit import AuditLog
from resolvers.corrections import CorrectCommand, Tokens, correct
from resolvers.ledger import open_ledger
from resolvers.principal import Principal
from tests.persistence.audit import MemoryAuditLog
from tests.persistence.entries import entry
from tests.servers.postgres import migrated_database, rows, running_postgres, shared_postgres

TEN_DAYS = Policies(retention=timedelta(days=10))
_HOLD = """CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'held' USING ERRCODE = '23503'; END $$"""
_HELD = "CREATE TRIGGER hold BEFORE DELETE ON ledger_entries FOR EACH ROW EXECUTE FUNCTION hold()"


def ago(**ages: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**ages)


async def test_upkeep_goes_on_after_what_the_database_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator's own rule on a table may."""
    monkeypatch.setattr(upkeep, "INTERVAL_S", 0.05)
    monkeypatch.setattr(upkeep, "GAP_S", 0.05)
    async with migrated_database(shared_postgres()) as url:
        async with open_timescale_ledger(url) as store:
            await store.append([entry(time=ago(days=40))])
        await rows(url, _HOLD)
        await rows(url, _HELD)
        tried = asyncio.Event()

        async def checked(engine: object) -> object:
            tried.set()
            return await check(engine)  # type: ignore[arg-type]

        async with open_engine(url) as engine, upkeep.running_upkeep(engine, TEN_DAYS, checked):  # type: ignore[arg-type]
            async with asyncio.timeout(20):
                await tried.wait()
                tried.clear()
                await tried.wait()  # a second time: the first was refused
                await rows(url, "DROP TRIGGER hold ON ledger_entries")
                while await rows(url, "SELECT 1 FROM ledger_entries"):  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.05)


async def test_closing_waits_for_no_server_that_answers_nothing() -> None:
    with running_postgres() as postgres:
        async with migrated_database(postgres) as url:
            opened = open_timescale_ledger(url)
            store = await opened.__aenter__()
            await store.append([entry()])
            await store.look()
            await store.completion("acme", "x")
            began = time.monotonic()
            with postgres.frozen():
                await opened.__aexit__(None, None, None)
            assert time.monotonic() - began < 10


async def test_a_correction_of_what_is_about_to_go_is_booked(tmp_path: Path) -> None:
    """Its entry is past the retention, and is there still."""
    old = entry(time=ago(days=10, hours=12))
    async with migrated_database(shared_postgres()) as url:
        async with open_timescale_ledger(url) as store:
            await store.append([old])
        async with open_timescale_ledger(url, policies=TEN_DAYS) as store:
            with open_inflight_log(tmp_path) as log:
                async with open_ledger(store, log) as ledger:
                    who = Principal("p", "acme", frozenset(), 9e9)
                    command = CorrectCommand(old.completion_id, 1, "n", Tokens(input_tokens=5))
                    await correct(ledger, AuditLog(MemoryAuditLog()), who, command)
        assert await rows(url, "SELECT attempt < 0 FROM ledger_entries ORDER BY attempt") == [(True,), (False,)]
        assert await rows(url, "SELECT 1 FROM ledger_parked") == []


@pytest.mark.parametrize("batches", [[(1, 2)], [(2,), (1,)]])
async def test_what_was_given_up_and_went_on_leaves_one_last_attempt(batches: list[tuple[int, ...]]) -> None:
    """By the community edition's statement, beside the one before, which the server has not ended."""
    first = entry(time=ago(seconds=5))
    async with migrated_database(shared_postgres()) as url, open_engine(url, pool_size=3) as engine:
        for made in (
            "DROP TRIGGER usage_counted ON ledger_entries",
            "ALTER TABLE ledger_entries ADD COLUMN ends boolean NOT NULL DEFAULT false",
            "CREATE TABLE usage_late (slot timestamptz PRIMARY KEY, version bigint NOT NULL)",
        ):
            await rows(url, made)
        async with engine.transaction() as given_up:
            await rows_of(given_up, *insertion(Edition.COMMUNITY, [first], None))
            later, *again = [[replace(first, attempt=attempt) for attempt in batch] for batch in batches]
            writing = asyncio.create_task(engine.run(*insertion(Edition.COMMUNITY, later, None)))
            await asyncio.sleep(0.2)  # it waits for the one before, or is done without having seen it
        await writing
        for batch in again:
            await engine.run(*insertion(Edition.COMMUNITY, batch, None))
        assert await rows(url, "SELECT attempt, ends FROM ledger_entries ORDER BY 1") == [(1, False), (2, True)]


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_host_that_can_be_none_is_no_address(host: str) -> None:
    with pytest.raises(ValueError, match="is not an address") as caught:
        dsn(f"postgresql://u:hunter2@{host}/db")
    assert "hunter2" not in str(caught.value)
