"""Logs: one JSON object a line on standard error; readable lines where a person watches (ENVIRONMENT=LOCAL)."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

from .settings import Environment


def configure_logging(environment: Environment) -> None:
    """Sets structlog up for the process, and sends the standard library's warnings the same way."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *_renderers(environment)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_logger_factory(environment),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_foreign(environment))
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.getLogger("aiormq.channel").setLevel(logging.ERROR)  # it warns of calls that we ended ourselves


def _renderers(environment: Environment) -> list[Any]:
    if environment is Environment.LOCAL:
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=orjson.dumps)]


def _logger_factory(environment: Environment) -> Any:
    if environment is Environment.LOCAL:
        return structlog.PrintLoggerFactory(file=sys.stderr)
    return structlog.BytesLoggerFactory(file=sys.stderr.buffer)


def _foreign(environment: Environment) -> list[Any]:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if environment is Environment.LOCAL:
        return [
            remove,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    return [remove, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
