"""A row is all that a vendor takes: its settings come from it. That it is served is shown by the suite beside."""

from __future__ import annotations

import pytest
from pydantic import create_model

from gateway.keys import DeploymentKeys
from gateway.settings import Settings, SettingsError, vendor_fields
from gateway.vendors import vendors
from providers.types import Credentials
from resolvers.key_pool import ProviderKey

from .added_vendor import ADDED, ROWS

KEYS = DeploymentKeys("a-signing-secret-of-more-than-32-bytes", bytes(range(32)))
WithAcme = create_model("WithAcme", __base__=Settings, **vendor_fields([ADDED]))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WithAcme.model_fields:
        monkeypatch.delenv(name, raising=False)


def test_it_is_off_without_a_key() -> None:
    assert "acme" not in vendors(WithAcme(), KEYS, ROWS)


def test_its_key_and_another_address_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEYS.sealer().seal("sk-acme"))
    found = vendors(WithAcme(), KEYS, ROWS)["acme"]
    assert (found.provider.name, found.keys.keys) == ("acme", (ProviderKey("1", Credentials("sk-acme")),))
    monkeypatch.setenv("ACME_BASE_URL", "http://127.0.0.1:1/v1")
    (key,) = vendors(WithAcme(), KEYS, ROWS)["acme"].keys.keys
    assert key.credentials == Credentials("sk-acme", "http://127.0.0.1:1/v1")


def test_several_keys_are_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", "sk-a*3,sk-b")
    pool = vendors(WithAcme(), KEYS, ROWS)["acme"].keys
    assert pool.keys == (ProviderKey("1", Credentials("sk-a"), 3), ProviderKey("2", Credentials("sk-b"), 1))


@pytest.mark.parametrize("url", ["nowhere", "http://u:p@h"])
def test_its_address_is_checked_like_any(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ACME_BASE_URL", url)
    with pytest.raises(ValueError, match="is not a plain http or https address"):
        WithAcme()


def test_its_key_is_checked_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", "sk-in two parts")
    with pytest.raises(SettingsError, match=r"^ACME_API_KEY: has characters that no HTTP header may carry"):
        vendors(WithAcme(), KEYS, ROWS)


def test_its_settings_are_described() -> None:
    assert {name: field.description for name, (_, field) in vendor_fields([ADDED]).items()} == {
        "ACME_API_KEY": "Key for `acme`, plain or `enc:v1:…`.",
        "ACME_BASE_URL": "Instead of `https://api.acme.example/v1`.",
    }
