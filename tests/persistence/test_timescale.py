"""The ledger on a real PostgreSQL: its rollup, its schema, and what it says and does when the server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from persistence.histograms import LONGEST_MS, bin_of
from persistence.migrations.timescale import HEAD, SchemaVersionError, migrate
from persistence.ports import StoreUnavailableError
from persistence.records import CompletionFilter, LedgerEntry, Outcome
from persistence.timescale import usage
from persistence.timescale.address import dsn
from persistence.timescale.engine import GRACE_S, open_engine
from persistence.timescale.ledger import TimescaleLedger, open_timescale_ledger
from persistence.timescale.texts import NOTHING, plain, stored
from persistence.timescale.usage_plan import DAYS, HOURS, QUARTERS, plan
from persistence.usage_records import LabelName, UsageField, UsageFilter, UsageSelection
from tests.persistence.entries import NOON, at, entry
from tests.persistence.usage_fold import folded
from tests.servers.postgres import (
    PASSWORD,
    Postgres,
    empty_database,
    migrated_database,
    rows,
    running_postgres,
    shared_postgres,
)

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ~ 'test_'"
SLEEPING = "SELECT 1 FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND state = 'active' AND pid <> pg_backend_pid()"
MONTH = [(NOON - timedelta(days=15), NOON + timedelta(days=15))]


@pytest.fixture
async def database() -> AsyncIterator[str]:
    async with migrated_database(shared_postgres()) as url:
        yield url


@pytest.fixture
async def nothing() -> AsyncIterator[str]:
    async with empty_database(shared_postgres()) as url:
        yield url


@given(st.text())
def test_every_text_can_be_stored(text: str) -> None:
    assert plain(stored(text)) == text
    assert "\x00" not in stored(text)
    assert NOTHING not in stored(text)


@given(st.text("\x00\ue000\ue001\ue002a"), st.text("\x00\ue000\ue001\ue002a"))
def test_two_texts_are_never_stored_alike(one: str, other: str) -> None:
    assert (stored(one) == stored(other)) is (one == other)


async def test_the_server_has_the_bins(database: str) -> None:
    durations = [*range(60), *(10**power + step for power in range(2, 12) for step in (-1, 0, 1)), LONGEST_MS * 5]
    found = await rows(
        database,
        "SELECT length(usage_lane(d)::text) - 1, usage_lane(d)::text FROM unnest($1::bigint[]) AS d",
        durations,
    )
    assert [digits for digits, _ in found] == [12 * bin_of(each) for each in durations]
    assert all(text.strip("0") == "1" for _, text in found)


SPANS = st.integers(0, 4 * 24 * 3600).map(lambda seconds: NOON + timedelta(seconds=seconds))


LATE = st.lists(st.integers(0, 400).map(lambda number: NOON + number * QUARTERS.width), max_size=12, unique=True)


@given(SPANS, SPANS, st.sampled_from([(UsageField.MODEL,), (UsageField.CONFIG,), (UsageField.END_USER,), ()]), LATE)
def test_a_plan_covers_its_spans_once(
    since: datetime, until: datetime, group_by: tuple[UsageField, ...], late: list[datetime]
) -> None:
    pieces = plan(UsageSelection([(since, until)], group_by), sorted(late))
    edges = [edge for piece in pieces for edge in (piece.start, piece.end)]
    assert edges == sorted(edges)
    assert edges[1:-1:2] == edges[2::2], "no gap, no overlap"
    assert (edges[:1] + edges[-1:]) == ([since, until] if since < until else [])
    for piece in pieces:
        if piece.tier is not None:
            assert piece.tier.floor(piece.start) == piece.start == piece.tier.ceiling(piece.start)
            assert piece.tier.floor(piece.end) == piece.end
            assert not any(piece.start <= slot < piece.end for slot in late), "what is behind is read by entries"


def test_a_month_by_model_is_read_from_days_and_by_config_from_quarters() -> None:
    assert [piece.tier for piece in plan(UsageSelection(MONTH, (UsageField.MODEL,)))] == [HOURS, DAYS, HOURS]
    assert [piece.tier for piece in plan(UsageSelection(MONTH, (UsageField.CONFIG,)))] == [QUARTERS]
    assert [piece.tier for piece in plan(UsageSelection(MONTH, (LabelName("a"),)))] == [None]
    assert [piece.tier for piece in plan(UsageSelection(MONTH, where=UsageFilter(labels=[("a", "b")])))] == [None]


async def test_every_tier_agrees_with_the_entries(database: str) -> None:
    """Attempts that come in any order, in many statements, at once: each tier ends as one fold over all of them."""
    start = NOON - timedelta(days=2)
    entries: list[LedgerEntry] = []
    for number in range(120):
        first = entry(time=start + timedelta(minutes=number * 37), latency_ms=number**3, model=f"m{number % 3}")
        entries += [replace(first, attempt=n, outcome=Outcome.FAILED if n < 2 else first.outcome) for n in (1, 2, 3)]
    shuffled = sorted(entries, key=lambda each: hash((each.completion_id, each.attempt)))
    async with open_timescale_ledger(database) as one, open_timescale_ledger(database) as other:
        for batch in (shuffled[0::3], shuffled[1::3], shuffled[2::3], shuffled):
            halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
            whole = {(each.time, each.completion_id): each for each in halves[0]}
            rest = [each for each in halves[1] if (each.time, each.completion_id) not in whole]
            own = [each for each in batch if (each.time, each.completion_id) in whole]
            await asyncio.gather(one.append(own), other.append(rest))
        for group_by in ((UsageField.MODEL, UsageField.OUTCOME), (UsageField.CONFIG,), (UsageField.END_USER,)):
            for spans in (MONTH, [(at(-1), at(1))], [(start + timedelta(minutes=7), NOON)]):
                asked = UsageSelection(spans, group_by, max_groups=99)
                found = {(cell.span, cell.group): cell.sums for cell in await one.usage("acme", asked)}
                assert found == {(cell.span, cell.group): cell.sums for cell in folded(entries, "acme", asked)}


async def test_a_statement_that_fails_leaves_no_cell(database: str) -> None:
    async with open_timescale_ledger(database) as ledger:
        with pytest.raises(ValueError, match="can't hold"):
            await ledger.append([entry(), entry(input_tokens=None)])
    assert await rows(database, "SELECT count(*) FROM usage_cells") == [(0,)]


async def test_thousands_in_one_statement(database: str) -> None:
    written = [entry(completion_id=f"cmp_{n:05}_{uuid4().hex}", time=at(n)) for n in range(5_000)]
    async with open_timescale_ledger(database) as ledger:
        await ledger.append(written)
        await ledger.append([replace(each, attempt=2) for each in written])
        [cell] = await ledger.usage("acme", UsageSelection(MONTH))
    assert (cell.sums.attempts, cell.sums.completions) == (10_000, 5_000)


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Tables that are read for themselves, and how many times."""
    if plan.get("Alias") in ("e", "usage_cells"):
        yield plan["Relation Name"], plan["Actual Loops"]
    for inner in plan.get("Plans", ()):
        yield from scans(inner)


@pytest.mark.parametrize("group_by", [(), (UsageField.END_USER,)])
async def test_a_day_by_minute_is_read_once_and_not_minute_by_minute(
    database: str, group_by: tuple[UsageField, ...]
) -> None:
    minutes = [(NOON + timedelta(minutes=n), NOON + timedelta(minutes=n + 1)) for n in range(1440)]
    asked, values = usage.statement("acme", UsageSelection(minutes, group_by, max_groups=9), None)
    async with open_timescale_ledger(database) as ledger, open_engine(database) as engine:
        await ledger.append([entry(time=at(n * 40_000)) for n in range(2_000)])
        await engine.run(text("ANALYZE"))
        [([explained],)] = await engine.run(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {asked.text}"), values)
    assert set(scans(explained["Plan"])) == {("ledger_entries", 1)}


async def test_the_schema_comes_once(nothing: str) -> None:
    await asyncio.gather(*(migrate(nothing) for _ in range(3)))
    await migrate(nothing)
    assert await rows(nothing, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    names = await rows(
        nothing, "SELECT column_name FROM information_schema.columns WHERE table_name = 'ledger_entries' ORDER BY "
        "ordinal_position"
    )  # fmt: skip
    assert [name for (name,) in names] == [field.name for field in fields(LedgerEntry)]


@pytest.mark.parametrize(("revision", "said"), [("0000", "run `ai-middleware migrate`"), ("9999", "newer release")])
async def test_another_schema_is_told_and_nothing_is_written(database: str, revision: str, said: str) -> None:
    await rows(database, "UPDATE alembic_version SET version_num = $1", revision)
    async with open_timescale_ledger(database) as ledger:
        with pytest.raises(SchemaVersionError, match=said):
            await ledger.append([entry()])
        assert said in str(await ledger.look())
        assert await rows(database, "SELECT count(*) FROM ledger_entries") == [(0,)]
        await rows(database, "UPDATE alembic_version SET version_num = $1", HEAD)
        await ledger.append([entry()])
        assert await ledger.look() is None
    if revision == "9999":
        await rows(database, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaVersionError, match=said):
            await migrate(database)


async def test_who_is_at_work_goes_on_when_a_later_release_migrates(database: str) -> None:
    """Else its migration would stop every server of this release, before one of the next is there."""
    async with open_timescale_ledger(database) as ledger:
        await ledger.append([entry()])
        await rows(database, "UPDATE alembic_version SET version_num = '9999'")
        assert await ledger.look() is None
        await ledger.append([entry()])
        assert len(await ledger.completions("acme", where=CompletionFilter(), limit=10)) == 2
        await rows(database, "UPDATE alembic_version SET version_num = '0000'")
        assert "run `ai-middleware migrate`" in str(await ledger.look())


async def test_without_a_schema_nothing_is_written(nothing: str) -> None:
    async with open_timescale_ledger(nothing) as ledger:
        with pytest.raises(SchemaVersionError, match="no schema"):
            await ledger.append([entry()])
        await migrate(nothing)
        await ledger.append([entry()])


@pytest.mark.parametrize(
    "url",
    [
        "db.internal/x",
        "mysql://u:hunter2hunter2@h/x",
        "postgresql://u:hunter2hunter2@h",
        "postgresql://u:hunter2hunter2@/x",
        "postgresql://u:hunter2hunter2@h:port/x",
        "postgresql://u:hunter2hunter2@[h/x",
        "postgresql://u:hunter2hunter2@h/x?sslmode=hunter2hunter2",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(is not|has an)") as raised:
        dsn(url)
    assert "hunter2" not in str(raised.value)


async def refusal(url: str) -> str:
    async with open_timescale_ledger(url) as ledger:
        with pytest.raises(StoreUnavailableError) as raised:
            await ledger.append([entry()])
        assert str(await ledger.look()) == str(raised.value)
    assert raised.value.__suppress_context__, "a printed chain would show the address"
    assert "secret" not in str(raised.value)
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


async def test_what_is_wrong_is_told_without_the_address() -> None:
    url = shared_postgres().url()
    assert "InvalidPasswordError" in await refusal(url.replace(PASSWORD, "secret-but-wrong"))
    assert "InvalidCatalogNameError" in await refusal(url.replace("/postgres?", "/secret?"))
    assert "ConnectionError" in await refusal(url.replace("sslmode=disable", "sslmode=require"))
    assert "Error" in await refusal("postgresql://u:secret@127.0.0.1:1/x")


@pytest.fixture(scope="module")
def server() -> object:
    with running_postgres() as started:
        yield started


async def test_a_restart_is_not_noticed_and_an_outage_ends(server: Postgres) -> None:
    async with migrated_database(server) as url, open_timescale_ledger(url) as ledger:
        await ledger.append([entry()])
        server.stop()
        server.start()
        await ledger.append([entry()])
        server.kill()
        with pytest.raises(StoreUnavailableError):
            await ledger.append([entry()])
        assert "Error" in str(await ledger.look())
        server.start()
        await ledger.append([entry()])
        assert await ledger.look() is None
        [cell] = await ledger.usage("acme", UsageSelection(MONTH))
        assert cell.sums.attempts == 3


async def test_a_server_that_answers_nothing_is_given_up_in_time(server: Postgres) -> None:
    """The entry is there once, whether or not its statement came through while its sender had given up."""
    async with migrated_database(server) as url, open_timescale_ledger(url, statement_timeout_s=1) as ledger:
        written = entry()
        await ledger.append([entry()])
        with server.frozen():
            async with asyncio.timeout(10):
                with pytest.raises(StoreUnavailableError):
                    await ledger.append([written])
                assert "no answer" in str(await ledger.look())
        await ledger.append([written])
        assert list(await ledger.completion("acme", written.completion_id)) == [written]
        [cell] = await ledger.usage("acme", UsageSelection(MONTH))
        assert cell.sums.attempts == 2


async def test_the_server_breaks_off_a_statement_that_takes_too_long(database: str) -> None:
    async with open_engine(database, statement_timeout_s=1) as engine:
        async with asyncio.timeout(1 + GRACE_S):
            with pytest.raises(StoreUnavailableError, match="57014 QueryCanceledError"):
                await engine.run(text("SELECT pg_sleep(30)"))
        assert await engine.run(text("SELECT 1")) == [(1,)]
    assert await rows(database, SLEEPING) == []


async def test_a_read_that_nobody_waits_for_ends_on_the_server(database: str) -> None:
    async with open_engine(database, statement_timeout_s=600) as engine:
        read = asyncio.create_task(engine.run(text("SELECT pg_sleep(300)")))
        async with asyncio.timeout(20):
            while not await rows(database, SLEEPING):
                pass
            read.cancel()
            while await rows(database, SLEEPING):
                pass


async def appended(ledger: TimescaleLedger, written: list[LedgerEntry]) -> bool:
    try:
        await ledger.append(written)
    except StoreUnavailableError:
        return False
    return True


async def test_connections_that_are_cut_while_it_writes(server: Postgres) -> None:
    """Whatever append says, saying it again until it succeeds books each entry once."""
    async with migrated_database(server) as url, open_timescale_ledger(url) as ledger:
        committed, done = asyncio.Event(), asyncio.Event()

        async def cut() -> None:
            """Once after each third batch at the soonest: it has to come through sometime."""
            while not done.is_set():
                await committed.wait()
                committed.clear()
                await rows(server.url(), CUT)

        async def write() -> None:
            for n in range(60):
                written = [entry(time=at(n)) for _ in range(20)]
                while not await appended(ledger, written):
                    pass
                if n % 3 == 2:
                    committed.set()
            done.set()
            committed.set()

        async with asyncio.timeout(60):
            await asyncio.gather(cut(), write())
        [cell] = await ledger.usage("acme", UsageSelection(MONTH))
        assert (cell.sums.attempts, cell.sums.completions) == (1200, 1200)
        assert await rows(url, "SELECT count(*) FROM ledger_entries") == [(1200,)]
