"""Which providers this deployment can call, and by what keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from providers.ports import ModelProvider
from providers.registry import ProviderRow, build_providers
from providers.scripted import ScriptedProvider
from providers.types import Credentials
from resolvers.key_pool import KeyPool, ProviderKey
from resolvers.routing import Vendor

from .keys import DeploymentKeys
from .settings import Environment, Settings


def vendors(settings: Settings, keys: DeploymentKeys, rows: Sequence[ProviderRow]) -> Mapping[str, Vendor]:
    """Of the providers those that this deployment can call: where there is an address, and a key if one is needed.
    Raises SettingsError for a key that doesn't open."""
    providers = build_providers(rows)
    sealer = keys.sealer()
    found: dict[str, Vendor] = {}
    for row in rows:
        base_url: str | None = getattr(settings, row.base_url_variable) if row.base_url_variable else None
        given = settings.api_keys(row.key_variable, sealer) if row.key_variable else []
        if (base_url or row.base_url) and (given or row.keyless):
            numbered = enumerate(given or [("", 1)], start=1)
            pool = [ProviderKey(str(number), Credentials(key, base_url), weight) for number, (key, weight) in numbered]
            found[row.name] = Vendor(providers[row.name], KeyPool(pool))
    if settings.ENVIRONMENT is Environment.LOCAL:
        scripted = ScriptedProvider()
        found[scripted.name] = Vendor(scripted, KeyPool.of(Credentials("")))
    return found


def keyed(
    settings: Settings, rows: Sequence[ProviderRow]
) -> Mapping[str, Callable[[str], tuple[ModelProvider, Credentials]]]:
    """The providers that an organisation may have a key of its own for, and what is called by it."""
    providers = build_providers(rows)
    found: dict[str, Callable[[str], tuple[ModelProvider, Credentials]]] = {}
    for row in rows:
        base_url: str | None = getattr(settings, row.base_url_variable) if row.base_url_variable else None
        if row.key_variable and (base_url or row.base_url):
            found[row.name] = partial(_called_by, providers[row.name], base_url)
    return found


def _called_by(provider: ModelProvider, base_url: str | None, key: str) -> tuple[ModelProvider, Credentials]:
    return provider, Credentials(key, base_url)
