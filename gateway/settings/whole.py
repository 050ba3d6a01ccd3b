"""All settings: one class, of which each part has a file."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode
from strawberry.http.websocket_origin import normalize_allowed_origins

from ..setting_values import SettingsError
from .backups import BackupSettings
from .identity import IdentitySettings
from .load import LoadSettings
from .observability import ObservabilitySettings
from .operations import OperationSettings
from .servers import ServerSettings
from .source import Environment, Source
from .vendors import VendorSettings

MAX_PROCESSES = 64
SHUTDOWN_S = 310.0  # the longest deadline of a completion, 300 s, and its booking
LOCAL_SHUTDOWN_S = 10.0


class _Process(Source):
    """The process, and what it is reached by."""

    ENVIRONMENT: Environment = Field(
        default=Environment.LOCAL,
        description="`LOCAL` or `PRODUCTION`, which takes no generated secret and has no `scripted` provider.",
    )
    HOST: str = Field(
        default="127.0.0.1", min_length=1, description="The address to listen on; `0.0.0.0` in a container."
    )
    PORT: int = Field(default=8080, ge=0, le=65535, description="The API's port; 0 takes a free one.")
    INTERNAL_PORT: int = Field(
        default=8081,
        ge=0,
        le=65535,
        description="The port of `/readyz` and `/metrics`, and of a worker's `/healthcheck`; with `LOCAL` it is "
        "`PORT` itself, and a worker has one only where it is set here: several may run on one machine.",
    )
    MAX_WORKERS: int = Field(
        default=1,
        ge=1,
        le=MAX_PROCESSES,
        description="Server processes on one port. The embedded stores belong to one process: more than one needs "
        "`MONGODB_CONNECTION_URI`, `TIMESCALE_SERVICE_URL`, `REDIS_URI` and `QUEUE_CONNECTIONURL`. The image has 4.",
    )
    KEEP_ALIVE_S: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="How long a connection waits for its next request: longer than a proxy in front keeps one that it "
        "uses again. The image has 5.",
    )
    SHUTDOWN_TIMEOUT_S: float | None = Field(
        default=None,
        ge=1,
        le=3600,
        description="For how long what runs may go on after SIGTERM. Absent: 310, longer than any completion takes; "
        "with `LOCAL` 10.",
    )
    DATA_DIR: Path = Field(default=Path("data"), description="Where the embedded stores and generated secrets live.")
    ALLOWED_ORIGINS: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of browser pages that may call the API (CORS) and open a WebSocket, separated by commas.",
    )
    TRUSTED_PROXIES: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Addresses and networks of the proxies in front, separated by commas: what they say in "
        "`X-Forwarded-For` is where a request comes from, for API keys that are limited to networks.",
    )
    OUTBOUND_ALLOWED_NETWORKS: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Addresses and networks that are not public, separated by commas, to which addresses given by "
        "organisations may lead: those of webhooks, images and files. What the operator sets is not limited.",
    )
    MAX_BODY_BYTES: int = Field(default=4 * 1024 * 1024, ge=1024, description="The largest request body.")
    MAX_UPSTREAM_CONNECTIONS: int = Field(
        default=1000,
        ge=1,
        description="Calls to vendors that a process has under way at once; one more waits for up to 5 s. A tenth "
        "besides is for organisations that have less than that under way, so that none shuts out the others.",
    )
    PROVIDERS_FILE: Path | None = Field(
        default=None, description="A YAML file that declares more providers; see [Providers](#providers)."
    )

    @field_validator("ALLOWED_ORIGINS", "TRUSTED_PROXIES", "OUTBOUND_ALLOWED_NETWORKS", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("ALLOWED_ORIGINS")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in normalize_allowed_origins(value):
            if "*" in origin and origin != "*":
                raise ValueError(f"{origin} would match no page: name each origin, or * for all")
        return value


class Settings(
    VendorSettings,
    BackupSettings,
    ObservabilitySettings,
    ServerSettings,
    IdentitySettings,
    OperationSettings,
    LoadSettings,
    _Process,
):
    """Read once at start. A wrong or half-set value is a SettingsError; an empty one counts as not set."""

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.ENVIRONMENT is Environment.PRODUCTION:
            for name in ("JWT_TOKEN_SECRET", "ENCRYPTION_KEY"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: ENVIRONMENT=PRODUCTION takes no generated secret: set it")
            if self.PORT == self.INTERNAL_PORT != 0:
                raise ValueError("INTERNAL_PORT: is the same as PORT, which with ENVIRONMENT=PRODUCTION it can't be")
        return self

    @property
    def shutdown_timeout_s(self) -> float:
        """Who presses Ctrl-C does not want to wait for minutes."""
        if self.SHUTDOWN_TIMEOUT_S is not None:
            return self.SHUTDOWN_TIMEOUT_S
        return LOCAL_SHUTDOWN_S if self.ENVIRONMENT is Environment.LOCAL else SHUTDOWN_S

    @property
    def worker_port(self) -> int | None:
        """INTERNAL_PORT as far as a worker has one."""
        always = self.ENVIRONMENT is Environment.PRODUCTION
        return self.INTERNAL_PORT if always or "INTERNAL_PORT" in self.model_fields_set else None

    @property
    def explorable(self) -> bool:
        """Whether the schema may be asked for, and GraphiQL is served."""
        return self.ENVIRONMENT is Environment.LOCAL if self.INTROSPECTION is None else self.INTROSPECTION


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process. Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        name = ".".join(str(part) for part in first["loc"][:1])
        raise SettingsError(f"{name}: {message}" if name else message) from None
