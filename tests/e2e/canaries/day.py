"""A day on a site: calls of every kind, then the ledger goes away, then the queue too, then the process dies; another
takes its place, and a worker books what waited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from uuid_utils import uuid7

from persistence.queue_records import Job
from persistence.rabbit.queue import open_rabbit
from tests.servers.ports import free_port
from tests.servers.postgres import rows

from ..documents import COMPLETE
from ..isolation.organisations import PROVIDER, Organisation
from ..processes import Server, Vendor, running_server
from ..test_cli import command
from ..test_worker import running_worker
from .canaries import Canary, Group, Sink, canary
from .servers import Servers
from .sinks import commands_of, files_of, output_of
from .traffic import Recorder, Traffic

BOOKED = "SELECT count(*) FROM ledger_entries WHERE completion_id = ANY($1)"


@dataclass
class Day:
    servers: Servers
    vendor: Vendor
    environment: Mapping[str, str]
    recorder: Recorder
    canaries: list[Canary] = field(default_factory=list)
    sinks: list[Sink] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return Path(self.environment["DATA_DIR"])

    def run(self) -> None:
        self.migrate()
        with running_server(self.environment) as server:
            self.ready()
            traffic = Traffic(server, self.recorder)
            with running_worker({**self.environment, "INTERNAL_PORT": str(free_port())}, self.folder / "batches.log"):
                owner = traffic.run()
            self.canaries += traffic.canaries
            answered = self.outage(server, traffic, owner)
        self.sinks += files_of(self.folder)  # as the process left them
        self.servers.broker.start()
        worker_log = self.folder / "worker.log"
        internal = str(free_port())
        own = {**self.environment, "INTERNAL_PORT": internal}
        with running_worker(own, worker_log) as worker, running_server(self.environment) as server:
            self.ready(503)
            self.servers.postgres.start()
            self.ready()
            self.look_up(asyncio.run(self.parked()))
            self.booked(answered)
            self.recorder.client.get(f"http://127.0.0.1:{internal}/metrics").raise_for_status()
            self.sinks += commands_of(server.process.pid, worker.pid)

    def outage(self, server: Server, traffic: Traffic, owner: Organisation) -> list[str]:
        """The ids of what was answered meanwhile."""

        def complete(order: str) -> str:
            found: str = owner.asked(COMPLETE, {"input": traffic.asked(owner, order)})["complete"]["id"]
            return found

        self.servers.postgres.kill()
        answered = [complete("[[echo]]") for _ in range(3)]
        self.ready(503, 200)
        self.sinks += asyncio.run(self.servers.messages())
        with ThreadPoolExecutor() as pool:
            running = [pool.submit(complete, f"[[delay={delay}]]") for delay in (1500, 1700)]
            self.until(lambda: self.vendor.tally(PROVIDER, owner.model)["open"] == len(running))
            self.servers.broker.kill()
            answered += [each.result() for each in running]
            assert "SERVICE_UNAVAILABLE" in owner.raw(COMPLETE, {"input": traffic.asked(owner, "")}).text
            self.sinks += commands_of(server.process.pid)
            server.process.kill()
        server.process.wait()
        self.sinks.append(output_of(server.process))
        return answered

    def migrate(self) -> None:
        """With the right password, and with one that is refused."""
        wrong = canary("a wrong password")
        self.canaries.append(wrong)
        changed = self.servers.ledger.replace(self.servers.encoded("PostgreSQL"), quote(wrong.value, safe=""))
        with ThreadPoolExecutor() as pool:
            right = pool.submit(self.order, "migrate")
            self.order("migrate", status=2, TIMESCALE_SERVICE_URL=changed)
            right.result()

    def look_up(self, job: str) -> None:
        """What an operator looks at."""
        sealed = canary("a secret that is sealed for a setting")
        self.canaries.append(sealed)
        orders = (("queue", "list"), ("queue", "show", job), ("rotate-keys",), ("encrypt",))
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.order, *order, stdin=sealed.value) for order in orders]:
                done.result()

    def order(self, *arguments: str, status: int = 0, stdin: str = "", **changes: str) -> None:
        done = command(*arguments, environment={**self.environment, **changes}, stdin=stdin)
        self.sinks.append(Sink(Group.OUTPUT, " ".join(arguments), f"{done.stdout}\n{done.stderr}".encode()))
        assert done.returncode == status, done.stderr

    def ready(self, *statuses: int) -> None:
        """Readiness, on the port that production has for it; and what else is there."""
        base = f"http://127.0.0.1:{self.environment['INTERNAL_PORT']}"
        self.until(lambda: self.recorder.client.get(f"{base}/readyz").status_code in (statuses or (200,)))
        self.recorder.client.get(f"{base}/metrics").raise_for_status()

    async def parked(self) -> str:
        """The id of a job that no worker of this version does, when it is parked."""
        job = Job(str(uuid7()), "of-a-later-version", '{"item":1}', datetime.now(UTC))
        async with (
            asyncio.timeout(30),
            open_rabbit(self.environment["QUEUE_CONNECTIONURL"], self.environment["QUEUE_NAME"]) as jobs,
        ):
            await jobs.publish([job])
            while not await jobs.parked(limit=1):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.1)
        return job.id

    def booked(self, answered: list[str]) -> None:
        """What was answered has its entry by now, or soon."""
        self.until(lambda: asyncio.run(rows(self.servers.ledger, BOOKED, answered)) == [(len(answered),)])

    def until(self, condition: Callable[[], bool]) -> None:
        """For what other processes do, which send no signal."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)
