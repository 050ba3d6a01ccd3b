"""Logs as they come out of a process: for people with LOCAL, for machines with PRODUCTION."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Environment

PROGRAM = """
import logging, sys, warnings
import structlog
from gateway.settings import Environment
from gateway.telemetry import configure_logging

early = structlog.get_logger("early")
configure_logging(Environment(sys.argv[1]))
log = structlog.get_logger("http")
with structlog.contextvars.bound_contextvars(request_id="r-1"):
    log.info("request", status=200, text="two\\nlines, é", odd=object)
    logging.getLogger("asyncio").error("lost %s", "a task")
early.warning("from a logger made before", n=1)
log.debug("not shown")
logging.getLogger("library").info("not shown")
logging.getLogger("library").warning("two\\nlines")
warnings.warn("careful", stacklevel=1)
try:
    secret = "hunter2" + "hunter2"
    raise ValueError("broken")
except ValueError:
    log.exception("unexpected error")
    logging.getLogger("library").exception("unexpected too")
"""


def run(environment: Environment) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, environment],
        capture_output=True,
        encoding="utf-8",
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert done.stdout == "", "standard output is for what was asked for"
    assert "not shown" not in done.stderr
    assert "hunter2hunter2" not in done.stderr, "no local variables"
    return done.stderr


@pytest.fixture(scope="module")
def entries() -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(Environment.PRODUCTION).splitlines()]


def entry(entries: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (found,) = [entry for entry in entries if event in entry["event"]]
    return found


def test_production_writes_one_object_a_line(entries: list[dict[str, Any]]) -> None:
    assert len(entries) == 7
    for one in entries:
        assert one["level"] in {"info", "warning", "error"}
        written = datetime.fromisoformat(one["timestamp"])
        assert written.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - written) < timedelta(minutes=5)


def test_fields_arrive_as_they_were_given(entries: list[dict[str, Any]]) -> None:
    request = entry(entries, "request")
    assert (request["status"], request["text"]) == (200, "two\nlines, é")
    assert request["odd"] == repr(object), "what JSON has no form for is described"


def test_context_is_merged_where_it_is_bound(entries: list[dict[str, Any]]) -> None:
    assert entry(entries, "request")["request_id"] == "r-1"
    assert entry(entries, "lost a task")["request_id"] == "r-1"
    assert "request_id" not in entry(entries, "from a logger made before")


def test_the_standard_library_goes_the_same_way(entries: list[dict[str, Any]]) -> None:
    assert entry(entries, "two\nlines")["level"] == "warning"
    assert entry(entries, "lost a task")["level"] == "error"
    assert "UserWarning: careful" in entry(entries, "careful")["event"]


@pytest.mark.parametrize("event", ["unexpected error", "unexpected too"])
def test_exceptions_are_part_of_their_line(entries: list[dict[str, Any]], event: str) -> None:
    trace = entry(entries, event)["exception"].splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ValueError: broken"


def test_local_is_readable() -> None:
    text = run(Environment.LOCAL)
    assert "\x1b[" not in text, "no colours where nobody watches a terminal"
    assert "status=200" in text
    assert "request_id=r-1" in text
    assert "lost a task" in text
    assert text.count("\nValueError: broken\n") == 2
    (request,) = [line for line in text.splitlines() if "status=200" in line]
    assert "[info" in request
    assert not request.startswith("{")
