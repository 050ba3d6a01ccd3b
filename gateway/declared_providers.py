"""Providers that operators declare in a file of their own: servers that speak chat completions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, field_validator

from providers.registry import ROWS, ProviderRow, declared_row
from providers.scripted import ScriptedProvider

from .setting_values import is_plain_address
from .settings import Settings, SettingsError
from .strict_yaml import STRICT, UnreadableFileError, read_yaml


class _Provider(BaseModel):
    """Without `keyVariable` it is called without a key; with one, it is off where that variable is not set."""

    model_config = STRICT

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    title: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    base_url: str
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] | None = None
    dialect: Literal["compatible", "openai", "groq", "mistral", "openrouter"] = "compatible"

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if not is_plain_address(value):
            raise ValueError("is not a plain http or https address such as https://api.example.com/v1")
        return value

    @field_validator("key_variable")
    @classmethod
    def _check_variable(cls, value: str | None) -> str | None:
        """The deployment's own secrets go to nobody."""
        if value in Settings.model_fields and not value.endswith("_API_KEY"):
            raise ValueError(f"{value} is a setting of another kind")
        return value


def _check_names(providers: list[_Provider]) -> list[_Provider]:
    taken = {row.name for row in ROWS} | {ScriptedProvider().name}
    for provider in providers:
        if provider.name in taken:
            raise ValueError(f"the name {provider.name!r} is taken")
        taken.add(provider.name)
    return providers


class _File(BaseModel):
    model_config = STRICT

    providers: Annotated[list[_Provider], Field(max_length=100), AfterValidator(_check_names)]


def provider_rows(settings: Settings) -> tuple[ProviderRow, ...]:
    """Every provider that there is: the vendors, then what PROVIDERS_FILE declares. Raises SettingsError."""
    return ROWS if settings.PROVIDERS_FILE is None else (*ROWS, *_declared(settings.PROVIDERS_FILE))


def _declared(path: Path) -> list[ProviderRow]:
    try:
        file = read_yaml(path, _File, such_as="providers: []")
    except UnreadableFileError as error:
        raise SettingsError(f"PROVIDERS_FILE: {error}") from None
    return [
        declared_row(each.name, each.title or each.name, each.base_url, each.key_variable, each.dialect)
        for each in file.providers
    ]
