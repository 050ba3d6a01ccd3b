"""A process's metrics: its instruments, who looks at what and when, and the page that Prometheus reads."""

from __future__ import annotations

import asyncio
import fcntl
import platform
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from graph.engine import Engine
from resolvers.beside import beside

from .catalogue import ROWS, WORKER_ROWS, Row
from .instruments import Instruments
from .observer import JobMetrics, ServerMetrics
from .processes import locked, shared_folder
from .sources import Look, SlowLook, look_at_caches, look_at_collector, look_at_process
from .traffic import Traffic

TICK_S = 0.5
LOOK_EVERY_TICKS = 10
"""What the other processes have is at most so old: five seconds."""
LOOK_SLOWLY_EVERY_S = 15.0


class Metrics:
    """`jobs` is the worker's observer. `folder`: where other processes count too; None where there are none."""

    def __init__(self, rows: Mapping[str, Row], kinds: Sequence[str]) -> None:
        self.registry = CollectorRegistry()
        self.instruments = Instruments(rows, self.registry)
        self.jobs = JobMetrics(self.instruments, kinds)
        self.folder = shared_folder()
        self._lag = self.instruments.histogram("event_loop_lag_seconds")
        self._looks: list[Look] = [look_at_process(self.instruments), look_at_collector(self.instruments)]
        self._slow_looks: Sequence[SlowLook] = ()
        info = self.instruments.gauges("ai_middleware_info")
        info[version("ai-middleware"), platform.python_version()].set(1)

    @asynccontextmanager
    async def watching(self, looks: Sequence[Look], slow_looks: Sequence[SlowLook]) -> AsyncIterator[None]:
        """Looks again and again; at all of it once before this is entered."""
        self._looks += looks
        self._slow_looks = slow_looks
        self._look()
        await self._look_slowly()
        async with beside("metrics", self._tick), beside("metrics-of-servers", self._ask):
            yield

    async def page(self, accept: str) -> tuple[bytes, str]:
        """What `/metrics` answers, and its media type: OpenMetrics where it is asked for, else Prometheus' own text."""
        self._look()
        return await asyncio.to_thread(self._page, accept)  # thousands of lines take a while

    def _page(self, accept: str) -> tuple[bytes, str]:
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none
            encode, media_type = choose_encoder("")
        if self.folder is None:
            return encode(self.registry), media_type
        together = CollectorRegistry()
        together.register(_Together(self.folder))
        with locked(self.folder, fcntl.LOCK_SH):
            return encode(together), media_type

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(LOOK_EVERY_TICKS):
                due = loop.time() + TICK_S
                await asyncio.sleep(TICK_S)
                self._lag.observe(max(0.0, loop.time() - due))
            self._look()

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SLOWLY_EVERY_S)
            await self._look_slowly()

    def _look(self) -> None:
        for look in self._looks:
            look()

    async def _look_slowly(self) -> None:
        await asyncio.gather(*(look() for look in self._slow_looks))


class _Together(Collector):
    """What all processes have counted. A file that one has just made is empty for a moment, which the client library's
    own collector takes for a broken one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged


class ServerProcess(Metrics):
    """A server's; `observer` is told of all that happens."""

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__(ROWS, kinds)
        self.observer = ServerMetrics(self.instruments, self.jobs)

    def counting(self, engine: Engine) -> Traffic:
        """To be put around the application that runs the engine's operations."""
        traffic = Traffic(self.instruments)
        running = self.instruments.gauge("graphql_subscriptions_in_flight")
        documents = look_at_caches(self.instruments, {"document": engine.documents})
        self._looks += [traffic.look, documents, lambda: running.set(engine.subscriptions)]
        return traffic


class WorkerProcess(Metrics):
    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__(WORKER_ROWS, kinds)
