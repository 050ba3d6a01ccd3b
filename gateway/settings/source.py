"""How the environment is read."""

from __future__ import annotations

from enum import StrEnum

from pydantic_settings import BaseSettings, SettingsConfigDict


class Environment(StrEnum):
    LOCAL = "LOCAL"
    PRODUCTION = "PRODUCTION"


class Source(BaseSettings):
    """Names as they are, an empty value counts as not set, and no error repeats a value."""

    model_config = SettingsConfigDict(
        case_sensitive=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,  # secrets read from files come with their newline
    )
