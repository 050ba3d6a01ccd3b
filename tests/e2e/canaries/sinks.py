"""All that is written, kept and passed on, as bytes to look through."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.servers.collector import HTTPSink

from .canaries import Group, Sink

DATABASE = "ai-middleware.db"


def files_of(folder: Path) -> Iterator[Sink]:
    """Of a DATA_DIR: the log of its server, the embedded database, and all else."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            if path.suffix == ".log":
                group = Group.OUTPUT
            elif path.name.startswith(DATABASE):
                group = Group.DOCUMENTS
            else:
                group = Group.FILES
            yield Sink(group, str(path), path.read_bytes())


def commands_of(*pids: int) -> list[Sink]:
    """Of each process and its children."""
    processes = [each for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
    return [Sink(Group.PROCESS, f"process {each.pid}", "\0".join(each.cmdline()).encode()) for each in processes]


def traces_of(sink: HTTPSink) -> Iterator[Sink]:
    """All that was sent, and how."""
    for number, each in enumerate(sink.received):
        content = b"\n".join((each.path.encode(), repr(each.headers).encode(), each.body))
        yield Sink(Group.TRACES, f"request {number} to the collector", content)


def output_of(process: subprocess.Popen[str]) -> Sink:
    """What is left of the standard output of a process that has ended."""
    assert process.stdout is not None
    return Sink(Group.OUTPUT, "standard output", process.stdout.read().encode())
