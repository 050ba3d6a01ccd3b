"""What becomes of an item after an attempt: its end, or another try. Decides; does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from persistence.batch_records import Item, ItemError, ItemState, Move
from providers.types import FinishReason

from ..errors import CompletionFailedError, DomainError
from ..types import Completion

MAX_FAILURES = 3
MAX_LOST = 8
"""An item whose worker ends each time is what ends it."""
FAILED_S = 2.0
"""After its first failure an item rests for about as long, and each time four times longer."""
WAIT_S, WAIT_AT_MOST_S = 1.0, 60.0
"""For so long an item waits for a limit that does not say how long it takes, and for one that does at most: limits are
changed, and others leave room."""

_PATIENT = frozenset({"RATE_LIMITED", "BUDGET_EXCEEDED", "PROVIDER_RATE_LIMITED", "SERVICE_UNAVAILABLE"})
"""No fault of the item's: it waits, and that is no failure."""

UNEXPECTED = ItemError("INTERNAL", "something went wrong here; the log has it")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """On the attempts at one item that is claimed. `random` is in [0, 1)."""

    item: Item
    now: Callable[[], datetime]
    random: Callable[[], float]

    def succeeded(self, completion: Completion) -> Move:
        """Its result is yet to be set. One that was cancelled by its id is no answer."""
        cancelled = completion.finish_reason is FinishReason.CANCELLED
        return self._move(
            ItemState.CANCELLED if cancelled else ItemState.SUCCEEDED,
            completion_id=completion.id,
            cost=completion.usage.cost,
            unpriced=completion.usage.cost is None,
            ended_at=_whole(self.now()),
        )

    def failed(self, error: DomainError) -> Move:
        told = ItemError(error.code, error.message)
        spent = self._spent(error)
        if error.retryable and (error.code in _PATIENT or _was_held_back(error)):
            return self._again(self._wait_s(error), told, failures=0, **spent)
        if error.retryable and self.item.failures + 1 < MAX_FAILURES:
            return self._again(self._rest_s(), told, failures=1, **spent)
        return self._move(ItemState.FAILED, error=told, failures=1, ended_at=_whole(self.now()), **spent)

    def broke(self) -> Move:
        """By a defect of ours."""
        if self.item.failures + 1 < MAX_FAILURES:
            return self._again(self._rest_s(), UNEXPECTED, failures=1)
        return self._move(ItemState.FAILED, error=UNEXPECTED, failures=1, ended_at=_whole(self.now()))

    def left(self) -> Move:
        """Its worker ends, and it goes to another at once."""
        return self._move(ItemState.WAITING, due=_whole(self.now()))

    def held(self, seconds: float) -> Move:
        """It was not begun: what it calls is to be left alone for a while."""
        return self._again(seconds, None, failures=0)

    def _again(self, seconds: float, error: ItemError | None, *, failures: int, **more: object) -> Move:
        due = _whole(self.now() + timedelta(seconds=seconds))
        return self._move(ItemState.WAITING, due=due, error=error, failures=failures, **more)

    def _wait_s(self, error: DomainError) -> float:
        asked = WAIT_S if error.retry_after_ms is None else error.retry_after_ms / 1000
        return min(max(asked, WAIT_S), WAIT_AT_MOST_S) * (1 + self.random() / 4)  # not all of them at one moment

    def _rest_s(self) -> float:
        return FAILED_S * 4.0**self.item.failures * (0.5 + self.random())

    def _spent(self, error: DomainError) -> dict[str, object]:
        if not isinstance(error, CompletionFailedError):
            return {}
        cost: Decimal | None = error.usage.cost if error.attempts else Decimal(0)
        return {"completion_id": error.completion_id, "cost": cost, "unpriced": cost is None}

    def _move(self, to: ItemState, **values: object) -> Move:
        item = self.item
        return Move(item.organisation, item.batch, item.index, (ItemState.RUNNING,), to, item.fence, **values)  # type: ignore[arg-type]  # the fields' own


def _was_held_back(error: DomainError) -> bool:
    """No vendor was called: each one's circuit is open."""
    return isinstance(error, CompletionFailedError) and not error.attempts and error.code != "DEADLINE_EXCEEDED"


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
