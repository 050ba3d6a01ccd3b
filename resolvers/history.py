"""What the ledger says of past completions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from persistence.records import CompletionFilter, Cursor, LedgerEntry, Outcome

from . import booking
from .errors import BadUserInputError, NotFoundError
from .ledger import Ledger
from .principal import Principal
from .types import Attempt, CompletionRef, TokenUsage

MAX_PAGE = 100
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Correction:
    """What was added to an attempt's figures afterwards, in tokens and USD; negative where they were too high. `number`
    counts from 1 in the completion; `cost` is None where it was left as it stood."""

    number: int
    attempt: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    note: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """One completion as the ledger has it: the sum of its attempts and their corrections. `attempts` are as they were
    booked. Its texts are not stored."""

    id: str
    created_at: datetime
    provider: str
    model: str
    outcome: Outcome
    error_code: str | None
    finish_reason: str | None
    usage: TokenUsage
    latency_ms: int
    time_to_first_token_ms: int | None
    streamed: bool
    cached: bool
    organisation: str
    principal: str
    end_user: str | None
    idempotency_key: str | None
    config: str | None
    config_version: int | None
    labels: tuple[tuple[str, str], ...]
    attempts: tuple[Attempt, ...]
    corrections: tuple[Correction, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """`records` newest first, each with its cursor; `more`: there are older ones."""

    records: tuple[tuple[str, CompletionRecord], ...]
    more: bool


async def completion(ledger: Ledger, principal: Principal, ref: CompletionRef) -> CompletionRecord:
    """Raises NotFoundError, the same for an id that does not exist and one of another organisation."""
    if ref.idempotency_key is not None:
        entries = await ledger.completion_by_key(principal.organisation, ref.idempotency_key)
    else:
        entries = await ledger.completion(principal.organisation, ref.id or "")
    if not entries:
        raise NotFoundError("no such completion")
    return record_of(entries)


async def completions(
    ledger: Ledger, principal: Principal, *, first: int, after: str | None, where: CompletionFilter
) -> Page:
    """Raises BadUserInputError for a page size beyond 1 to 100 or a cursor that this API did not make."""
    if not 1 <= first <= MAX_PAGE:
        raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))
    cursor = None if after is None else _read_cursor(after)
    found = await ledger.completions(principal.organisation, where=where, limit=first + 1, after=cursor)
    records = tuple(record_of(entries) for entries in found[:first])
    return Page(tuple((_write_cursor(record), record) for record in records), more=len(found) > first)


def record_of(entries: Sequence[LedgerEntry]) -> CompletionRecord:
    """Of a completion's entries by attempt, at least one."""
    last = entries[-1]
    return CompletionRecord(
        id=last.completion_id,
        created_at=last.time,
        provider=last.provider,
        model=last.model,
        outcome=last.outcome,
        error_code=last.error_code,
        finish_reason=last.finish_reason,
        usage=booking.total_usage(entries),
        latency_ms=sum(entry.latency_ms for entry in entries),
        time_to_first_token_ms=last.time_to_first_token_ms,
        streamed=last.streamed,
        cached=last.cached,
        organisation=last.organisation,
        principal=last.principal,
        end_user=last.end_user,
        idempotency_key=last.idempotency_key,
        config=last.config,
        config_version=last.config_version,
        labels=tuple(sorted(last.labels.items())),
        attempts=tuple(booking.attempt_of(entry) for entry in entries if entry.attempt > 0),
        corrections=tuple(_correction(entry) for entry in reversed(entries) if entry.attempt < 0),
    )


def _correction(entry: LedgerEntry) -> Correction:
    return Correction(
        number=-entry.attempt,
        attempt=entry.corrects or 0,
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        cached_input_tokens=entry.cached_input_tokens,
        cache_write_tokens=entry.cache_write_tokens,
        reasoning_tokens=entry.reasoning_tokens,
        cost=entry.cost,
        note=entry.note or "",
        by=entry.corrected_by or "",
        at=entry.corrected_at or entry.time,
    )


def _write_cursor(record: CompletionRecord) -> str:
    milliseconds = (record.created_at - _EPOCH) // _MILLISECOND
    return base64.urlsafe_b64encode(f"{milliseconds}:{record.id}".encode()).decode()


def _read_cursor(text: str) -> Cursor:
    try:
        milliseconds, _, completion_id = base64.b64decode(text, altchars=b"-_", validate=True).decode().partition(":")
        if not completion_id:
            raise ValueError(text)
        return Cursor(_EPOCH + int(milliseconds) * _MILLISECOND, completion_id)
    except (binascii.Error, ValueError, OverflowError):
        raise BadUserInputError("not a cursor of this list", path=("after",)) from None
