"""`make bench-ledger`: what the ledger costs on PostgreSQL and TimescaleDB, to write and to read; writes its chapter
of results.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import psutil
from sqlalchemy import text

from gateway.seeding import book, made_up_usage
from persistence.inflight import open_inflight_log
from persistence.migrations.timescale import check, migrate
from persistence.timescale.engine import Engine, open_engine
from persistence.timescale.ledger import TimescaleLedger, open_timescale_ledger
from persistence.timescale.writing import NAMES
from resolvers import usage
from resolvers.errors import ServiceUnavailableError
from resolvers.ledger import Ledger, open_ledger
from resolvers.usage import UsageQuery
from tests.servers.community import running_community
from tests.servers.postgres import Kind, running_postgres

from .reports import DAYS, READER, reports
from .results import write_chapter

COMMITS = (1, 10, 100, 1000)
COMMITTED_S = 3.0
RUNS = 7
LONG_MS = 2_000.0
BOUND_MS = 100.0
BOUND_REPORT = "30 days by day and model"
_MADE_UP = 100_000
_MOST_BY_WASM = 20_000

_COLUMNS = ", ".join(name for name in NAMES if name != "completion_id")
_ORIGINALS = text("CREATE TABLE originals AS SELECT * FROM ledger_entries")
_COPY = text(f"""
    INSERT INTO ledger_entries (completion_id, {_COLUMNS})
    SELECT completion_id || '_' || CAST(:number AS text), {_COLUMNS} FROM originals
""")

_PAGE = """\
# What the ledger costs on a server

`make bench-ledger ROWS={rows}`, Python {python}, {machine}, {cores} cores{load}. Server and client share the
machine; `fsync` is on, the data on its disk. {made_up:,} entries are made up by `ai-middleware dev seed-usage`,
over {days} days; the others are copies of them. "Debian" is PostgreSQL 15 without TimescaleDB. The community edition is
compiled to WebAssembly here, in memory and behind a bridge: that it works is what its figures say, not how fast it is.

## Writing

One writer; the entries of a commit are there, with their sums, before the next begins. CPU of server and client.

| | entries a commit | entries a second | CPU µs an entry, server | client |
|---|---|---|---|---|
{written}

## Reports

The median of {runs} runs in milliseconds, from the use case to the figures. "-" took more than 15 seconds.

| report | {names} | bound |
|---|{rules}---|
{read}
"""


@dataclass(frozen=True)
class Written:
    size: int
    per_second: float
    server_us: float
    client_us: float


@dataclass(frozen=True)
class Found:
    name: str
    written: Sequence[Written]
    reports: Mapping[str, float | None]


async def measure(name: str, url: str, pid: int, rows: int) -> Found:
    until = datetime.now(UTC).replace(microsecond=0)
    await migrate(url)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(url, statement_timeout_s=None))
        edition = await check(engine)
        store = await stack.enter_async_context(open_timescale_ledger(url, statement_timeout_s=120))
        await _fill(store, engine, rows, until)
        await migrate(url)  # the aggregates, where there are any
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        inflight = stack.enter_context(open_inflight_log(folder))
        ledger = await stack.enter_async_context(open_ledger(store, inflight))
        read = {report.name: await _median(ledger, report.query) for report in reports(until)}
        written = [await _write(store, size, pid, until) for size in COMMITS]
    return Found(f"{name}, {edition}, {rows:,} entries", written, read)


async def _fill(store: TimescaleLedger, engine: Engine, rows: int, until: datetime) -> None:
    first = min(rows, _MADE_UP)
    entries = made_up_usage(READER.organisation, first, since=until - timedelta(days=DAYS), until=until, seed=1)
    async for booked in book(store, entries):
        sys.stderr.write(f"\r{booked:,} entries")
    await engine.run(_ORIGINALS)
    for number in range(1, rows // first):
        await engine.run(_COPY, {"number": str(number)})
        sys.stderr.write(f"\r{(number + 1) * first:,} entries")
    sys.stderr.write("\n")
    await engine.run(text("ANALYZE"))


async def _median(ledger: Ledger, query: UsageQuery) -> float | None:
    taken: list[float] = []
    while len(taken) < RUNS and (not taken or taken[-1] < LONG_MS):
        start = time.perf_counter()
        try:
            await usage.report(ledger, READER, query)
        except ServiceUnavailableError:
            break
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken) if taken else None


async def _write(store: TimescaleLedger, size: int, pid: int, since: datetime) -> Written:
    made_up = made_up_usage("writers", 10**9, since=since, until=since + timedelta(hours=1), seed=size)
    batches = [list(islice(made_up, size)) for _ in range(max(20, 6_000 // size))]
    count, start, client, server = 0, time.perf_counter(), time.process_time(), _cpu_s(pid)
    while batches and time.perf_counter() - start < COMMITTED_S:
        await store.append(batches.pop())
        count += size
    taken_s, spent_s = time.perf_counter() - start, time.process_time() - client
    return Written(size, count / taken_s, (_cpu_s(pid) - server) / count * 1e6, spent_s / count * 1e6)


def _cpu_s(pid: int) -> float:
    """Of a server and all that it has started."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


@contextmanager
def _place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ai-middleware-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the server's user has to get there
        yield Path(folder)


def measure_all(rows: int) -> Sequence[Found]:
    found = []
    for kind, name in ((Kind.PLAIN, "Debian"), (Kind.APACHE, "TimescaleDB")):
        with _place() as place, running_postgres(None if kind is Kind.APACHE else place, kind, fast=False) as server:
            found.append(asyncio.run(measure(name, server.url(), server.pid, rows)))
    with running_community() as wasm:
        found.append(asyncio.run(measure("WebAssembly", wasm.url, wasm.process.pid, min(rows, _MOST_BY_WASM))))
    return found


def page(found: Sequence[Found], rows: int, load: float) -> str:
    written = [
        f"| {each.name} | {one.size:,} | {one.per_second:,.0f} | {one.server_us:,.0f} | {one.client_us:,.0f} |"
        for each in found
        for one in each.written
    ]
    read = []
    for report in reports(datetime.now(UTC)):
        cells = ["-" if (taken := each.reports[report.name]) is None else f"{taken:,.0f}" for each in found]
        bound = f"≤ {BOUND_MS:.0f}" if report.name == BOUND_REPORT else ""
        read.append(f"| {report.name} | {' | '.join(cells)} | {bound} |")
    return _PAGE.format(
        rows=rows,
        made_up=_MADE_UP,
        python=platform.python_version(),
        machine=platform.machine(),
        cores=os.cpu_count(),
        load=f", other work on them (a load of {load:.1f} before)" if load > 0.5 else "",
        days=DAYS,
        runs=RUNS,
        written="\n".join(written),
        names=" | ".join(each.name for each in found),
        rules="---|" * len(found),
        read="\n".join(read),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="Entries of the ledger.")
    rows: int = parser.parse_args().rows
    load = os.getloadavg()[0]
    found = measure_all(rows)
    results = page(found, rows, load)
    sys.stdout.write(results)
    write_chapter(results)
    late = [each.name for each in found if (each.reports[BOUND_REPORT] or float("inf")) > BOUND_MS]
    sys.stderr.writelines(f"over its bound: {BOUND_REPORT}, {each}\n" for each in late)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
