"""How much one process takes on."""

from __future__ import annotations

from pydantic import Field

from .source import Source


class LoadSettings(Source):
    """Bounds on what clients may ask of a process at once."""

    MAX_OPERATIONS_IN_FLIGHT: int = Field(
        default=1000,
        ge=1,
        description="Operations that a process runs at once, streams included, each 256 KiB of a body over HTTP as "
        "one more; more are refused: 503 with `Retry-After`, and `SERVICE_UNAVAILABLE` on a WebSocket. A tenth besides "
        "is for organisations that have less than that under way, so that none shuts out the others.",
    )
    MAX_SOCKETS_PER_PRINCIPAL: int = Field(
        default=1000,
        ge=1,
        description="WebSockets that a process keeps for one API key, with the tokens that it minted, or one subject.",
    )
