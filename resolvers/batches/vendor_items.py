"""Items at a vendor's batch API: what each is asked as, and what is booked and kept of its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from persistence.batch_records import Batch, BatchState, Item, ItemError, ItemState, Move
from persistence.records import LedgerEntry
from providers.batching import BatchResult
from providers.errors import ProviderBadResponseError, ProviderError
from providers.fold import Fold
from providers.types import CompletionRequest, FinishReason, ProviderCompletion

from .. import booking, structured
from ..bounds import most_output
from ..ids import time_of
from ..price_book import PriceBook
from ..principal import Principal
from ..types import CompleteCommand, Completion
from .sweeping import LATE
from .verdicts import MAX_FAILURES

UNDONE = ItemError("PROVIDER_UNAVAILABLE", "the vendor did not come to it within its time")


def custom_id(item: Item) -> str:
    """Of a claim: no other of any batch has the same. Both vendors take 64 characters of these."""
    return f"{item.batch}-{item.index}-{item.fence}"


def parsed_id(text: str) -> tuple[str, int, int] | None:
    """Batch, index and fence; None for what is no name of ours."""
    batch, _, rest = text.partition("-")
    index, _, fence = rest.partition("-")
    return (batch, int(index), int(fence)) if index.isdecimal() and fence.isdecimal() else None


def request_of(command: CompleteCommand) -> CompletionRequest:
    return CompletionRequest(
        model=command.target.model,
        messages=command.messages,
        tools=command.tools,
        tool_choice=command.tool_choice,
        temperature=command.temperature,
        top_p=command.top_p,
        max_tokens=command.max_tokens,
        stop=command.stop,
        seed=command.seed,
        end_user=command.end_user,
        response_format=command.response_format,
        reasoning_effort=command.reasoning_effort,
        logprobs=command.logprobs,
        options=command.provider_options.get(command.target.provider, {}),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be booked, if anything, and then kept; the result, where there is one, is yet to be set."""

    entry: LedgerEntry | None
    move: Move
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Of the results of one batch. `now` is aware UTC."""

    batch: Batch
    prices: PriceBook
    now: Callable[[], datetime]

    def outcome(self, item: Item, command: CompleteCommand, result: BatchResult) -> Outcome:
        if result.answer is not None:
            return self._answered(item, command, result.answer)
        if result.error is None:
            return Outcome(None, self.undone(item))
        opening = self._opening(item, command)
        nothing = booking.Fragment(Fold(), opening.input_tokens, 0, latency_ms=0, first_token_ms=None)
        entry = booking.failed(opening, result.error, nothing, prices=self.prices)
        return Outcome(entry, self.failed(item, result.error))

    def failed(self, item: Item, error: ProviderError) -> Move:
        told = ItemError(error.code, error.message[:1000])
        if error.retryable and item.failures + 1 < MAX_FAILURES and self._goes_on():
            return self._move(item, ItemState.WAITING, error=told, failures=1, due=self._time())
        return self._move(item, ItemState.FAILED, error=told, failures=1, ended_at=self._time())

    def undone(self, item: Item) -> Move:
        if self.batch.state is not BatchState.RUNNING:
            return self._move(item, ItemState.CANCELLED, ended_at=self._time())
        if not self._goes_on():
            return self._move(item, ItemState.FAILED, error=LATE, failures=1, ended_at=self._time())
        if item.failures + 1 < MAX_FAILURES:
            return self._move(item, ItemState.WAITING, error=UNDONE, failures=1, due=self._time())
        return self._move(item, ItemState.FAILED, error=UNDONE, failures=1, ended_at=self._time())

    def _answered(self, item: Item, command: CompleteCommand, answer: ProviderCompletion) -> Outcome:
        entry = booking.succeeded(
            self._opening(item, command),
            answer,
            prices=self.prices,
            most_output=most_output(command, command.target),
            latency_ms=0,
            first_token_ms=None,
            batched=True,
        )
        spent = {"cost": entry.cost, "unpriced": entry.cost is None}
        try:
            parsed = structured.parsed(command.response_format, answer)
        except structured.NotAsAskedError as error:
            told = ItemError(ProviderBadResponseError.code, str(error)[:1000])
            move = self._move(item, ItemState.FAILED, error=told, failures=1, ended_at=self._time(), **spent)
            return Outcome(entry, move)
        move = self._move(item, ItemState.SUCCEEDED, ended_at=self._time(), **spent)
        return Outcome(entry, move, self._completion(entry, answer, parsed))

    def _completion(self, entry: LedgerEntry, answer: ProviderCompletion, parsed: object) -> Completion:
        return Completion(
            id=entry.completion_id,
            provider=entry.provider,
            model=entry.model,
            content=answer.content,
            parsed=parsed,
            reasoning=answer.reasoning,
            reasoning_blocks=answer.reasoning_blocks,
            tool_calls=answer.tool_calls,
            citations=answer.citations,
            logprobs=answer.logprobs,
            finish_reason=answer.finish_reason or FinishReason.OTHER,
            usage=booking.total_usage([entry]),
            latency_ms=0,
            time_to_first_token_ms=None,
            attempts=(booking.attempt_of(entry),),
            cached=False,
            created_at=entry.time,
        )

    def _opening(self, item: Item, command: CompleteCommand) -> LedgerEntry:
        """The same for whoever collects the item's result, however often: its id was given as it was sent."""
        submitter, completion_id = self.batch.submitter, item.completion_id or ""
        principal = Principal(submitter.subject, item.organisation, frozenset(), 0.0, key_id=submitter.key_id)
        return booking.opening_entry(
            principal=principal,
            command=command,
            completion_id=completion_id,
            created_at=time_of(completion_id),
            attempt=1,
            target=command.target,
            input_size=booking.input_size(command),
            streamed=False,
        )

    def _goes_on(self) -> bool:
        late = self.batch.deadline is not None and self.batch.deadline <= self.now()
        return self.batch.state is BatchState.RUNNING and not late

    def _move(self, item: Item, to: ItemState, **values: object) -> Move:
        running = (ItemState.RUNNING,)
        return Move(item.organisation, item.batch, item.index, running, to, item.fence, **values)  # type: ignore[arg-type]  # the fields' own

    def _time(self) -> datetime:
        now = self.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
