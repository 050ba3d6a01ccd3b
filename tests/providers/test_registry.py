from __future__ import annotations

import pytest

from providers.adapter import CodecProvider
from providers.registry import ROWS, ProviderRow, build_providers


def test_providers_are_built_by_name() -> None:
    providers = build_providers()
    assert list(providers) == ["openai", "anthropic", "google", "groq", "mistral", "openrouter", "azure", "compatible"]
    assert all(provider.name == name for name, provider in providers.items())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_complete(row: ProviderRow) -> None:
    assert row.codec().provider == row.name
    known_as = {"azure": "AZURE_OPENAI"}.get(row.name, row.name.upper())
    assert row.key_variable == f"{known_as}_API_KEY"
    assert row.base_url_variable == f"{known_as}_BASE_URL"
    assert row.reference.startswith("https://")
    assert row.base_url is None or (row.base_url.startswith("https://") and not row.base_url.endswith("/"))


def test_what_everybody_runs_for_himself_has_no_address_of_its_own() -> None:
    bare = [name for name, each in build_providers().items() if isinstance(each, CodecProvider) and not each.base_url]
    assert bare == ["azure", "compatible"]
