"""Whoever traces for this process, as the settings say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..settings import Settings, SettingsError
from .port import NoTracing, Tracing


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator[Tracing]:
    """What has not been sent is sent at the end. Raises SettingsError where an extra is missing."""
    tracing = _tracing(settings)
    try:
        yield tracing
    finally:
        await tracing.close()


def _tracing(settings: Settings) -> Tracing:
    if settings.traces_by_otel:
        try:
            from .otel_export import exporting
        except ImportError as error:
            raise _missing("OTEL_EXPORTER_OTLP_ENDPOINT", "otel") from error
        return exporting(metrics=settings.OTEL_METRICS_EXPORTER == "otlp")
    if settings.ATATUS_LICENSE_KEY is not None:
        try:
            from .atatus_agent import agent
        except ImportError as error:
            raise _missing("ATATUS_LICENSE_KEY", "atatus") from error
        return agent(settings.ATATUS_LICENSE_KEY.get_secret_value(), settings.ENVIRONMENT)
    return NoTracing()


def _missing(variable: str, extra: str) -> SettingsError:
    return SettingsError(f"{variable}: is set, and the extra {extra!r} is not installed: pip install '.[{extra}]'")
