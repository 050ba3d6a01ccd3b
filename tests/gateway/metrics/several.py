"""A parent that forks processes which count together, as a server's does: `python -m tests.gateway.metrics.several
FOLDER`. Writes a line of JSON for each stage, with some of the figures that a process is answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.metrics.processes import child_exit, prepare_multiprocess

FIGURES = (
    "worker_jobs_total",
    "worker_job_duration_seconds_count",
    "worker_job_duration_seconds_sum",
    "queue_jobs",
    "queue_oldest_job_age_seconds",
    "ai_middleware_ready",
    "ai_middleware_processes",
)
BRIEF = 10


def counting(jobs: int) -> None:
    """So many are told of, and each gauge is set to their number, `ready` to 0 where they are odd."""
    from gateway.metrics.opening import WorkerProcess
    from resolvers.observing import JobOutcome

    metrics = WorkerProcess(("ledger",))
    for _ in range(jobs):
        metrics.jobs.worked("ledger", JobOutcome.DONE, 0.25, 1.0)
    metrics.instruments.gauge("queue_oldest_job_age_seconds").set(jobs)
    metrics.instruments.gauges("queue_jobs")[("ready",)].set(jobs)
    metrics.instruments.gauge("ai_middleware_ready").set(jobs % 2 == 0)


def forked(work: Callable[[], None], *, stays: bool) -> int:
    """A child that has done it; it stays until it is killed, or has ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        work()
        os.write(write, b"!")
        if stays:
            signal.pause()
        os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"!", "the child failed"
    os.close(read)
    if not stays:
        os.waitpid(pid, 0)
    return pid


def ended(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    child_exit(pid)


def figures() -> dict[str, float]:
    """As a process that has counted nothing itself is answered; sums over all labels."""
    from prometheus_client.parser import text_string_to_metric_families

    from gateway.metrics.opening import WorkerProcess

    page, _ = asyncio.run(WorkerProcess(()).page(""))
    found = dict.fromkeys(FIGURES, 0.0)
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            if sample.name in found:
                found[sample.name] += sample.value
    return found


def tell(folder: Path) -> None:
    """From a child, so that this process has no figures of its own."""

    def work() -> None:
        files = sorted(path.name for path in folder.glob("*.db"))
        sys.stdout.write(json.dumps({"files": files, **figures()}) + "\n")
        sys.stdout.flush()

    child_exit(forked(work, stays=False))


def watch() -> None:
    """Says how often the count fell from one look to the next, of as many as there are until it is killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.set_blocking(read, False)
        last, fell, looks = 0.0, 0, 0
        while True:
            now = figures()["worker_jobs_total"]
            fell, last, looks = fell + (now < last), now, looks + 1
            try:
                if os.read(read, 1) == b"":
                    break
            except BlockingIOError:
                time.sleep(0.002)
        sys.stdout.write(json.dumps({"fell": fell, "looks": looks, "last": last}) + "\n")
        sys.stdout.flush()
        os._exit(0)
    os.close(read)
    for _ in range(BRIEF):
        child_exit(forked(lambda: counting(1), stays=False))
    os.close(write)
    os.waitpid(pid, 0)
    child_exit(pid)


def main(folder: Path) -> None:
    prepare_multiprocess(folder)
    three, five = forked(lambda: counting(3), stays=True), forked(lambda: counting(5), stays=True)
    tell(folder)
    ended(three)
    tell(folder)
    ended(five)
    two = forked(lambda: counting(2), stays=True)
    tell(folder)
    watch()
    tell(folder)
    ended(two)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
