"""Corrections of what was booked: entries of their own, never edits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal

from pydantic.alias_generators import to_camel

from persistence.audit_records import Action, AuditEvent
from persistence.records import CostSource, LedgerEntry

from .audit import AuditLog, Fields, Subject, event
from .errors import BadUserInputError, ConflictError, NotFoundError
from .history import CompletionRecord, record_of
from .ledger import Ledger
from .principal import Principal

MAX_NOTE_LENGTH = 1000
MAX_CORRECTIONS = 100
"""Of one completion."""

MAX_COST = 1_000_000
MAX_TOKENS = 10**12

SYSTEM = "ai-middleware"
"""By whom a correction is that nobody asked for."""

LATE_NOTE = "Its process was taken for dead, and told this later."

_TRIALS = 5
_PARTS_OF = {
    "input_tokens": ("cached_input_tokens", "cache_write_tokens"),
    "output_tokens": ("reasoning_tokens",),
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an attempt's tokens should have been; None leaves a kind as it stands. Sums include their parts."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CorrectCommand:
    """The figures that are right, in whole: not what to add. `cost` is in USD; None leaves it as it stands."""

    completion_id: str
    attempt: int
    note: str
    tokens: Tokens = Tokens()
    cost: Decimal | None = None


async def correct(
    ledger: Ledger,
    audit: AuditLog,
    principal: Principal,
    command: CorrectCommand,
    counted: Callable[[LedgerEntry], Awaitable[None]] | None = None,
) -> CompletionRecord:
    """Books what is missing between the attempt's figures, earlier corrections included, and those of the command;
    nothing where they are the same already, so that it may be repeated. The audit log has it before it is booked,
    `counted` is told of it then.

    Raises BadUserInputError, its path from ("input", …); NotFoundError for a completion that the organisation does not
    have, or has no such attempt of; ConflictError; and ServiceUnavailableError.
    """
    _check(command)
    noted = False
    for _ in range(_TRIALS):
        entries = await ledger.completion(principal.organisation, command.completion_id)
        entry = _correction(entries, command, principal)
        if entry is None:
            return record_of(entries)
        if not noted:
            await audit.note(_event(principal, entries, entry))
            noted = True
        await ledger.book(entry)
        entries = await ledger.completion(principal.organisation, command.completion_id)
        if entry in entries:  # else another correction came first, and has this one's number
            if counted is not None:
                await counted(entry)
            return record_of(entries)
    raise ConflictError("this completion is being corrected by others: try again")


async def measure(ledger: Ledger, truth: LedgerEntry) -> None:
    """Books what is missing between what an attempt was booked at, its process being taken for dead, and what that
    process tells later after all. Raises ServiceUnavailableError; ConflictError where others correct it all the time.
    """
    tokens = Tokens(**{field.name: getattr(truth, field.name) for field in fields(Tokens)})
    command = CorrectCommand(truth.completion_id, truth.attempt, LATE_NOTE, tokens, truth.cost)
    system = Principal(SYSTEM, truth.organisation, frozenset(), 0.0)
    for _ in range(_TRIALS):
        entries = await ledger.completion(truth.organisation, truth.completion_id)
        entry = _correction(entries, command, system)
        if entry is not None and truth.estimated:
            entry = replace(entry, settles_estimate=False)
        if entry is None or not _says_anything(entry):
            return
        await ledger.book(entry)
        if entry in await ledger.completion(truth.organisation, truth.completion_id):
            return
    raise ConflictError("this completion is being corrected by others")


def _check(command: CorrectCommand) -> None:
    if not 1 <= len(command.note) <= MAX_NOTE_LENGTH:
        raise BadUserInputError(f"a note has 1 to {MAX_NOTE_LENGTH} characters", path=("input", "note"))
    if command.cost is not None and not 0 <= command.cost <= MAX_COST:
        raise BadUserInputError(f"a cost is between 0 and {MAX_COST} USD", path=("input", "cost"))
    for field in fields(Tokens):
        count = getattr(command.tokens, field.name)
        if count is not None and not 0 <= count <= MAX_TOKENS:
            raise BadUserInputError(f"tokens are between 0 and {MAX_TOKENS}", path=("input", to_camel(field.name)))


def _correction(entries: Sequence[LedgerEntry], command: CorrectCommand, principal: Principal) -> LedgerEntry | None:
    """The entry that makes up the difference; None where there is none."""
    attempt = next((each for each in entries if each.attempt == command.attempt), None)
    if attempt is None or attempt.attempt < 0:
        raise NotFoundError("no such attempt of such a completion")
    numbers = [-each.attempt for each in entries if each.attempt < 0]
    if len(numbers) >= MAX_CORRECTIONS:
        raise ConflictError(f"this completion has {MAX_CORRECTIONS} corrections, and no more are taken")
    earlier = [each for each in entries if each.corrects == attempt.attempt]
    tokens = _missing_tokens([attempt, *earlier], command.tokens)
    cost = _missing_cost([attempt, *earlier], command.cost)
    settles_cost = cost is not None and attempt.cost is None and not any(each.settles_cost for each in earlier)
    settles_estimate = (
        command.tokens != Tokens() and attempt.estimated and not any(each.settles_estimate for each in earlier)
    )
    entry = replace(
        replace(attempt, **tokens),  # type: ignore[arg-type]  # each of them is a field that counts
        attempt=-(max(numbers, default=0) + 1),
        cost=cost,
        cost_source=CostSource.CORRECTION,
        price_version=None,
        latency_ms=0,
        time_to_first_token_ms=None,
        estimated=False,
        corrects=attempt.attempt,
        settles_cost=settles_cost,
        settles_estimate=settles_estimate,
        corrected_by=principal.subject,
        corrected_at=_now(),
        note=command.note,
    )
    return entry if _says_anything(entry) else None


def _says_anything(entry: LedgerEntry) -> bool:
    tokens = any(getattr(entry, field.name) for field in fields(Tokens))
    return tokens or bool(entry.cost) or entry.settles_cost or entry.settles_estimate


def _event(principal: Principal, entries: Sequence[LedgerEntry], entry: LedgerEntry) -> AuditEvent:
    standing = [each for each in entries if entry.corrects in (each.attempt, each.corrects)]
    return event(
        principal,
        Action.USAGE_CORRECT,
        Subject("completion", entry.completion_id),
        before=_figures(standing),
        after={**_figures([*standing, entry]), "attempt": entry.corrects, "note": entry.note},
    )


def _figures(entries: Sequence[LedgerEntry]) -> Fields:
    known = [each.cost for each in entries if each.cost is not None]
    tokens = {to_camel(field.name): sum(getattr(each, field.name) for each in entries) for field in fields(Tokens)}
    return {**tokens, "cost": sum(known, Decimal(0)) if known else None}


def _missing_tokens(standing: Sequence[LedgerEntry], right: Tokens) -> dict[str, int]:
    """By kind, what has to be added to what stands. Raises BadUserInputError for parts that exceed their sum."""
    stands = {field.name: sum(getattr(each, field.name) for each in standing) for field in fields(Tokens)}
    asked = {name: getattr(right, name) for name in stands}
    wanted = {name: stands[name] if asked[name] is None else asked[name] for name in stands}
    for whole, parts in _PARTS_OF.items():
        if any(asked[name] is not None for name in (whole, *parts)) and wanted[whole] < sum(
            wanted[part] for part in parts
        ):
            raise BadUserInputError(f"{to_camel(whole)} includes its parts", path=("input", to_camel(whole)))
    return {name: wanted[name] - stands[name] for name in stands}


def _missing_cost(standing: Sequence[LedgerEntry], right: Decimal | None) -> Decimal | None:
    """What has to be added to the cost that stands; None where it may stay as it is."""
    if right is None:
        return None
    known = [each.cost for each in standing if each.cost is not None]
    missing = right - sum(known, Decimal(0))
    return missing if missing or not known else None


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
