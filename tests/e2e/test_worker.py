"""The worker process, and the queue as its operator sees it."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pymongo
import pytest
from uuid_utils import uuid7

from persistence.queue_records import Job, QueueDepth
from persistence.rabbit.messages import message_of
from persistence.rabbit.queue import RabbitQueue, open_rabbit
from tests.servers.ports import free_port, listens

from .documents import COMPLETE
from .load import entries
from .processes import post, running_server
from .site import Site
from .test_cli import command


@pytest.fixture
def environment(site: Site, tmp_path: Path) -> dict[str, str]:
    """A server's that leaves the queue, one of its own, to workers."""
    own = {
        "DATA_DIR": str(tmp_path / "data"),
        "QUEUE_NAME": secrets.token_hex(6),
        "CONSUMER_STATUS": "false",
    }
    return {**site.environments[0], **own}


@contextmanager
def running_worker(environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        worker = subprocess.Popen([sys.executable, "-m", "gateway", "worker"], env=dict(environment), stderr=output)
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait(timeout=30)


def queue(environment: Mapping[str, str], *arguments: str) -> str:
    done = command("queue", *arguments, environment=dict(environment))
    assert done.returncode == 0, done.stderr
    return done.stdout


def failures(environment: Mapping[str, str], name: str) -> int:
    """As MongoDB counts them."""
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(environment["MONGODB_CONNECTION_URI"])
    with client:
        found = client.get_default_database().job_failures.find_one({"_id": name})
        return found["failures"] if found else 0


async def parked(queue: RabbitQueue) -> None:
    """Returns when all of one job is: taken, and refused by a worker."""
    async with asyncio.timeout(30):
        while await queue.depth() != QueueDepth(ready=0, resting=0, parked=1):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.1)


async def test_it_books_what_waited(site: Site, environment: dict[str, str], tmp_path: Path) -> None:
    organisation = f"worker-{secrets.token_hex(4)}"
    with running_server(environment) as server:
        asked = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "A secret question."}]}
        await asyncio.to_thread(site.parts["TimescaleDB"].kill)
        answers = [post(server, server.token(organisation), COMPLETE, {"input": asked}) for _ in range(5)]
        done = {answer["data"]["complete"]["id"].removeprefix("cmp_") for answer in answers}
        await asyncio.to_thread(site.parts["TimescaleDB"].start)
    waiting = queue(environment, "status")
    assert waiting.startswith("ready ")
    assert not waiting.startswith("ready 0\n")
    with running_worker(environment, tmp_path / "log") as worker:
        async with asyncio.timeout(60):
            while len(booked := await entries(site, organisation)) < len(done):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.1)
        assert {each.removeprefix("cmp_").replace("-", "") for each in booked} == done
        assert all(values[0] == 1 and not values[3] for values in booked.values())
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, timeout=30) == 0
    assert queue(environment, "status") == "ready 0\nresting 0\nparked 0\n"
    assert b"ends what it has in hand" in (tmp_path / "log").read_bytes()


async def test_what_it_cannot_do_is_parked_shown_replayed_and_dropped(
    environment: dict[str, str], tmp_path: Path
) -> None:
    job = Job(str(uuid7()), "of-a-later-version", '{"item":1}', datetime.now(UTC))
    with running_worker(environment, tmp_path / "log"):
        async with open_rabbit(environment["QUEUE_CONNECTIONURL"], environment["QUEUE_NAME"]) as jobs:
            await jobs.publish([job])
            await parked(jobs)
            listed = queue(environment, "list")
            assert job.id in listed
            assert "no worker of this version does 'of-a-later-version'" in listed
            shown = orjson.loads(queue(environment, "show", job.id))
            assert (shown["kind"], shown["body"], shown["failures"]) == ("of-a-later-version", {"item": 1}, 1)
            assert queue(environment, "replay", job.id) == f"replayed: {job.id}\n"
            await parked(jobs)
            assert orjson.loads(queue(environment, "show", job.id))["failures"] == 1, "it has begun anew"
        assert failures(environment, job.id) == 1, "the replayed one is counted by a name of its own"
        assert queue(environment, "status") == "ready 0\nresting 0\nparked 1\n"
        assert queue(environment, "drop", "--all") == "dropped: all that were parked\n"
        assert queue(environment, "list") == "nothing is parked\n"
        missing = command("queue", "replay", job.id, environment=environment)
        assert (missing.returncode, job.id in missing.stderr) == (1, True)


async def test_each_job_is_a_line_whatever_is_in_its_reason(environment: dict[str, str]) -> None:
    job = Job(str(uuid7()), "odd\x1b[2J", "{}", datetime.now(UTC), 6, "one\ntwo\x1b]0;title\x07\x9b31m")
    async with open_rabbit(environment["QUEUE_CONNECTIONURL"], environment["QUEUE_NAME"]) as jobs:
        await jobs.probe()
        await jobs.send(jobs.parking, [message_of(job)])
    _, line = queue(environment, "list").splitlines()
    assert line.rstrip().endswith("one two ]0;title  31m")
    assert line.isprintable()


def test_the_embedded_queue_is_shown_too(tmp_path: Path) -> None:
    plain = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data")}
    assert queue(plain, "status") == "ready 0\nresting 0\nparked 0\n"
    assert queue(plain, "list") == "nothing is parked\n"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "QUEUE_CONNECTIONURL: is not set"),
        ({"QUEUE_CONNECTIONURL": "amqp://guest:guest@127.0.0.1:1/"}, "TIMESCALE_SERVICE_URL: is not set"),
    ],
)
def test_a_worker_without_its_servers_says_so(tmp_path: Path, more: dict[str, str], told: str) -> None:
    done = command("worker", environment={"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), **more})
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_it_tells_on_the_internal_port_that_it_is_alive(environment: dict[str, str], tmp_path: Path) -> None:
    production = {**environment, "ENVIRONMENT": "PRODUCTION", "INTERNAL_PORT": str(free_port())}
    where = f"http://127.0.0.1:{production['INTERNAL_PORT']}"
    with running_worker(production, tmp_path / "log") as worker:
        until_s = time.monotonic() + 60
        while not listens(int(production["INTERNAL_PORT"])):
            assert time.monotonic() < until_s, (tmp_path / "log").read_text()
            time.sleep(0.1)
        found = {path: httpx.get(f"{where}{path}", timeout=30) for path in ("/healthcheck", "/readyz")}
        assert {path: (answer.status_code, answer.text) for path, answer in found.items()} == {
            "/healthcheck": (200, "alive\n"),
            "/readyz": (200, "ready\n"),
        }
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
