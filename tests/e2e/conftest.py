"""One server and one fake vendor for each test process; tests keep apart by organisation and model."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Server, Vendor, running_server, running_vendor, server_environment
from .site import Site, running_site


@pytest.fixture(scope="session")
def vendor() -> Iterator[Vendor]:
    with running_vendor() as started:
        yield started


@pytest.fixture(scope="session")
def server(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("server")
    with running_server(server_environment(folder, vendor)) as started:
        yield started


@pytest.fixture
def organisation() -> str:
    """A fresh organisation, so that its ledger holds this test's entries alone."""
    return f"org-{secrets.token_hex(6)}"


@pytest.fixture
def token(server: Server, organisation: str) -> str:
    return server.token(organisation)


@pytest.fixture(scope="session")
def site(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), vendor) as started:
        yield started
