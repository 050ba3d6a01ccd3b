"""What is stored, as plain dataclasses. Money is Decimal USD; times are aware UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class Outcome(StrEnum):
    """How an attempt ended. ABANDONED: its process died; booked, estimated, by the next start."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


class CostSource(StrEnum):
    """Where the cost comes from. ORGANISATION: its own prices, or its discount off the published ones. CORRECTION: the
    figure of whoever corrected it. UNKNOWN: the model has no known price, and the cost is null. NOT_BILLED: the vendor
    answered with an error, which costs nothing."""

    PROVIDER = "provider"
    PRICE_TABLE = "price_table"
    ORGANISATION = "organisation"
    CORRECTION = "correction"
    UNKNOWN = "unknown"
    NOT_BILLED = "not_billed"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One attempt sent to a vendor. Key: (time, completion_id, attempt), so that booking twice is booking once.

    `time` is the millisecond inside the completion's UUIDv7; `attempt` counts from 1 over retries and fallbacks.
    Token sums include their parts (see `providers.types.Usage`). `estimated`: tokens were not told by the vendor.

    A correction is an entry too: number n of a completion has `attempt` -n, names the attempt that it `corrects`, and
    has that one's dimensions, outcome and labels. Its tokens and cost are added, and may be negative; a cost of None
    adds nothing. It is no attempt and takes no time. `settles_cost`: the attempt had no cost, and has with it;
    `settles_estimate`: its figures were estimated, and are not with it. Each of them once for an attempt. `note` says
    why it was made.
    """

    time: datetime
    completion_id: str
    attempt: int
    organisation: str
    principal: str
    provider: str
    model: str
    outcome: Outcome
    end_user: str | None = None
    config: str | None = None
    config_version: int | None = None
    idempotency_key: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = None
    cost_source: CostSource = CostSource.UNKNOWN
    price_version: str | None = None
    latency_ms: int = 0
    time_to_first_token_ms: int | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    estimated: bool = False
    cached: bool = False
    streamed: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    corrects: int | None = None
    settles_cost: bool = False
    settles_estimate: bool = False
    corrected_by: str | None = None
    corrected_at: datetime | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class CompletionFilter:
    """All given conditions hold at once. `since` is inclusive, `until` exclusive; `label` is (name, value)."""

    since: datetime | None = None
    until: datetime | None = None
    provider: str | None = None
    model: str | None = None
    outcome: Outcome | None = None
    end_user: str | None = None
    label: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list of completions, newest first: strictly older than this completion."""

    time: datetime
    completion_id: str
