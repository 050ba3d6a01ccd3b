"""The image is built and run, by `make image-test` alone: read-only, without rights, as uid 1001."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.callers import asking
from tests.e2e.documents import COMPLETE
from tests.e2e.processes import Server, Vendor, post, running_vendor, server_environment
from tests.e2e.site import Site, running_site
from tests.servers.missing import missing
from tests.servers.ports import free_port

from .image import TAG, Container, Workshop, missing_tools

pytestmark = pytest.mark.image
MAX_MB = 450
PROCESSES = 5
"""With their master."""
COUNT = """
import glob
lines = [open(file, "rb").read() for file in glob.glob("/proc/[0-9]*/cmdline")]
print(sum(line.endswith(b"ai-middleware\\0serve\\0") for line in lines))
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if tools := missing_tools():
        missing(f"an image can't be built without {', '.join(tools)}")
    made = Workshop(tmp_path_factory.mktemp("workshop"))
    made.build()
    return made


@pytest.fixture(scope="module")
def about(workshop: Workshop) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(workshop.podman("image", "inspect", TAG))[0]
    return described


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    with running_vendor() as started:
        yield started


@pytest.fixture(scope="module")
def site(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), vendor, processes=1) as started:
        yield started


def environment(folder: Path, vendor: Vendor, **more: str) -> dict[str, str]:
    """What the image is given: it knows the rest."""
    given = server_environment(folder, vendor, PORT=str(free_port()), INTERNAL_PORT=str(free_port()), **more)
    return {name: value for name, value in given.items() if name not in ("PATH", "DATA_DIR", "ENVIRONMENT")}


def answered(url: str, container: Container) -> httpx.Response:
    until = time.monotonic() + 60
    while True:
        try:
            return httpx.get(url, timeout=10)
        except httpx.TransportError:
            assert container.process.poll() is None, container.log()
            assert time.monotonic() < until, container.log()
            time.sleep(0.1)


def eventually(condition: Callable[[], bool], container: Container) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, container.log()
        time.sleep(0.1)


def test_what_it_is(about: dict[str, Any]) -> None:
    config = about["Config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("1001:1001", ["ai-middleware"], ["serve"])
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}
    assert set(config["Volumes"]) == {"/data"}
    check, second = about["Healthcheck"], 10**9
    times = (check["Interval"], check["Timeout"], check["StartPeriod"], check["Retries"])
    assert times == (30 * second, 30 * second, 5 * second, 3)
    assert config["Labels"]["org.opencontainers.image.revision"] == "0123abc"
    assert about["Size"] < MAX_MB * 10**6


def test_it_serves_alone(workshop: Workshop, about: dict[str, Any], vendor: Vendor, tmp_path: Path) -> None:
    given = environment(tmp_path, vendor, MAX_WORKERS="1")
    server = Server(None, int(given["PORT"]), tmp_path, given["JWT_TOKEN_SECRET"])  # type: ignore[arg-type]  # podman's
    begun = time.monotonic()
    with workshop.container(environment=given) as container:
        assert answered(f"http://127.0.0.1:{given['PORT']}/healthcheck", container).text == "alive\n"
        print(f"started within {time.monotonic() - begun:.1f} s; {about['Size'] / 10**6:.0f} MB")
        ready = answered(f"http://127.0.0.1:{given['INTERNAL_PORT']}/readyz", container)
        assert (ready.status_code, ready.text) == (200, "ready\n")
        answer = post(server, server.token("image"), COMPLETE, {"input": asking("image", "[[tokens=2]]")})
        assert answer["data"]["complete"]["finishReason"] == "STOP"
        assert container.exec("id", "-u").stdout == "1001\n"
        assert container.exec("touch", "/srv/new").returncode != 0
        assert container.exec("find", "/srv/venv", "-name", "pip").stdout == ""
        health = container.exec(*health_command(about))
        assert health.returncode == 0, health.stderr
        assert container.stop() == 0, container.log()


def test_it_serves_with_four_processes_works_and_migrates(
    workshop: Workshop, about: dict[str, Any], vendor: Vendor, site: Site, tmp_path: Path
) -> None:
    shared = {name: value for name, value in site.environments[0].items() if name.endswith(("_URI", "_URL", "URL"))}
    given = environment(tmp_path, vendor, **{name: value for name, value in shared.items() if "BASE_URL" not in name})
    with workshop.container("migrate", environment=given) as container:
        assert container.process.wait(timeout=60) == 0, container.log()
        assert container.log().count("is up to date") == 3
    with workshop.container(environment=given) as container:
        eventually(lambda: "listens on" in container.log(), container)
        server = Server(None, int(given["PORT"]), tmp_path, given["JWT_TOKEN_SECRET"])  # type: ignore[arg-type]
        answer = post(server, server.token("image"), COMPLETE, {"input": asking("image-4", "[[tokens=2]]")})
        assert answer["data"]["complete"]["finishReason"] == "STOP"
        counted = container.exec("python", "-c", COUNT)
        assert counted.stdout == f"{PROCESSES}\n", counted.stderr
        assert container.stop() == 0, container.log()
    with workshop.container("worker", environment=given) as container:
        ready = answered(f"http://127.0.0.1:{given['INTERNAL_PORT']}/readyz", container)
        assert (ready.status_code, ready.text) == (200, "ready\n")
        health = container.exec(*health_command(about))
        assert health.returncode == 0, health.stderr
        assert container.stop() == 0, container.log()


def test_what_is_missing_is_one_line(workshop: Workshop, vendor: Vendor, tmp_path: Path) -> None:
    with workshop.container(environment=environment(tmp_path, vendor)) as container:
        assert container.process.wait(timeout=60) == 2
        assert container.log().startswith("ai-middleware: MAX_WORKERS: 4 processes need servers that they share")


def health_command(about: dict[str, Any]) -> list[str]:
    kind, *command = about["Healthcheck"]["Test"]
    assert kind == "CMD"
    return list(command)
