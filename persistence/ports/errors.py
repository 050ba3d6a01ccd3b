"""What a store says that can't do what is asked."""

from __future__ import annotations

from enum import StrEnum


class StoreUnavailableError(Exception):
    """The store can't be reached or can't write, and the call may be repeated. Nothing of it was kept; or all of it,
    where the connection to a server broke as that answered."""


class Conflict(StrEnum):
    """What a write came too late for."""

    REVISION = "revision"
    SLUG = "slug"
    ENDED = "ended"
    FULL = "full"


class StoreConflictError(Exception):
    """Another write came first: the revision that was expected is no longer the newest, the slug is taken, the rule has
    ended, or there are as many as may be. Nothing was kept."""

    def __init__(self, message: str, *, on: Conflict) -> None:
        super().__init__(message)
        self.on = on
