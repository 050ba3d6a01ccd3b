"""`make observe` as a developer starts it: what it prints answers, the metrics move, and nothing is left at its end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from tests.servers.prometheus import Prometheus, found_or_skip

from .written import ROOT


def test_metrics_move_until_it_is_ended() -> None:
    for binary in ("prometheus", "prometheus-alertmanager"):
        found_or_skip(binary)
    command = [sys.executable, "-m", "tests.observability.observe"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "Ctrl-C" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            found = re.search(r"^Prometheus +(http://[^/]+)/alerts$", said, re.MULTILINE)
            alertmanager = re.search(r"^Alertmanager +(\S+)$", said, re.MULTILINE)
            log = re.search(r"its log +(\S+)$", said, re.MULTILINE)
            assert found
            assert alertmanager
            assert log
            prometheus = Prometheus(found[1], Path())
            until_told(prometheus, "sum(rate(ai_requests_total[1m])) > 0")
            until_told(prometheus, "min by (dependency) (dependency_up)")
            names = set()
            end = time.monotonic() + 60
            while "Watchdog" not in names:  # by Prometheus' rules, through its discovery of Alertmanager
                assert time.monotonic() < end
                answer = httpx.get(f"{alertmanager[1]}/api/v2/alerts", timeout=30).json()
                names = {each["labels"]["alertname"] for each in answer}
                time.sleep(0.2)
            below = psutil.Process(process.pid).children(recursive=True)
            assert len(below) == 4
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
    assert process.returncode == 0
    assert not [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not Path(log[1]).parents[1].exists()


def until_told(prometheus: Prometheus, expression: str) -> None:
    end = time.monotonic() + 60
    while not prometheus.query(expression):
        assert time.monotonic() < end
        time.sleep(0.2)
