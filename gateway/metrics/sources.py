"""What is looked at now and then, rather than told: how much there is of something, and what others count."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from prometheus_client import Counter, ProcessCollector

from persistence.ports import InflightLog, JobQueue, StoreUnavailableError
from resolvers.cache_counts import CacheCounts
from resolvers.key_cache import KeyCache
from resolvers.ledger import Ledger
from resolvers.routing import Circuits, CircuitState
from resolvers.running import RunningCompletions

from ..capacity import Capacity
from ..readiness import Dependency
from .instruments import Instruments
from .observer import JobMetrics

DEPTH_TIMEOUT_S = 10.0

Look = Callable[[], None]
SlowLook = Callable[[], Awaitable[None]]


class Rising:
    """A figure that somebody else counts, told to a counter."""

    __slots__ = ("_counter", "_told")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._told = 0.0

    def is_now(self, value: float) -> None:
        if value > self._told:
            self._counter.inc(value - self._told)
            self._told = value


def look_at_process(instruments: Instruments) -> Look:
    """By the names that Prometheus' client libraries have for it. Where there is no /proc the figures are 0."""
    collector = ProcessCollector(registry=None)
    cpu = Rising(instruments.counter("process_cpu_seconds_total"))
    gauges = {name: instruments.gauge(name) for name in _OF_THE_PROCESS}
    instruments.gauge("ai_middleware_processes").set(1)

    def look() -> None:
        for metric in collector.collect():
            for sample in metric.samples:
                if sample.name in gauges:
                    gauges[sample.name].set(sample.value)
                elif sample.name == "process_cpu_seconds_total":
                    cpu.is_now(sample.value)

    return look


_OF_THE_PROCESS = (
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
)


def look_at_collector(instruments: Instruments) -> Look:
    names = ("collections", "collected", "uncollectable")
    counters = {
        "collections": instruments.counters("python_gc_collections_total"),
        "collected": instruments.counters("python_gc_objects_collected_total"),
        "uncollectable": instruments.counters("python_gc_objects_uncollectable_total"),
    }
    rising = [
        {name: Rising(counters[name][(str(generation),)]) for name in names}
        for generation in range(len(gc.get_stats()))
    ]

    def look() -> None:
        for each, stats in zip(rising, gc.get_stats(), strict=True):
            for name in names:
                each[name].is_now(stats[name])

    return look


def look_at_caches(instruments: Instruments, caches: Mapping[str, CacheCounts]) -> Look:
    series = instruments.counters("cache_requests_total")
    rising = [(counts, Rising(series[name, "hit"]), Rising(series[name, "miss"])) for name, counts in caches.items()]

    def look() -> None:
        for counts, hits, misses in rising:
            hits.is_now(counts.hits)
            misses.is_now(counts.misses)

    return look


def look_at_capacity(instruments: Instruments, capacity: Capacity) -> Look:
    shed, in_flight = Rising(instruments.counter("operations_shed_total")), instruments.gauge("operations_in_flight")
    instruments.gauge("operations_in_flight_limit").set(capacity.limit)

    def look() -> None:
        shed.is_now(capacity.shed)
        in_flight.set(capacity.in_flight)

    return look


def look_at_completions(
    instruments: Instruments, running: RunningCompletions, circuits: Circuits, providers: Sequence[str]
) -> Look:
    requests, streams = instruments.gauge("ai_requests_in_flight"), instruments.gauge("ai_streams_in_flight")
    states = instruments.gauges("ai_circuit_state")

    def look() -> None:
        requests.set(len(running))
        streams.set(running.streams())
        worst = circuits.worst()
        for provider in providers:
            states[(provider,)].set(worst.get(provider, CircuitState.CLOSED))

    return look


def look_at_ledger(instruments: Instruments, ledger: Ledger, inflight: InflightLog) -> Look:
    names = ("ledger_pending_entries", "ledger_spooled_entries", "ledger_lag_seconds", "ledger_available")
    pending, spooled, lag, available = map(instruments.gauge, names)
    noted, size = map(instruments.gauge, ("inflight_log_entries", "inflight_log_bytes"))

    def look() -> None:
        backlog = ledger.backlog()
        pending.set(backlog.entries)
        spooled.set(backlog.spooled)
        lag.set(backlog.age_s)
        available.set(ledger.available)
        entries, taken = inflight.extent()
        noted.set(entries)
        size.set(taken)

    return look


def look_at_queue(instruments: Instruments, queue: JobQueue, jobs: JobMetrics) -> SlowLook:
    """While it is away the last figures stand, and `dependency_up` says why."""
    states, age = instruments.gauges("queue_jobs"), instruments.gauge("queue_oldest_job_age_seconds")

    async def look() -> None:
        try:
            async with asyncio.timeout(DEPTH_TIMEOUT_S):
                depth = await queue.depth()
        except (StoreUnavailableError, TimeoutError):
            return
        states[("ready",)].set(depth.ready)
        states[("delayed",)].set(depth.resting)
        states[("parked",)].set(depth.parked)
        if depth.ready == 0:
            age.set(0)
        elif depth.oldest is not None:
            age.set(max(0.0, (datetime.now(UTC) - depth.oldest).total_seconds()))
        else:
            age.set(jobs.taken_age_s)

    return look


def look_at_servers(
    instruments: Instruments, lacks: Callable[[], Sequence[str]], servers: Sequence[Dependency]
) -> SlowLook:
    """`lacks`: what the process itself is missing."""
    up, ready = instruments.gauges("dependency_up"), instruments.gauge("ai_middleware_ready")

    async def look() -> None:
        found = await asyncio.gather(*(server.trouble() for server in servers))
        for server, (trouble, _) in zip(servers, found, strict=True):
            up[(server.name,)].set(trouble is None)
        ready.set(not lacks() and all(trouble is None or goes_on for trouble, goes_on in found))

    return look


def look_at_disk(instruments: Instruments, folder: Path) -> SlowLook:
    free = instruments.gauge("data_dir_free_bytes")

    async def look() -> None:
        free.set((await asyncio.to_thread(shutil.disk_usage, folder)).free)  # a network's disk may take its time

    return look


def look_at_keys(instruments: Instruments, cache: KeyCache) -> SlowLook:
    soonest = instruments.gauge("api_key_soonest_expiry_timestamp_seconds")
    soonest.set(inf)

    async def look() -> None:
        end = cache.soonest_expiry(datetime.now(UTC))
        soonest.set(inf if end is None else end.timestamp())

    return look
