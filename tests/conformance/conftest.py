from __future__ import annotations

import pytest

from persistence.redis import client


@pytest.fixture(autouse=True)
def unhurried_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long an answer takes is a matter of who else is at work on the machine. That a Redis which says nothing is
    given up in time is tested in `tests/persistence`."""
    monkeypatch.setattr(client, "TIMEOUT_S", 20.0)
