"""How the tests of a whole run are shared out between processes, and what it says of itself at its end."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

_ROOT = Path(__file__).parents[1]

# How long an example takes is a matter of who else is at work on the machine.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@cache
def _shares(path: str) -> str | None:
    """What a file's tests have in common that takes long to start."""
    text = (_ROOT / path).read_text()
    if "site: Site" in text:
        return "site"
    return path if 'scope="module"' in text else None


class _Shares(LoadScopeScheduling):
    """What takes long to start is started once: who asks for it is in one process. All other tests go wherever there is
    room, when the large shares are under way."""

    def _split_scope(self, nodeid: str) -> str:
        return _shares(nodeid.partition("::")[0]) or nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Shares:
    return _Shares(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was left out because this machine lacks it: one loud line, with what to do about it."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ").removeprefix("NOT TESTED: ")] += 1
    if reasons:
        told = "; ".join(f"{count} for this: {reason}" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"NOT TESTED: {reasons.total()} tests. {told}", red=True, bold=True)
