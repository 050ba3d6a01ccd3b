"""Where backups go, and who can read them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from persistence.objects.place import place

from .source import Source


class BackupSettings(Source):
    """For `ai-middleware backup`."""

    BACKUP_URL: str | None = Field(
        default=None,
        description="Where `ai-middleware backup` keeps its files, as `OBJECT_STORE_URL` is written; better another "
        "bucket, which nobody but it may write.",
    )
    BACKUP_RECIPIENT: str | None = Field(
        default=None,
        pattern=r"^age1[0-9a-z]{58}$",
        description="The public key that they are encrypted for: `age1…`, as `age-keygen` prints it. The private one "
        "belongs in no cluster.",
    )
    BACKUP_KEEP_DAYS: int = Field(
        default=30, ge=1, le=36500, description="After so many days they are deleted, once a newer one is there."
    )

    @field_validator("BACKUP_URL")
    @classmethod
    def _check_backups(cls, value: str | None) -> str | None:
        if value is not None:
            place(value)
        return value

    @model_validator(mode="after")
    def _check_recipient(self) -> Self:
        for name, other in (("BACKUP_URL", "BACKUP_RECIPIENT"), ("BACKUP_RECIPIENT", "BACKUP_URL")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise ValueError(f"{name}: is not set, and {other} is: set both or neither")
        return self
