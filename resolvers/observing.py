"""Who is told of what happens: metrics, traces, the log. None of them is known here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from persistence.batch_records import Batch, BatchMode, ItemState
from persistence.records import LedgerEntry

from .errors import BudgetExceededError, DomainError, LimitDetail, RateLimitedError

if TYPE_CHECKING:
    from providers.types import ProviderCompletion, ProviderEmbeddings

    from .principal import Principal
    from .run import Run
    from .types import Command, Target


class CompletionOutcome(StrEnum):
    """How a completion ended. REFUSED: before any vendor was asked, by a limit or for what the call itself is."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class JobOutcome(StrEnum):
    """What became of a job that a worker took. FAILED: it comes again, or is parked after the last of its failures."""

    DONE = "done"
    FAILED = "failed"
    PARKED = "parked"
    PUT_BACK = "put_back"


class WebhookOutcome(StrEnum):
    """What became of a try to deliver an event. FAILED: it comes again. GIVEN_UP: it does not."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class CompletionEnd:
    """A completion, or a call for embeddings (`operation`: "chat", "embeddings"), at its end. `target`: who was asked
    last. Seconds: from its beginning to the commit of its entries; `upstream_s` of them at vendors, or waiting before
    another try. `error_code` is None where it was answered; `limit`: what refused it, if a limit did. `answer` may be
    what was produced until it was cut off."""

    operation: str
    id: str
    created_at: datetime
    principal: Principal
    command: Command
    target: Target
    outcome: CompletionOutcome
    error_code: str | None
    limit: LimitDetail | None
    streamed: bool
    seconds: float
    upstream_s: float
    first_token_s: float | None
    entries: Sequence[LedgerEntry]
    answer: ProviderCompletion | ProviderEmbeddings | None


class Observer(Protocol):
    """Each is called where it happened, on the event loop: it returns at once, and raises nothing."""

    def attempted(self, entry: LedgerEntry, operation: str) -> None:
        """A call to a vendor has ended, and is booked so; `operation` as in CompletionEnd."""
        ...

    def collected(self, entry: LedgerEntry, batch: Batch) -> None:
        """A vendor's batch API has told how a completion of a batch ended, and that is booked: the only attempt at it,
        of which nobody knows how long it took."""
        ...

    def switched(self, origin: Target, target: Target, error_code: str) -> None:
        """A completion went on to another target."""
        ...

    def completed(self, end: CompletionEnd) -> None: ...

    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None:
        """A GraphQL operation has ended; `kind` is "query", "mutation", "subscription", or "invalid" of one that was
        not run: its document is none, or it costs too much. `error_codes` None: its caller left before it was done."""
        ...

    def refused(self, error_code: str) -> None:
        """A request was refused before there was an operation."""
        ...

    def committed(self, place: str, entries: int, seconds: float) -> None:
        """Entries of the ledger are in its store, in the queue, or in the spool."""
        ...

    def budget_reached(self, measure: str, percent: int) -> None:
        """A budget is spent up to a threshold; told once in the budget's period, by whichever process."""
        ...

    def took(self, kind: str, age_s: float) -> None:
        """A worker has taken jobs, the oldest of which was made so long ago."""
        ...

    def worked(self, kind: str, outcome: JobOutcome, seconds: float, age_s: float) -> None:
        """A job is out of a worker's hands, in which it was for `seconds`."""
        ...

    def item_ended(self, mode: BatchMode, outcome: ItemState) -> None:
        """An item of a batch has come to its end, and that is kept."""
        ...

    def batches_stand(self, batches: Sequence[Batch]) -> None:
        """All that have not ended, as they are now; none of a process that does not dispatch them."""
        ...

    def webhook_tried(self, outcome: WebhookOutcome) -> None: ...


class Unobserved:
    """Nobody is told. Implements `Observer`."""

    def attempted(self, entry: LedgerEntry, operation: str) -> None: ...
    def collected(self, entry: LedgerEntry, batch: Batch) -> None: ...
    def switched(self, origin: Target, target: Target, error_code: str) -> None: ...
    def completed(self, end: CompletionEnd) -> None: ...
    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None: ...
    def refused(self, error_code: str) -> None: ...
    def committed(self, place: str, entries: int, seconds: float) -> None: ...
    def budget_reached(self, measure: str, percent: int) -> None: ...
    def took(self, kind: str, age_s: float) -> None: ...
    def worked(self, kind: str, outcome: JobOutcome, seconds: float, age_s: float) -> None: ...
    def item_ended(self, mode: BatchMode, outcome: ItemState) -> None: ...
    def batches_stand(self, batches: Sequence[Batch]) -> None: ...
    def webhook_tried(self, outcome: WebhookOutcome) -> None: ...


UNOBSERVED = Unobserved()


@contextmanager
def observed(run: Run) -> Iterator[None]:
    """Tells how a run ended, if it did: by an error, or by its answer."""
    try:
        yield
    except BaseException as error:  # a cancellation is an end too
        run.services.observer.completed(_end(run, error))
        raise
    if run.answer is not None:
        run.services.observer.completed(_end(run, None))


def _end(run: Run, error: BaseException | None) -> CompletionEnd:
    first_token_ms = run.first_token_ms
    outcome, code = _outcome(run, error)
    return CompletionEnd(
        operation=run.operation,
        id=run.id,
        created_at=run.created_at,
        principal=run.principal,
        command=run.command,
        target=run.told_by(),
        outcome=outcome,
        error_code=code,
        limit=_limit(error),
        streamed=run.streamed,
        seconds=run.elapsed_s(),
        upstream_s=run.upstream_s,
        first_token_s=None if first_token_ms is None else first_token_ms / 1000,
        entries=run.entries,
        answer=run.produced(),
    )


def _outcome(run: Run, error: BaseException | None) -> tuple[CompletionOutcome, str | None]:
    if error is None:
        cancelled = run.running is not None and run.running.cancelled
        return (CompletionOutcome.CANCELLED if cancelled else CompletionOutcome.SUCCEEDED), None
    if not isinstance(error, Exception):  # its caller is gone, or the process ends
        return CompletionOutcome.CANCELLED, None
    if not isinstance(error, DomainError):
        return CompletionOutcome.FAILED, "INTERNAL"
    asked = bool(run.entries) or error.code.startswith(_OF_PROVIDERS)
    return (CompletionOutcome.FAILED if asked else CompletionOutcome.REFUSED), error.code


_OF_PROVIDERS = ("PROVIDER_", "DEADLINE_")
"""So begin the codes of failures that a vendor has its part in, though it may not have been asked this time."""


def _limit(error: BaseException | None) -> LimitDetail | None:
    """Where attempts were made before it, the refusal is the cause of what is told."""
    for each in (error, None if error is None else error.__cause__):
        if isinstance(each, RateLimitedError | BudgetExceededError):
            return each.detail
    return None
