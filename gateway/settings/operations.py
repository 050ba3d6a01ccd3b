"""Which GraphQL operations are run, and how many."""

from __future__ import annotations

from pydantic import Field

from graph.cost import MAX_COST

from .source import Source


class OperationSettings(Source):
    """What a caller may ask of the schema."""

    INTROSPECTION: bool | None = Field(
        default=None,
        description="Whether the schema may be asked for, errors suggest what it has, and GraphiQL is served. Absent: "
        "with `LOCAL` alone.",
    )
    COST_BUCKET: int = Field(
        default=20_000,
        ge=MAX_COST,
        description="The points that a caller may spend at once; see "
        "[What an operation may take](#what-an-operation-may-take).",
    )
    COST_RESTORE_RATE: int = Field(
        default=5_000, ge=1, description="The points that come back each second: 10,000 are about a second of CPU."
    )
    TRUSTED_DOCUMENTS: bool = Field(
        default=False, description="Whether registered documents are run alone (`ai-middleware documents register`)."
    )
