"""A server that takes connections and answers nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def frozen(processes: Sequence[int]) -> Iterator[None]:
    """Entered when each of their threads stands still: a signal alone is only on its way. What has ended meanwhile is
    nobody's concern."""
    _signal(processes, signal.SIGSTOP)
    try:
        until = time.monotonic() + 10
        while not all(map(_stands_still, processes)):
            assert time.monotonic() < until, "it does not stop"
            time.sleep(0.001)
        yield
    finally:
        _signal(processes, signal.SIGCONT)


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _stands_still(process: int) -> bool:
    """Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html (the state comes after the name)."""
    try:
        threads = [(task / "stat").read_text() for task in Path(f"/proc/{process}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return all(text.rpartition(")")[2].split()[0] in "TtZX" for text in threads)
