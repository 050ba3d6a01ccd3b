"""What the ledger's tables need from time to time: aggregates brought up to date, old entries dropped. One process of
all that share the database does it, by an advisory lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ..ports import StoreUnavailableError
from .engine import Engine, rows_of
from .policies import DROP_MARGIN, REFRESH_WINDOW, Edition, Policies
from .usage_plan import DAYS, HOURS, QUARTERS, Tier

INTERVAL_S = 60.0
ROUND_TIMEOUT_S = 3600.0  # for one that asks a server which has gone without a word
GAP_S = 2.0  # between two rounds at the least: late entries come in crowds

OPEN_FOR = timedelta(hours=1)
"""Entries younger than that are summed up when they are asked for."""

LATE_AFTER = OPEN_FOR / 2
"""An entry older than that counts as late. The half between is longer than any statement takes: what the aggregates
may pass while an entry is being written is noted."""

VIEWS = {QUARTERS: "usage_quarters", HOURS: "usage_hours", DAYS: "usage_days"}
"""Each is made of the one before, and refreshed after it."""

_LOCK = 0x61692D75  # beside that of the migrations
_DELETED_AT_ONCE = 5_000
_REFRESHED_AT_ONCE = 1_000

_TRY_LOCK = text("SELECT pg_try_advisory_lock(:lock)")
_UNLOCK = text("SELECT pg_advisory_unlock(:lock)")
_NOW = text("SELECT now()")
_TABLE = text("""
    SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)
    FROM timescaledb_information.continuous_aggregates
    WHERE view_schema = current_schema() AND view_name = :view
""")
_LATE = text("SELECT slot, version FROM usage_late WHERE slot <= :until ORDER BY slot LIMIT :at_once")
_NO_LONGER_LATE = text("""
    DELETE FROM usage_late
    USING unnest(CAST(:slots AS timestamptz[]), CAST(:versions AS bigint[])) AS done (slot, version)
    WHERE usage_late.slot = done.slot AND usage_late.version = done.version
""")
_AGED = text("""
    SELECT 1 FROM timescaledb_information.jobs
    WHERE hypertable_schema = current_schema() AND hypertable_name = 'ledger_entries' AND proc_name = :procedure
        AND CAST(config ->> :key AS interval) = CAST(:age AS interval)
""")
_DELETE = text("""
    WITH old AS MATERIALIZED (SELECT ctid FROM ledger_entries WHERE time < :cut LIMIT :at_once),
    gone AS (DELETE FROM ledger_entries WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING 1)
    SELECT count(*) FROM gone
""")
_DROP = text("SELECT drop_chunks('ledger_entries', older_than => CAST(:cut AS timestamptz))")

log = structlog.get_logger("ledger")


@dataclass(frozen=True, slots=True)
class _Aged:
    """A policy of TimescaleDB's that goes by an entry's age."""

    name: str
    procedure: str
    key: str


_RETENTION = _Aged("retention_policy", "policy_retention", "drop_after")
_COMPRESSION = _Aged("compression_policy", "policy_compression", "compress_after")


async def keep_up(engine: Engine, edition: Edition, policies: Policies) -> None:
    """One round of all that is due; nothing where another process is at it. Raises StoreUnavailableError."""
    async with engine.session() as connection:
        [(mine,)] = await rows_of(connection, _TRY_LOCK, {"lock": _LOCK})
        if not mine:
            return
        [(now,)] = await rows_of(connection, _NOW)
        if edition is Edition.COMMUNITY:
            await _advance(connection, now)
            await _set_policies(connection, policies)
            await _refresh_late(connection, now, policies)
        elif policies.retention is not None:
            await _drop(connection, edition, now - policies.retention - DROP_MARGIN)
        await rows_of(connection, _UNLOCK, {"lock": _LOCK})


async def _advance(connection: AsyncConnection, now: datetime) -> None:
    """Sums up what has happened since the last time, without a gap: what lies before an aggregate's newest bucket is
    read from it alone, and would be missing."""
    for tier, view in VIEWS.items():
        newest = await _newest(connection, view)
        start, end = newest and newest + tier.width, tier.floor(now - OPEN_FOR)
        if start is None or start < end:
            await _refresh(connection, view, start, end)


async def _refresh_late(connection: AsyncConnection, now: datetime, policies: Policies) -> None:
    """Only up to an aggregate's newest bucket: what lies behind is summed up when it is asked for, and moving that
    bucket on would hide what comes before it."""
    newest = {tier: await _newest(connection, view) for tier, view in VIEWS.items()}
    if (until := newest[QUARTERS]) is None:
        return
    cut = None if policies.retention is None else now - policies.retention - DROP_MARGIN
    while noted := await rows_of(connection, _LATE, {"until": until, "at_once": _REFRESHED_AT_ONCE}):
        slots = [slot for slot, _ in noted if cut is None or slot >= cut]
        for tier, view in VIEWS.items():
            for start, end in _windows(slots, tier, newest[tier]):
                await _refresh(connection, view, start, end)
        done = {"slots": [slot for slot, _ in noted], "versions": [version for _, version in noted]}
        await rows_of(connection, _NO_LONGER_LATE, done)
        log.info("late entries are summed up", quarter_hours=len(slots))
        if lost := len(noted) - len(slots):
            log.error("late entries were dropped before they were summed up", quarter_hours=lost)


def _windows(slots: Sequence[datetime], tier: Tier, newest: datetime | None) -> Iterator[tuple[datetime, datetime]]:
    """The tier's buckets that hold these slots, neighbours as one."""
    buckets = sorted({tier.floor(slot) for slot in slots if newest is not None and tier.floor(slot) <= newest})
    while buckets:
        count = 1
        while count < len(buckets) and buckets[count] == buckets[0] + count * tier.width:
            count += 1
        yield buckets[0], buckets[0] + count * tier.width
        del buckets[:count]


async def _newest(connection: AsyncConnection, view: str) -> datetime | None:
    """The last bucket that is summed up."""
    [(table,)] = await rows_of(connection, _TABLE, {"view": view})
    [(newest,)] = await rows_of(connection, text(f"SELECT max(slot) FROM {table}"))  # noqa: S608  # quoted by _TABLE
    return None if newest is None else newest.astimezone(UTC)


async def _refresh(connection: AsyncConnection, view: str, start: datetime | None, end: datetime) -> None:
    since = "NULL" if start is None else f"TIMESTAMPTZ '{start.isoformat()}'"
    await rows_of(
        connection, text(f"CALL refresh_continuous_aggregate('{view}', {since}, TIMESTAMPTZ '{end.isoformat()}')")
    )


async def _set_policies(connection: AsyncConnection, policies: Policies) -> None:
    """To be set after the first `_advance`: TimescaleDB's own refresh goes back no further than its window, and what
    lies before it would be hidden."""
    for view in VIEWS.values():
        await rows_of(
            connection,
            text(f"""
                SELECT add_continuous_aggregate_policy('{view}', if_not_exists => true,
                    start_offset => CAST(:window AS interval), end_offset => CAST(:open AS interval),
                    schedule_interval => CAST(:every AS interval))
            """),
            {"window": REFRESH_WINDOW, "open": OPEN_FOR, "every": timedelta(minutes=15)},
        )
    kept = policies.retention
    await _set_age(connection, _RETENTION, None if kept is None else kept + DROP_MARGIN)
    await _set_age(connection, _COMPRESSION, policies.compress_after)


async def _set_age(connection: AsyncConnection, policy: _Aged, age: timedelta | None) -> None:
    asked = {"procedure": policy.procedure, "key": policy.key, "age": age}
    if age is not None and await rows_of(connection, _AGED, asked):
        return
    await rows_of(connection, text(f"SELECT remove_{policy.name}('ledger_entries', if_exists => true)"))
    if age is not None:
        added = text(f"SELECT add_{policy.name}('ledger_entries', CAST(:age AS interval))")
        await rows_of(connection, added, {"age": age})


async def _drop(connection: AsyncConnection, edition: Edition, cut: datetime) -> None:
    if edition is Edition.APACHE:
        if chunks := await rows_of(connection, _DROP, {"cut": cut}):
            log.info("old entries are dropped", chunks=len(chunks))
        return
    dropped = 0
    while True:
        [(count,)] = await rows_of(connection, _DELETE, {"cut": cut, "at_once": _DELETED_AT_ONCE})
        dropped += count
        if count < _DELETED_AT_ONCE:
            break
    if dropped:
        log.info("old entries are dropped", entries=dropped)


class Upkeep:
    """The task that does it, again and again. Run by `running_upkeep`."""

    def __init__(self, engine: Engine, policies: Policies, check: Callable[[Engine], Awaitable[Edition]]) -> None:
        self._engine = engine
        self._policies = policies
        self._check = check
        self._due = asyncio.Event()

    def hurry(self) -> None:
        """There is something to be done."""
        self._due.set()

    async def run(self) -> None:
        healthy = True
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._due.wait()
            self._due.clear()
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    await keep_up(self._engine, await self._check(self._engine), self._policies)
                healthy = True
            except (
                StoreUnavailableError,
                ValueError,
                TimeoutError,
            ) as error:  # another schema among them
                if healthy:
                    log.warning("the ledger's tables can't be kept up", reason=str(error) or "it takes too long")
                healthy = False
            await asyncio.sleep(GAP_S)


@asynccontextmanager
async def running_upkeep(
    engine: Engine, policies: Policies, check: Callable[[Engine], Awaitable[Edition]]
) -> AsyncIterator[Upkeep]:
    """`check` tells the edition, or raises SchemaVersionError: then nothing is done."""
    upkeep = Upkeep(engine, policies, check)
    task = asyncio.create_task(upkeep.run(), name="ledger-upkeep")
    try:
        yield upkeep
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
