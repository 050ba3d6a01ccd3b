"""Several processes that are counted as one: each has its files in a folder, and whoever is asked adds them up.

prometheus-client decides by the environment, as it is imported, whether values are in files; so this is called before
anything of `gateway.metrics` is imported (https://prometheus.github.io/client_python/multiprocess/).
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK = "lock"
DEAD = "dead"
_KEPT = ("counter", "histogram")
"""What a process has counted stands after its end; what it was at the moment does not."""


def prepare_multiprocess(folder: Path) -> None:
    """For the parent, before it forks: the folder is made, emptied, and named to the client library. Raises
    RuntimeError where that has been imported already, OSError where the folder can't be written."""
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before its folder was named: it would count apart")
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    (folder / LOCK).touch()
    os.environ[VARIABLE] = str(folder)


def shared_folder() -> Path | None:
    """Where several processes count; None where there is one."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def child_exit(pid: int) -> None:
    """For the parent, when a child has ended: what it counted is added to what all the dead have counted, so that the
    folder does not grow with each of them; its gauges go. Nothing happens where nothing was prepared."""
    folder = shared_folder()
    if folder is None:
        return
    with locked(folder, fcntl.LOCK_EX):
        for kind in _KEPT:
            _fold(folder / f"{kind}_{pid}.db", folder / f"{kind}_{DEAD}.db")
        for file in folder.glob(f"gauge_*_{pid}.db"):
            file.unlink()


@contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Readers (LOCK_SH) never see a file that is being folded (LOCK_EX), whose counts would be there twice."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


def _fold(file: Path, into: Path) -> None:
    from prometheus_client.mmap_dict import MmapedDict, mmap_key
    from prometheus_client.multiprocess import MultiProcessCollector

    if not file.exists():
        return
    merged = MultiProcessCollector.merge([str(each) for each in (into, file) if each.exists()], accumulate=False)
    fresh = into.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    values = MmapedDict(str(fresh))
    try:
        for metric in merged:
            for sample in metric.samples:
                names, labels = list(sample.labels), list(sample.labels.values())
                values.write_value(
                    mmap_key(metric.name, sample.name, names, labels, metric.documentation), sample.value, 0.0
                )
    finally:
        values.close()
    fresh.replace(into)
    file.unlink()
