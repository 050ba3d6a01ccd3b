"""What a whole run says of itself at its end."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was left out because this machine lacks it: one loud line, with what to do about it."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ").removeprefix("NOT TESTED: ")] += 1
    if reasons:
        told = "; ".join(f"{count} for this: {reason}" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"NOT TESTED: {reasons.total()} tests. {told}", red=True, bold=True)
