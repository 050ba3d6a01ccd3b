"""All who are told of what happens, as one."""

from __future__ import annotations

from collections.abc import Sequence

from persistence.batch_records import Batch, BatchMode, ItemState
from persistence.records import LedgerEntry
from resolvers.observing import CompletionEnd, JobOutcome, Observer, WebhookOutcome
from resolvers.types import Target


class Observers:
    """Implements `Observer` by several."""

    def __init__(self, *observers: Observer) -> None:
        self._all = observers

    def attempted(self, entry: LedgerEntry, operation: str) -> None:
        for each in self._all:
            each.attempted(entry, operation)

    def collected(self, entry: LedgerEntry, batch: Batch) -> None:
        for each in self._all:
            each.collected(entry, batch)

    def switched(self, origin: Target, target: Target, error_code: str) -> None:
        for each in self._all:
            each.switched(origin, target, error_code)

    def completed(self, end: CompletionEnd) -> None:
        for each in self._all:
            each.completed(end)

    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None:
        for each in self._all:
            each.operated(kind, name, seconds, error_codes)

    def refused(self, error_code: str) -> None:
        for each in self._all:
            each.refused(error_code)

    def committed(self, place: str, entries: int, seconds: float) -> None:
        for each in self._all:
            each.committed(place, entries, seconds)

    def budget_reached(self, measure: str, percent: int) -> None:
        for each in self._all:
            each.budget_reached(measure, percent)

    def took(self, kind: str, age_s: float) -> None:
        for each in self._all:
            each.took(kind, age_s)

    def worked(self, kind: str, outcome: JobOutcome, seconds: float, age_s: float) -> None:
        for each in self._all:
            each.worked(kind, outcome, seconds, age_s)

    def item_ended(self, mode: BatchMode, outcome: ItemState) -> None:
        for each in self._all:
            each.item_ended(mode, outcome)

    def batches_stand(self, batches: Sequence[Batch]) -> None:
        for each in self._all:
            each.batches_stand(batches)

    def webhook_tried(self, outcome: WebhookOutcome) -> None:
        for each in self._all:
            each.webhook_tried(outcome)
