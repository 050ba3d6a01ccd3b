"""What is said at the start of servers that the settings lead nowhere to."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.object_links import ObjectLinks
from gateway.settings import SettingsError, load_settings
from gateway.stores import DATABASE_FILE, open_stores
from persistence.migrations.sqlite import migrate


@pytest.mark.parametrize(
    ("address", "url", "ca_file"),
    [
        ("REDIS_URI", "rediss://127.0.0.1:1/0", "REDIS_TLS_CA_FILE"),
        ("QUEUE_CONNECTIONURL", "amqps://127.0.0.1:1/", "QUEUE_TLS_CA_FILE"),
        ("MONGODB_CONNECTION_URI", "mongodb://127.0.0.1:1/ai?replicaSet=rs0", "MONGODB_TLS_CA_FILE"),
        ("OBJECT_STORE_URL", "s3://bucket", "OBJECT_STORE_TLS_CA_FILE"),
    ],
)
async def test_authorities_that_can_t_be_read_are_told_at_the_start(
    tmp_path: Path, address: str, url: str, ca_file: str
) -> None:
    """A start that waited for such a server would wait for ever."""
    migrate(tmp_path / DATABASE_FILE)
    given: dict[str, Any] = {"DATA_DIR": tmp_path, address: url, ca_file: tmp_path / "none.pem"}
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match=rf"^{address}: .*/none\.pem can't be read as a file of certificates$"):
            await open_stores(load_settings(**given), stack, ObjectLinks("a secret of this test"))
