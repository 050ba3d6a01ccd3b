"""Real child processes and real full disks."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(code: str, *arguments: object) -> str:
    child = start(code, *arguments)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return out


def kill_at_first_line(code: str, *arguments: object) -> str:
    """The child's first line of output; it is killed where it stands after that."""
    with start(code, *arguments) as child:
        line = child.stdout.readline().strip()
        child.kill()
        assert line, child.stderr.read()
    return line


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow past `size` bytes: what a full disk looks like to a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
