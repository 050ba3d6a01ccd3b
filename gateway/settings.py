"""The settings: the only reader of the environment. One table in the README is generated from this class."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, create_model, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from strawberry.http.websocket_origin import normalize_allowed_origins

from persistence.mongo.address import check_address
from persistence.objects.place import place
from persistence.timescale.address import dsn
from persistence.timescale.policies import Policies
from providers.registry import ROWS, ProviderRow

from .claims import ClaimRules
from .sealing import Sealer
from .setting_values import SettingsError as SettingsError
from .setting_values import decode_keys, is_plain_address, is_safe_address, read_key

MIN_SECRET_BYTES = 32  # HS256 needs a key of at least 256 bits: RFC 7518, 3.2


class Environment(StrEnum):
    LOCAL = "LOCAL"
    PRODUCTION = "PRODUCTION"


class _Environment(BaseSettings):
    """How the environment is read."""

    model_config = SettingsConfigDict(
        case_sensitive=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,  # secrets read from files come with their newline
    )


def vendor_fields(rows: Iterable[ProviderRow]) -> dict[str, Any]:
    """The settings that rows ask for: a vendor's key, and its address."""
    fields: dict[str, Any] = {}
    for row in rows:
        if row.key_variable:
            told = f"Key for `{row.name}`, plain or `enc:v1:…`{'; absent where it takes none' if row.keyless else ''}."
            fields[row.key_variable] = (SecretStr | None, Field(default=None, description=told))
        if row.base_url_variable:
            told = (
                f"Turns on `{row.name}` ({row.title}), at this address."
                if row.base_url is None
                else f"Instead of `{row.base_url}`."
            )
            fields[row.base_url_variable] = (str | None, Field(default=None, description=told))
    return fields


if TYPE_CHECKING:
    _VendorSettings = _Environment
else:
    _VendorSettings = create_model("_VendorSettings", __base__=_Environment, **vendor_fields(ROWS))


class Settings(_VendorSettings):
    """Read once at start. A wrong or half-set value is a SettingsError; an empty one counts as not set. The vendors'
    own are those of `vendor_fields`."""

    ENVIRONMENT: Environment = Field(
        default=Environment.LOCAL,
        description="`LOCAL` or `PRODUCTION`, which takes no generated secret and has no `scripted` provider.",
    )
    HOST: str = Field(
        default="127.0.0.1", min_length=1, description="The address to listen on; `0.0.0.0` in a container."
    )
    PORT: int = Field(default=8080, ge=0, le=65535, description="The API's port; 0 takes a free one.")
    INTERNAL_PORT: int = Field(
        default=8081, ge=0, le=65535, description="The port of `/readyz`; with `LOCAL` it is `PORT` itself."
    )
    MAX_WORKERS: int = Field(
        default=1, description="Server processes. The embedded stores belong to one process: 1 and no other value."
    )
    DATA_DIR: Path = Field(default=Path("data"), description="Where the embedded stores and generated secrets live.")
    JWT_TOKEN_SECRET: SecretStr | None = Field(
        default=None, description="Signs and checks tokens (HS256); at least 32 bytes. Generated with `LOCAL`."
    )
    JWT_JWKS_URL: str | None = Field(
        default=None,
        description="Takes an identity provider's tokens too (RS256, ES256), by its key set at this address, such as "
        "`https://example.okta.com/oauth2/default/v1/keys`; `JWT_ISSUER` and `JWT_AUDIENCE` go with it.",
    )
    JWT_ISSUER: str | None = Field(default=None, min_length=1, description="What every token's `iss` must be.")
    JWT_AUDIENCE: str | None = Field(default=None, min_length=1, description="What every token's `aud` must hold.")
    JWT_ORGANISATION_CLAIM: str = Field(
        default="org", min_length=1, description="The identity provider's claim with the organisation's name."
    )
    JWT_SCOPE_CLAIM: str = Field(
        default="scope", min_length=1, description="Its claim with the scopes: a text with spaces between, or a list."
    )
    JWT_ROLES_CLAIM: str | None = Field(
        default=None, min_length=1, description="Its claim with a list of roles (`caller`, `viewer`, …), if it has one."
    )
    ENCRYPTION_KEY: SecretStr | None = Field(
        default=None,
        description="32 bytes in base64, for the `enc:v1:…` values, API keys and organisations' provider keys. Former "
        "ones stand behind it, separated by commas, until `ai-middleware rotate-keys` is done. Generated with `LOCAL`.",
    )
    ALLOWED_ORIGINS: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of browser pages that may call the API (CORS) and open a WebSocket, separated by commas.",
    )
    TRUSTED_PROXIES: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Addresses and networks of the proxies in front, separated by commas: what they say in "
        "`X-Forwarded-For` is where a request comes from, for API keys that are limited to networks.",
    )
    MAX_BODY_BYTES: int = Field(default=4 * 1024 * 1024, ge=1024, description="The largest request body.")
    MAX_UPSTREAM_CONNECTIONS: int = Field(default=1000, ge=1, description="Connections to vendors, all together.")

    PROVIDERS_FILE: Path | None = Field(
        default=None, description="A YAML file that declares more providers; see [Providers](#providers)."
    )

    MONGODB_CONNECTION_URI: SecretStr | None = Field(
        default=None,
        description="Keeps configs and price rules in MongoDB, a replica set: "
        "`mongodb://user:password@host/database?replicaSet=rs0`. Migrated by `ai-middleware migrate`.",
    )
    MONGODB_TLS_CA_FILE: Path | None = Field(
        default=None, description="Turns TLS on for it, with the authorities in this PEM file alone."
    )
    MONGODB_POOL_SIZE: int = Field(default=10, ge=2, description="Its connections, of which one watches for changes.")
    MONGODB_TIMEOUT_S: float = Field(
        default=15.0, ge=1, le=600, description="The longest that one call takes, an election within it."
    )
    TIMESCALE_SERVICE_URL: SecretStr | None = Field(
        default=None,
        description="Keeps the usage ledger in TimescaleDB or PostgreSQL: `postgresql://user:password@host/database`, "
        "with `?sslmode=` as libpq takes it. Migrated by `ai-middleware migrate`.",
    )
    TIMESCALE_POOL_SIZE: int = Field(
        default=5, ge=1, description="Its connections for reports; three more write and keep up. A replica has as many."
    )
    TIMESCALE_TIMEOUT_S: float = Field(default=15.0, ge=1, le=600, description="The longest that one statement takes.")
    TIMESCALE_RETENTION_DAYS: int | None = Field(
        default=None,
        le=36500,
        description="For how many days it keeps entries; absent: for ever. Sums are kept: reports by label, by end "
        "user or by minutes go back as far as entries do, all others further. What comes later than that is parked.",
    )
    TIMESCALE_COMPRESS_AFTER_DAYS: int = Field(
        default=30,
        ge=1,
        le=36500,
        description="The age at which TimescaleDB compresses entries, under its community licence.",
    )
    TIMESCALE_REPLICA_URL: SecretStr | None = Field(
        default=None,
        description="A streaming replica of it, for reports and lists of completions; while it is away or behind, the "
        "primary answers them.",
    )
    TIMESCALE_REPLICA_MAX_LAG_S: float = Field(
        default=5.0, ge=1, le=3600, description="How far behind a replica may be that is still read from."
    )
    REDIS_URI: SecretStr | None = Field(
        default=None,
        description="What several processes share: `redis://user:password@host:6379/0`, or `rediss://` with TLS; one "
        "server, or a node of a cluster, which it finds out, or several of its nodes (`host:6379,other:6379`).",
    )
    LIMIT_FALLBACK_SHARE: int = Field(
        default=4,
        ge=1,
        le=10_000,
        description="While Redis is away each process allows this fraction of every limit of requests, tokens and "
        "streams: the number of processes.",
    )
    REDIS_TLS_CA_FILE: Path | None = Field(
        default=None, description="The authorities that it trusts for `rediss://`, a PEM file; absent: the system's."
    )
    QUEUE_CONNECTIONURL: SecretStr | None = Field(
        default=None,
        description="Queues jobs on RabbitMQ: `amqp://user:password@host:5672/virtual-host`, or `amqps://` with TLS.",
    )
    QUEUE_TLS_CA_FILE: Path | None = Field(
        default=None, description="The authorities that it trusts for `amqps://`, a PEM file; absent: the system's."
    )
    QUEUE_NAME: str = Field(
        default="ai-middleware",
        pattern=r"^[A-Za-z0-9._:-]{1,200}$",
        description="The queue that workers take from; those of delayed and of parked jobs begin with it.",
    )
    PREFETCH_COUNT: int = Field(default=50, ge=1, le=1000, description="How many jobs a worker holds at once.")
    CONSUMER_STATUS: bool = Field(
        default=True, description="Whether this server works on the queue too; the embedded queue needs it."
    )

    OBJECT_STORE_URL: str | None = Field(
        default=None,
        description="Keeps files in a bucket: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`; "
        "the vendor's own variables say the rest (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `GOOGLE_SERVICE_ACCOUNT`, …) "
        "or the machine's identity. Or in a folder, `file:///FOLDER`; absent: one in `DATA_DIR`.",
    )
    OBJECT_STORE_TLS_CA_FILE: Path | None = Field(
        default=None, description="The authorities that it trusts for the bucket, a PEM file; absent: the system's."
    )

    @field_validator("TIMESCALE_SERVICE_URL", "TIMESCALE_REPLICA_URL")
    @classmethod
    def _check_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            dsn(value.get_secret_value())
        return value

    @field_validator("REDIS_URI")
    @classmethod
    def _check_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("an address begins with redis:// or, with TLS, rediss://")
        return value

    @field_validator("QUEUE_CONNECTIONURL")
    @classmethod
    def _check_queue(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("amqp://", "amqps://")):
            raise ValueError("an address begins with amqp:// or, with TLS, amqps://")
        return value

    @field_validator("JWT_JWKS_URL")
    @classmethod
    def _check_key_set(cls, value: str | None) -> str | None:
        if value is not None and not is_safe_address(value):
            raise ValueError("is not an https address; http is for this machine alone (localhost, 127.0.0.1)")
        return value

    @field_validator("OBJECT_STORE_URL")
    @classmethod
    def _check_bucket(cls, value: str | None) -> str | None:
        if value is not None:
            place(value)
        return value

    @field_validator("MONGODB_CONNECTION_URI")
    @classmethod
    def _check_documents(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_address(value.get_secret_value())
        return value

    @field_validator("TIMESCALE_RETENTION_DAYS")
    @classmethod
    def _check_retention(cls, value: int | None) -> int | None:
        if value is not None:
            Policies(retention=_days(value))
        return value

    @field_validator("MAX_WORKERS")
    @classmethod
    def _check_workers(cls, value: int) -> int:
        if value != 1:
            raise ValueError("the embedded stores belong to one process: set 1, or leave it out")
        return value

    @field_validator("ALLOWED_ORIGINS", "TRUSTED_PROXIES", mode="before")
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

    @field_validator("JWT_TOKEN_SECRET")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"needs at least {MIN_SECRET_BYTES} bytes; `openssl rand -base64 48` makes one")
        return value

    @field_validator("ENCRYPTION_KEY")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            decode_keys(value.get_secret_value())
        return value

    @field_validator("*")
    @classmethod
    def _check_url(cls, value: object, info: Any) -> object:
        if info.field_name.endswith("_BASE_URL") and value is not None and not is_plain_address(str(value)):
            raise ValueError("is not a plain http or https address such as https://api.example.com/v1")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.ENVIRONMENT is Environment.PRODUCTION:
            for name in ("JWT_TOKEN_SECRET", "ENCRYPTION_KEY"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: ENVIRONMENT=PRODUCTION takes no generated secret: set it")
            if self.PORT == self.INTERNAL_PORT != 0:
                raise ValueError("INTERNAL_PORT: is the same as PORT, which with ENVIRONMENT=PRODUCTION it can't be")
        return self

    @model_validator(mode="after")
    def _check_servers(self) -> Self:
        """What belongs to a server goes with its address."""
        for name in ("MONGODB_CONNECTION_URI", "REDIS_URI", "QUEUE_CONNECTIONURL", "OBJECT_STORE_URL"):
            ca_file = f"{name.rpartition('_')[0].removesuffix('_CONNECTION')}_TLS_CA_FILE"
            if getattr(self, ca_file) is not None and getattr(self, name) is None:
                raise ValueError(f"{name}: is not set, and {ca_file} is: set both or neither")
        if self.JWT_JWKS_URL is not None:
            for name in ("JWT_ISSUER", "JWT_AUDIENCE"):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"{name}: is not set, and JWT_JWKS_URL is: whose tokens, and for whom, must be said"
                    )
        if self.QUEUE_CONNECTIONURL is None and not self.CONSUMER_STATUS:
            raise ValueError("CONSUMER_STATUS: without QUEUE_CONNECTIONURL nobody else could work on the queue")
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        """A vendor's address goes with its key, unless it takes none; one without an own address needs to be told."""
        if self.TIMESCALE_REPLICA_URL and not self.TIMESCALE_SERVICE_URL:
            raise ValueError("TIMESCALE_SERVICE_URL: is not set, and TIMESCALE_REPLICA_URL is: set both or neither")
        for row in ROWS:
            pairs = [] if row.keyless else [(row.base_url_variable, row.key_variable)]
            if row.base_url is None:
                pairs.append((row.key_variable, row.base_url_variable))
            for given, needed in pairs:
                if getattr(self, given or "") and not getattr(self, needed or ""):
                    raise ValueError(f"{needed}: is not set, and {given} is: set both or neither")
        return self

    def claim_rules(self) -> ClaimRules:
        return ClaimRules(
            self.JWT_ISSUER,
            self.JWT_AUDIENCE,
            self.JWT_ORGANISATION_CLAIM,
            self.JWT_SCOPE_CLAIM,
            self.JWT_ROLES_CLAIM,
        )

    def ledger_policies(self) -> Policies:
        kept = self.TIMESCALE_RETENTION_DAYS
        return Policies(None if kept is None else _days(kept), _days(self.TIMESCALE_COMPRESS_AFTER_DAYS))

    def api_keys(self, variable: str, sealer: Sealer) -> list[tuple[str, int]]:
        """A vendor's keys in the clear, each with its weight, also from a variable that no setting is; none where it is
        not set. Raises SettingsError for what can't be read, and for one that doesn't open."""
        value: SecretStr | None = getattr(self if variable in type(self).model_fields else _named(variable), variable)
        text = "" if value is None else value.get_secret_value().strip()
        keys = [read_key(variable, each, sealer) for each in text.split(",")] if text else []
        if len(keys) == 1 and not keys[0][0]:
            return []
        if not all(key for key, _ in keys):
            raise SettingsError(f"{variable}: a key between two commas is empty")
        if len({key for key, _ in keys}) < len(keys):
            raise SettingsError(f"{variable}: the same key stands there twice")
        return keys


def _days(count: int) -> timedelta:
    return timedelta(days=count)


def _named(variable: str) -> BaseSettings:
    """The environment's variable of a name that an operator chose."""
    fields: dict[str, Any] = {variable: (SecretStr | None, None)}
    return create_model("_Named", __base__=_Environment, **fields)()


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process. Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        name = ".".join(str(part) for part in first["loc"][:1])
        raise SettingsError(f"{name}: {message}" if name else message) from None
