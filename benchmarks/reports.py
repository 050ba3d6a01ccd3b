"""`make bench-reports`: how long usage reports take, by the ledger's size; writes its chapter of
results.md."""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.seeding import book, made_up_usage
from gateway.stores import DATABASE_FILE
from persistence.inflight import open_inflight_log
from persistence.migrations.sqlite import migrate
from persistence.sqlite.database import open_database
from persistence.sqlite.ledger import SQLiteLedger
from persistence.usage_records import LabelName, UsageField, UsageFilter
from resolvers import usage
from resolvers.calendar import Bucket
from resolvers.errors import ServiceUnavailableError
from resolvers.ledger import Ledger, open_ledger
from resolvers.principal import Principal
from resolvers.usage import UsageQuery

from .results import write_chapter

SIZES = (10_000, 1_000_000)
DAYS = 30
RUNS = 7
BOUND_MS = 100.0
LONG_MS = 2_000.0  # one run tells enough
READER = Principal("bench", "bench", frozenset(), 0.0)

_PAGE = """\
# How long reports take

`make bench-reports` (`SIZES="10000 1000000 10000000"` for all columns), Python {python}, {machine}: the median of
{runs} runs in milliseconds, from the use case to the figures, percentiles among them, on the embedded SQLite ledger.
Entries are made up by `ai-middleware dev seed-usage`, over {days} days: 13 uses by 7 callers of 8 models. What is read
from the rollup hardly grows with the number of entries; the others are read entry by entry. "-" took more than 15
seconds, at which a report is broken off.

| report | {sizes} | bound |
|---|{rules}---|
{rows}
"""


@dataclass(frozen=True)
class Report:
    name: str
    query: UsageQuery
    bound_ms: float | None = None


def reports(until: datetime) -> Sequence[Report]:
    month, year, day = (until - timedelta(days=days) for days in (30, 365, 1))
    berlin = "Europe/Berlin"
    models, callers = (UsageField.MODEL,), (UsageField.PRINCIPAL,)
    of_one = UsageFilter({UsageField.PRINCIPAL: ["key_web"]})
    of_team = UsageFilter(labels=[("team", "search")])
    return (
        Report("30 days by day and model", UsageQuery(month, until, Bucket.DAY, "UTC", models), BOUND_MS),
        Report("the same, Europe/Berlin", UsageQuery(month, until, Bucket.DAY, berlin, models)),
        Report("the same, Asia/Kolkata", UsageQuery(month, until, Bucket.DAY, "Asia/Kolkata", models)),
        Report("30 days by hour", UsageQuery(month, until, Bucket.HOUR)),
        Report("30 days by day and model, of one caller", UsageQuery(month, until, Bucket.DAY, "UTC", models, of_one)),
        Report("30 days by day and caller, Europe/Berlin", UsageQuery(month, until, Bucket.DAY, berlin, callers)),
        Report("12 months by month and caller", UsageQuery(year, until, Bucket.MONTH, "UTC", callers)),
        Report("1 hour by minute", UsageQuery(until - timedelta(hours=1), until, Bucket.MINUTE)),
        Report("24 hours by minute, entry by entry", UsageQuery(day, until, Bucket.MINUTE)),
        Report("30 days of a label, entry by entry", UsageQuery(month, until, where=of_team)),
        Report("30 days by label, entry by entry", UsageQuery(month, until, group_by=(LabelName("team"),))),
        Report("30 days by end user, entry by entry", UsageQuery(month, until, group_by=(UsageField.END_USER,))),
    )


def _empty(folder: Path) -> Path:
    folder.mkdir()
    migrate(folder / DATABASE_FILE)
    return folder


async def measure(size: int, folder: Path) -> Mapping[str, float | None]:
    """Milliseconds of each report; None where it was broken off."""
    until = datetime.now(UTC).replace(microsecond=0)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(folder / DATABASE_FILE))
        store = SQLiteLedger(database)
        await _fill(store, size, until)
        inflight = stack.enter_context(open_inflight_log(folder))
        ledger = await stack.enter_async_context(open_ledger(store, inflight))
        return {report.name: await _median(ledger, report.query) for report in reports(until)}


async def _fill(store: SQLiteLedger, size: int, until: datetime) -> None:
    began = time.monotonic()
    entries = made_up_usage(READER.organisation, size, since=until - timedelta(days=DAYS), until=until, seed=1)
    async for booked in book(store, entries, alone=True):
        sys.stderr.write(f"\r{booked:,} of {size:,} entries, {booked / (time.monotonic() - began):,.0f} a second")
    await store.fold(until)
    sys.stderr.write("\n")


async def _median(ledger: Ledger, query: UsageQuery) -> float | None:
    taken: list[float] = []
    for _ in range(RUNS):
        began = time.perf_counter()
        try:
            await usage.report(ledger, READER, query)
        except ServiceUnavailableError:
            return None
        taken.append((time.perf_counter() - began) * 1000)
        if taken[-1] > LONG_MS:
            break
    return statistics.median(taken)


def page(found: Mapping[int, Mapping[str, float | None]]) -> str:
    rows = []
    for report in reports(datetime.now(UTC)):
        cells = ["-" if (taken := each[report.name]) is None else f"{taken:,.0f}" for each in found.values()]
        bound = "" if report.bound_ms is None else f"≤ {report.bound_ms:.0f}"
        rows.append(f"| {report.name} | {' | '.join(cells)} | {bound} |")
    return _PAGE.format(
        python=platform.python_version(),
        machine=platform.machine(),
        runs=RUNS,
        days=DAYS,
        sizes=" | ".join(f"{size:,} entries" for size in found),
        rules="---|" * len(found),
        rows="\n".join(rows),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help="Sizes of the ledger.")
    sizes: Sequence[int] = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        ledgers = {size: _empty(Path(folder) / str(size)) for size in sizes}
        found = {size: asyncio.run(measure(size, ledger)) for size, ledger in ledgers.items()}
    text = page(found)
    sys.stdout.write(text)
    write_chapter(text)
    late = [
        f"{report.name} at {size:,} entries"
        for report in reports(datetime.now(UTC))
        for size, taken in found.items()
        if report.bound_ms is not None and (taken[report.name] or float("inf")) > report.bound_ms
    ]
    sys.stderr.writelines(f"over its bound: {each}\n" for each in late)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
