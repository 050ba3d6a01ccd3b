"""What a store tells of its writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """A config was written, or one of its versions published."""

    organisation: str
    slug: str


@dataclass(frozen=True, slots=True)
class PricesChanged:
    """A price rule of the organisation was written."""

    organisation: str


@dataclass(frozen=True, slots=True)
class ApiKeyChanged:
    """An API key was changed, rotated or revoked."""

    organisation: str
    key_id: str


@dataclass(frozen=True, slots=True)
class ProviderKeysChanged:
    """A key of the organisation's at a provider was set, sealed anew or deleted."""

    organisation: str


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    """A limit of the organisation's was set or removed."""

    organisation: str


@dataclass(frozen=True, slots=True)
class AnythingChanged:
    """What was written is not known: all of it may have been."""


Change = ConfigChanged | PricesChanged | ApiKeyChanged | ProviderKeysChanged | LimitsChanged | AnythingChanged
