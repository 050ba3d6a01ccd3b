"""`ai-middleware serve`: what is common to one process and to several, and the choice between the two."""

from __future__ import annotations

from contextlib import ExitStack

from .app import Gateway
from .declared_providers import provider_rows
from .keys import deployment_keys, developer_token
from .listening import listen
from .server import run_alone
from .settings import Environment, Settings, SettingsError
from .telemetry import configure_logging
from .vendors import vendors

NEEDED_BY_SEVERAL = ("MONGODB_CONNECTION_URI", "TIMESCALE_SERVICE_URL", "REDIS_URI", "QUEUE_CONNECTIONURL")


def serve(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; the exit code. Raises SettingsError where it can't start."""
    configure_logging(settings.ENVIRONMENT)
    keys = deployment_keys(settings)
    vendors(settings, keys, provider_rows(settings))
    if settings.ENVIRONMENT is Environment.LOCAL:
        developer_token(settings, keys)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(settings.HOST, settings.PORT, variable="PORT"))
        internal = None
        if settings.ENVIRONMENT is Environment.PRODUCTION:  # LOCAL has its pages on the public port
            internal = stack.enter_context(listen(settings.HOST, settings.INTERNAL_PORT, variable="INTERNAL_PORT"))
        if settings.MAX_WORKERS == 1:
            return run_alone(settings, Gateway(settings, internal), listener)
        from .processes import run_several  # here: one process does not need gunicorn

        return run_several(settings, listener, internal)


def check_processes(settings: Settings) -> None:
    """Raises SettingsError where there are to be several processes, and they would not be one service."""
    missing = [name for name in NEEDED_BY_SEVERAL if getattr(settings, name) is None]
    if settings.MAX_WORKERS > 1 and missing:
        raise SettingsError(
            f"MAX_WORKERS: {settings.MAX_WORKERS} processes need servers that they share, for what is embedded belongs "
            f"to one process: set {', '.join(missing)}, or MAX_WORKERS=1"
        )
