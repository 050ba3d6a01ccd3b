"""A vendor that speaks chat completions, added as any is: by this row and its transcripts, and nothing else."""

from __future__ import annotations

from functools import partial

from providers import registry
from providers.compatible import CompatibleCodec
from providers.registry import ProviderRow

ADDED = ProviderRow(
    name="acme",
    title="Acme",
    base_url="https://api.acme.example/v1",
    codec=partial(CompatibleCodec, "acme"),
    key_variable="ACME_API_KEY",
    base_url_variable="ACME_BASE_URL",
    reference="https://docs.acme.example/api/chat-completions",
    example="acme-1",
)
ROWS = (*registry.ROWS, ADDED)
