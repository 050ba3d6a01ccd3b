"""`make bench-servers`: what queued jobs cost, and what a completion asks of Redis; writes its chapter of
results.md."""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import redis
from uuid_utils import uuid7

from persistence.migrations.sqlite import migrate
from persistence.ports import JobQueue
from persistence.queue_records import Job
from persistence.rabbit.queue import open_rabbit
from persistence.sqlite.database import open_database
from persistence.sqlite.job_failures import SQLiteJobFailures
from persistence.sqlite.queue import SQLiteQueue
from resolvers.sinks import ENTRIES_A_JOB, job_of
from tests.e2e.documents import COMPLETE, STREAM
from tests.e2e.processes import Server, post, running_server, server_environment
from tests.persistence.entries import entry
from tests.servers.rabbit import running_rabbit
from tests.servers.redis import running_redis

from .results import write_chapter

ALONE, TOGETHER, AT_ONCE, PREFETCH = 300, 10_000, 100, 50
COMPLETIONS, STREAMS, CLIENTS = 200, 20, 20
_OWN = {"PING", "INFO", "HELLO", "CLIENT", "MONITOR"}
_END = "bench-end"
_LIMIT = "mutation { setLimits(input: { requestsPerMinute: 100000 }) { limited } }"

_PAGE = """\
# What the servers between processes cost

`make bench-servers`, Python {python}, {machine}, {cores} cores{load}. Servers and clients share the machine.

## The queue

Every message is durable and confirmed when its publishing returns. CPU of the broker with all its processes, and of
this one.

| | messages a second | CPU µs a message, broker | client |
|---|---|---|---|
{queue}

A job of {entries} ledger entries has {size:,} bytes: one message for {entries} entries that wait.

## Redis

What a server asks of it while it answers {completions} completions one after the other, and {streams} streams, which
wait for none of it: what they tell is kept for whoever resumes them. What processes tell each other is in it, which is
the less a completion the more there are at once; what a script does on the server is not. By Redis' own MONITOR.

| completions | round trips each |
|---|---|
{asked}
"""


@dataclass(frozen=True)
class Rate:
    name: str
    per_second: float
    broker_us: float
    client_us: float


class Meter:
    """Of `count` messages. `process`: the broker's, where there is one."""

    def __init__(self, process: psutil.Process | None) -> None:
        self._process = process

    async def of(self, name: str, count: int, work: Callable[[], Awaitable[None]]) -> Rate:
        started, broker, client = time.perf_counter(), self._broker(), time.process_time()
        await work()
        seconds = time.perf_counter() - started
        used = (self._broker() - broker, time.process_time() - client)
        return Rate(name, count / seconds, *(each / count * 1e6 for each in used))

    def _broker(self) -> float:
        if self._process is None:
            return 0.0
        family = [self._process, *self._process.children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in family)


async def measure(name: str, queue: JobQueue, process: psutil.Process | None) -> Sequence[Rate]:
    meter = Meter(process)

    async def one_by_one() -> None:
        for _ in range(ALONE):
            await queue.publish(jobs(1))

    async def together() -> None:
        for _ in range(TOGETHER // AT_ONCE):
            await queue.publish(jobs(AT_ONCE))

    async def consume() -> None:
        done = 0
        async with queue.work(prefetch=PREFETCH) as batches, aclosing(batches):
            async for batch in batches:
                await asyncio.gather(*(delivery.done() for delivery in batch))
                done += len(batch)
                if done >= ALONE + TOGETHER:
                    return

    return [
        await meter.of(f"{name}, published one by one", ALONE, one_by_one),
        await meter.of(f"{name}, published {AT_ONCE} at once", TOGETHER, together),
        await meter.of(f"{name}, taken and done, {PREFETCH} in hand", ALONE + TOGETHER, consume),
    ]


def jobs(count: int) -> Sequence[Job]:
    return [Job(str(uuid7()), "bench", '{"item":"0190"}', datetime.now(UTC)) for _ in range(count)]


async def queues(folder: Path) -> Sequence[Rate]:
    migrate(folder / "queue.db")
    async with open_database(folder / "queue.db") as database:
        found = [*await measure("embedded", SQLiteQueue(database, lambda: datetime.now(UTC)), None)]
        with running_rabbit() as broker:
            async with open_rabbit(broker.url, "bench", SQLiteJobFailures(database)) as queue:
                await queue.probe()
                found += await measure("RabbitMQ", queue, psutil.Process(broker.pid))
    return found


def round_trips(folder: Path) -> Sequence[tuple[str, float]]:
    with (
        running_redis() as node,
        redis.Redis(port=node.port, decode_responses=True) as asking,
        running_server(server_environment(folder / "data", None, REDIS_URI=node.uri)) as server,
    ):
        complete(server, "warm")
        plain = asked(asking, COMPLETIONS, lambda number: complete(server, None))
        keyed = asked(asking, COMPLETIONS, lambda number: complete(server, f"k-{number}"))
        began = time.monotonic()
        streamed = asked(asking, STREAMS, lambda number: stream(server))
        took = (time.monotonic() - began) / STREAMS
        post(server, server.token("bench"), _LIMIT, {})
        complete(server, None)
        limited = asked(asking, COMPLETIONS, lambda number: complete(server, None))
        with ThreadPoolExecutor(CLIENTS) as clients:
            together = asked(asking, 1, lambda _: some(clients, server)) / COMPLETIONS
        return [
            ("without a key", plain),
            ("with one", keyed),
            ("without a key, under a limit", limited),
            (f"the same, by {CLIENTS} clients at once", together),
            (f"a stream of {took:.1f} s", streamed),
        ]


def some(clients: ThreadPoolExecutor, server: Server) -> None:
    for _ in clients.map(lambda _: complete(server, None), range(COMPLETIONS)):
        pass


def asked(asking: redis.Redis, count: int, call: Callable[[int], None]) -> float:
    with asking.monitor() as seen:
        for number in range(count):
            call(number)
        asking.echo(_END)
        times = 0
        for command in seen.listen():
            if _END in command["command"]:
                return times / count
            times += command["client_type"] != "lua" and command["command"].split()[0].upper() not in _OWN
    raise RuntimeError("the server has closed its connection")


def stream(server: Server) -> None:
    given = {"model": "scripted/lorem", "messages": [{"role": "USER", "content": "Go on."}]}
    headers = {"authorization": f"Bearer {server.token('bench')}", "accept": "text/event-stream"}
    body = {"query": STREAM, "variables": {"input": given}}
    answer = httpx.post(server.url, json=body, headers=headers, timeout=60)
    if "CompletionFinished" not in answer.text:
        raise RuntimeError(answer.text)


def complete(server: Server, key: str | None) -> None:
    given = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "Hello."}], "idempotencyKey": key}
    answer = post(server, server.token("bench"), COMPLETE, {"input": given})
    if "errors" in answer:
        raise RuntimeError(answer["errors"])


def main() -> None:
    load = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rates = asyncio.run(queues(Path(folder)))
        trips = round_trips(Path(folder))
    page = _PAGE.format(
        python=platform.python_version(),
        machine=platform.machine(),
        cores=psutil.cpu_count(),
        load=f", other work on them (a load of {load:.1f} before)" if load > 0.5 else "",
        queue="\n".join(
            f"| {rate.name} | {rate.per_second:,.0f} | {f'{rate.broker_us:,.0f}' if rate.broker_us else '-'} "
            f"| {rate.client_us:,.0f} |"
            for rate in rates
        ),
        entries=ENTRIES_A_JOB,
        size=len(job_of([entry(completion_id=f"cmp_{number:032}") for number in range(ENTRIES_A_JOB)]).body),
        completions=COMPLETIONS,
        streams=STREAMS,
        asked="\n".join(f"| {name} | {count:.2f} |" for name, count in trips),
    )
    write_chapter(page)
    sys.stdout.write(page)


if __name__ == "__main__":
    main()
