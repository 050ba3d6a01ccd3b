"""Several processes that count as one: real ones, forked, killed and replaced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.metrics.processes import child_exit, prepare_multiprocess

from .several import BRIEF

Stages = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what an earlier run has left."""
    left = tmp_path_factory.mktemp("several") / "metrics"
    left.mkdir()
    (left / "counter_1.db").write_bytes(b"of another version")
    (left / "gauge_livesum_1.db").write_bytes(b"")
    return left


@pytest.fixture(scope="module")
def stages(folder: Path) -> Stages:
    program = [sys.executable, "-m", "tests.gateway.metrics.several", str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_counts_are_added_up(stages: Stages) -> None:
    both = stages[0]
    assert both["worker_jobs_total"] == 8
    assert (both["worker_job_duration_seconds_count"], both["worker_job_duration_seconds_sum"]) == (8, 2.0)


def test_gauges_are_put_together_as_the_table_says(stages: Stages) -> None:
    both = stages[0]
    assert both["queue_oldest_job_age_seconds"] == 5, "the greatest"
    assert both["queue_jobs"] == 5, "the latest"
    assert both["ai_middleware_ready"] == 0, "the least"
    assert both["ai_middleware_processes"] == 3, "the sum, of the one that was asked too"


def test_what_a_dead_ai_middleware_processesed_stands_and_its_gauges_go(stages: Stages) -> None:
    _, without_three, without_both, *_ = stages
    assert (without_three["worker_jobs_total"], without_three["worker_job_duration_seconds_sum"]) == (8, 2.0)
    assert without_three["ai_middleware_processes"] == 2
    assert without_both["worker_jobs_total"] == 10
    assert without_both["queue_oldest_job_age_seconds"] == 2
    assert without_both["ai_middleware_ready"] == 0, "of the one that was asked, which has not looked yet"


def test_nobody_sees_a_count_fall_while_processes_come_and_go(stages: Stages) -> None:
    watched, after = stages[3:]
    assert watched["fell"] == 0
    assert watched["looks"] > 1
    assert watched["last"] <= after["worker_jobs_total"] == 10 + BRIEF


def test_the_folder_does_not_grow_with_processes(stages: Stages) -> None:
    dead = {"counter_dead.db", "histogram_dead.db"}
    assert dead <= set(stages[2]["files"])
    assert len(stages[4]["files"]) == len(stages[2]["files"])
    assert "counter_1.db" not in stages[0]["files"], "emptied at the start"


def test_it_has_to_come_before_the_client_library(tmp_path: Path) -> None:
    import prometheus_client  # noqa: F401  # as any test before this one may have

    with pytest.raises(RuntimeError, match="imported before"):
        prepare_multiprocess(tmp_path)


def test_one_process_has_no_folder() -> None:
    child_exit(12345)
