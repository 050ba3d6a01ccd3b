"""What several server processes must share."""

from __future__ import annotations

import pytest

from gateway.serving import NEEDED_BY_SEVERAL, check_processes
from gateway.settings import Settings, SettingsError, load_settings

SHARED = {
    "MONGODB_CONNECTION_URI": "mongodb://127.0.0.1/x?replicaSet=rs0",
    "TIMESCALE_SERVICE_URL": "postgresql://u:p@127.0.0.1/x",
    "REDIS_URI": "redis://127.0.0.1/0",
    "QUEUE_CONNECTIONURL": "amqp://u:p@127.0.0.1/",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_nothing() -> None:
    check_processes(load_settings())


def test_several_go_with_all_that_they_share() -> None:
    assert set(SHARED) == set(NEEDED_BY_SEVERAL)
    check_processes(load_settings(MAX_WORKERS=4, **SHARED))


@pytest.mark.parametrize("name", NEEDED_BY_SEVERAL)
def test_what_is_missing_is_named(name: str) -> None:
    given = {other: value for other, value in SHARED.items() if other != name}
    with pytest.raises(SettingsError, match=rf"^MAX_WORKERS: .*: set {name}, or MAX_WORKERS=1$"):
        check_processes(load_settings(MAX_WORKERS=2, **given))
