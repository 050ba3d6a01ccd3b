"""How long entries are kept where TimescaleDB has no policies for it: on plain PostgreSQL and on its Apache edition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from persistence.migrations.timescale import check, migrate
from persistence.ports import StoreUnavailableError
from persistence.timescale import upkeep
from persistence.timescale.engine import open_engine
from persistence.timescale.ledger import open_timescale_ledger
from persistence.timescale.policies import Edition, Policies
from persistence.timescale.upkeep import keep_up
from persistence.usage_records import UsageSelection
from tests.persistence.entries import entry
from tests.servers.community import community_database
from tests.servers.postgres import Kind, migrated_database, rows, shared_postgres

DAY = timedelta(days=1)
TEN_DAYS = Policies(retention=10 * DAY)


@pytest.fixture(params=list(Kind))
async def database(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    async with migrated_database(shared_postgres(request.param)) as url:
        yield url


@pytest.fixture(params=[*Kind, Edition.COMMUNITY])
async def any_database(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    opened = (
        community_database()
        if request.param is Edition.COMMUNITY
        else migrated_database(shared_postgres(request.param))
    )
    async with opened as url:
        yield url


def ago(age: timedelta) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - age


async def kept_up(url: str) -> None:
    async with open_engine(url, statement_timeout_s=None) as engine:
        await keep_up(engine, await check(engine), TEN_DAYS)


async def times(url: str) -> list[datetime]:
    return [time for (time,) in await rows(url, "SELECT time FROM ledger_entries ORDER BY time")]


async def test_what_is_too_old_goes_and_its_sums_stay(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_DELETED_AT_ONCE", 3)
    old = [entry(time=ago(40 * DAY)) for _ in range(7)]
    young = [entry(time=ago(age)) for age in (2 * DAY, timedelta())]
    async with open_timescale_ledger(database) as ledger:
        await ledger.append(old + young)
        await kept_up(database)
        assert await times(database) == [each.time for each in young]
        [cell] = await ledger.usage("acme", UsageSelection([(ago(50 * DAY).replace(hour=0, minute=0), ago(-DAY))]))
        assert (cell.sums.attempts, cell.sums.completions) == (9, 9)


async def test_migrate_drops_as_a_server_does(database: str) -> None:
    async with open_timescale_ledger(database) as ledger:
        await ledger.append([entry(time=ago(40 * DAY))])
    await migrate(database)
    assert len(await times(database)) == 1
    await migrate(database, TEN_DAYS)
    assert await times(database) == []


async def test_one_process_of_all_keeps_up(database: str) -> None:
    async with open_timescale_ledger(database) as ledger:
        await ledger.append([entry(time=ago(40 * DAY))])
    async with open_engine(database) as other, other.session() as connection:
        await connection.execute(upkeep._TRY_LOCK, {"lock": upkeep._LOCK})
        await kept_up(database)
        assert len(await times(database)) == 1
        await connection.execute(upkeep._UNLOCK, {"lock": upkeep._LOCK})
    await kept_up(database)
    assert await times(database) == []


async def test_a_round_that_fails_leaves_no_lock(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise TimeoutError

    async with open_engine(database) as one:
        edition = await check(one)
        with monkeypatch.context() as patched:
            patched.setattr(upkeep, "_drop", fail)
            with pytest.raises(StoreUnavailableError, match="TimeoutError"):
                await keep_up(one, edition, TEN_DAYS)
        async with open_timescale_ledger(database) as ledger:
            await ledger.append([entry(time=ago(40 * DAY))])
        await kept_up(database)
        assert await times(database) == []


async def test_what_comes_too_late_is_parked_and_told(any_database: str) -> None:
    """Never dropped in silence; and never parked where it is booked already."""
    booked, old, young = entry(time=ago(30 * DAY)), entry(time=ago(30 * DAY)), entry(time=ago(9 * DAY))
    async with open_timescale_ledger(any_database) as before:
        await before.append([booked])
    async with open_timescale_ledger(any_database, policies=TEN_DAYS) as ledger:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                await ledger.append([booked, old, young])
        [told] = [line for line in logs if line["log_level"] == "warning"]
        assert (told["entries"], told["table"]) == (1, "ledger_parked")
        assert await ledger.completion("acme", old.completion_id) == []
        assert list(await ledger.completion("acme", young.completion_id)) == [young]
    [(parked, tokens, recent)] = await rows(
        any_database, "SELECT completion_id, input_tokens, parked_at > now() - interval '1 hour' FROM ledger_parked"
    )
    assert (parked, tokens, recent) == (old.completion_id, old.input_tokens, True)


@pytest.mark.parametrize("kind", [*Kind, Edition.COMMUNITY])
async def test_each_server_is_what_it_says(kind: Kind | Edition) -> None:
    """And the ledger's primary key is the same on all."""
    expected = {Kind.APACHE: Edition.APACHE, Edition.COMMUNITY: Edition.COMMUNITY}.get(kind, Edition.POSTGRESQL)
    opened = community_database() if kind is Edition.COMMUNITY else migrated_database(shared_postgres(Kind(kind)))
    async with opened as url:
        async with open_engine(url) as engine:
            assert await check(engine) is expected
        key = "FROM pg_index WHERE indrelid = 'ledger_entries'::regclass AND indisprimary"
        [(definition,)] = await rows(url, f"SELECT pg_get_indexdef(indexrelid) {key}")
        assert '("time", completion_id, attempt)' in definition
        if expected is not Edition.POSTGRESQL:
            hypertables = "SELECT FROM timescaledb_information.hypertables WHERE hypertable_name = 'ledger_entries'"
            assert len(await rows(url, hypertables)) == 1
            [(licence,)] = await rows(url, "SELECT current_setting('timescaledb.license')")
            assert licence == ("apache" if expected is Edition.APACHE else "timescale")


@pytest.mark.parametrize("days", [-1, 0, 1, 4])
def test_retention_must_not_cut_into_the_refresh_window(days: int) -> None:
    with pytest.raises(ValueError, match="for 5 days or more: sums are refreshed from those of the last 4"):
        Policies(retention=timedelta(days=days))
    assert Policies(retention=5 * DAY).retention == 5 * DAY
