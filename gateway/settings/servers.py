"""The servers that keep what the embedded default keeps in its folder."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from persistence.mongo.address import check_address
from persistence.objects.place import place
from persistence.rabbit.address import address as queue_address
from persistence.redis.address import addresses_of
from persistence.timescale.address import dsn
from persistence.timescale.policies import Policies

from .source import Source


class ServerSettings(Source):
    """MongoDB, TimescaleDB, Redis, RabbitMQ and object storage: each with its address, and what goes with it."""

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

    BATCH_RETENTION_DAYS: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="For how long a batch that has ended is there, with its items and results, and a file of lines "
        "after its upload. What it has spent stays in the ledger.",
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
        if value is not None:
            addresses_of(value.get_secret_value())
        return value

    @field_validator("QUEUE_CONNECTIONURL")
    @classmethod
    def _check_queue(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            queue_address(value.get_secret_value())
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

    @model_validator(mode="after")
    def _check_servers(self) -> Self:
        """What belongs to a server goes with its address."""
        for name in ("MONGODB_CONNECTION_URI", "REDIS_URI", "QUEUE_CONNECTIONURL", "OBJECT_STORE_URL"):
            ca_file = _ca_file_of(name)
            if getattr(self, ca_file) is not None and getattr(self, name) is None:
                raise ValueError(f"{name}: is not set, and {ca_file} is: set both or neither")
        for name, tls in (("REDIS_URI", "rediss"), ("QUEUE_CONNECTIONURL", "amqps")):
            ca_file, url = _ca_file_of(name), getattr(self, name)
            if getattr(self, ca_file) is not None and not url.get_secret_value().startswith(f"{tls}://"):
                raise ValueError(f"{name}: is an address without TLS, and {ca_file} is set: write {tls}://")
        if self.TIMESCALE_REPLICA_URL and not self.TIMESCALE_SERVICE_URL:
            raise ValueError("TIMESCALE_SERVICE_URL: is not set, and TIMESCALE_REPLICA_URL is: set both or neither")
        if self.QUEUE_CONNECTIONURL is None and not self.CONSUMER_STATUS:
            raise ValueError("CONSUMER_STATUS: without QUEUE_CONNECTIONURL nobody else could work on the queue")
        return self

    def ledger_policies(self) -> Policies:
        kept = self.TIMESCALE_RETENTION_DAYS
        return Policies(None if kept is None else _days(kept), _days(self.TIMESCALE_COMPRESS_AFTER_DAYS))


def _ca_file_of(address: str) -> str:
    return f"{address.rpartition('_')[0].removesuffix('_CONNECTION')}_TLS_CA_FILE"


def _days(count: int) -> timedelta:
    return timedelta(days=count)
