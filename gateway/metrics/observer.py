"""What happens, counted. Called on the hot path: each method is a few microseconds."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import product

from persistence.batch_records import OPEN, OVER, Batch, BatchMode, ItemState
from persistence.limit_records import Limited
from persistence.records import CostSource, LedgerEntry, Outcome
from providers.errors import ProviderError
from resolvers.allowances import MONEY, Measure
from resolvers.errors import DomainError, QueryTooComplexError, RateLimitedError
from resolvers.observing import CompletionEnd, CompletionOutcome, JobOutcome, Unobserved, WebhookOutcome
from resolvers.sinks import PLACES
from resolvers.types import Target

from .instruments import Instruments
from .labels import MAX_NAMES, FirstSeen, ModelLabels


class JobMetrics(Unobserved):
    """What a worker tells. `kinds` are those that it does. `taken_age_s`: how old the oldest job was that it took
    last."""

    def __init__(self, instruments: Instruments, kinds: Sequence[str]) -> None:
        self._kinds = FirstSeen(0, kinds)
        self._jobs = instruments.counters("worker_jobs_total")
        self._durations = instruments.histograms("worker_job_duration_seconds")
        self._ages = instruments.histograms("worker_job_age_seconds")
        self.taken_age_s = 0.0
        self._jobs.begin(*product(kinds, JobOutcome))
        self._durations.begin(*product(kinds))
        self._ages.begin(*product(kinds))

    def took(self, kind: str, age_s: float) -> None:
        self.taken_age_s = age_s

    def worked(self, kind: str, outcome: JobOutcome, seconds: float, age_s: float) -> None:
        kind = self._kinds[kind]
        self._jobs[kind, outcome].inc()
        self._durations[(kind,)].observe(seconds)
        if outcome is JobOutcome.DONE:
            self._ages[(kind,)].observe(age_s)


class CompletionMetrics:
    def __init__(self, instruments: Instruments) -> None:
        self._models = ModelLabels()
        self._requests = instruments.counters("ai_requests_total")
        self._request_durations = instruments.histograms("ai_request_duration_seconds")
        self._errors = instruments.counters("ai_request_errors_total")
        self._overhead = instruments.histogram("ai_overhead_seconds")
        self._attempts = instruments.counters("ai_attempts_total")
        self._attempt_durations = instruments.histograms("ai_attempt_duration_seconds")
        self._fallbacks = instruments.counters("ai_fallbacks_total")
        self._tokens = instruments.counters("ai_tokens_total")
        self._costs = instruments.counters("ai_cost_usd_total")
        self._unpriced = instruments.counters("ai_unpriced_attempts_total")
        self._first_tokens = instruments.histograms("ai_time_to_first_token_seconds")
        self._token_times = instruments.histograms("ai_time_per_output_token_seconds")
        self._rejections = instruments.counters("limit_rejections_total")
        self._rejections.begin(*product(Limited, Measure))

    def attempted(self, entry: LedgerEntry, operation: str) -> None:
        provider, model = entry.provider, self._counted(entry)
        self._attempt_durations[provider, model].observe(entry.latency_ms / 1000)
        if entry.streamed and entry.time_to_first_token_ms is not None:
            self._streamed(provider, model, entry, entry.time_to_first_token_ms)

    def collected(self, entry: LedgerEntry, batch: Batch) -> None:
        provider, model = entry.provider, self._counted(entry)
        self._requests[provider, model, entry.outcome].inc()
        if entry.error_code is not None:
            self._errors[provider, entry.error_code].inc()

    def _counted(self, entry: LedgerEntry) -> str:
        """The label of its model."""
        provider = entry.provider
        if entry.outcome is Outcome.SUCCEEDED:
            self._models.answered(provider, entry.model)
        model = self._models.of(provider, entry.model)
        self._attempts[provider, model, entry.outcome, entry.error_code or ""].inc()
        for kind, tokens in (
            ("input", entry.input_tokens),
            ("output", entry.output_tokens),
            ("cached_input", entry.cached_input_tokens),
            ("cache_write", entry.cache_write_tokens),
            ("reasoning", entry.reasoning_tokens),
        ):
            if tokens:
                self._tokens[provider, model, kind].inc(tokens)
        if entry.cost:
            self._costs[provider, model].inc(float(entry.cost))
        elif entry.cost_source is CostSource.UNKNOWN:
            self._unpriced[provider, model].inc()
        return model

    def _streamed(self, provider: str, model: str, entry: LedgerEntry, first_token_ms: int) -> None:
        self._first_tokens[provider, model].observe(first_token_ms / 1000)
        if entry.outcome is Outcome.SUCCEEDED and entry.output_tokens > 1:
            after_ms = max(0, entry.latency_ms - first_token_ms)
            self._token_times[provider, model].observe(after_ms / 1000 / (entry.output_tokens - 1))

    def switched(self, origin: Target, target: Target, error_code: str) -> None:
        self._fallbacks[origin.provider, target.provider, error_code].inc()

    def completed(self, end: CompletionEnd) -> None:
        provider = end.target.provider
        model = self._models.of(provider, end.target.model)
        self._requests[provider, model, end.outcome].inc()
        if end.error_code is not None:
            self._errors[provider, end.error_code].inc()
        if end.limit is not None:
            self._rejections[end.limit.limited, end.limit.measure].inc()
        if end.entries:
            self._request_durations[provider, model].observe(end.seconds)
        if end.outcome is CompletionOutcome.SUCCEEDED:
            self._overhead.observe(max(0.0, end.seconds - end.upstream_s))


class OperationMetrics:
    def __init__(self, instruments: Instruments) -> None:
        self._names = FirstSeen(MAX_NAMES, [""])
        self._operations = instruments.counters("graphql_operations_total")
        self._durations = instruments.histograms("graphql_operation_duration_seconds")
        self._errors = instruments.counters("graphql_errors_total")
        self._refusals = instruments.counters("graphql_cost_refusals_total")
        self._refusals.begin(*_REFUSALS.values())
        self._errors.begin(*product(sorted(_codes(DomainError) | _codes(ProviderError) | _OTHER_CODES)))

    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None:
        if name and not error_codes:
            self._names.learn(name)
        outcome = "cancelled" if error_codes is None else "failed" if error_codes else "succeeded"
        self._operations[kind, self._names[name or ""], outcome].inc()
        if kind != "invalid":
            self._durations[(kind,)].observe(seconds)
        elif error_codes and (reason := _REFUSALS.get(error_codes[0])):
            self._refusals[reason].inc()
        for code in error_codes or ():
            self._errors[(code,)].inc()

    def refused(self, error_code: str) -> None:
        self._errors[(error_code,)].inc()


class BudgetMetrics:
    _BOUNDS = (100, 90, 80, 50, 0)

    def __init__(self, instruments: Instruments) -> None:
        self._reached = instruments.counters("budget_thresholds_total")
        self._reached.begin(*product(sorted(MONEY), map(str, self._BOUNDS)))

    def budget_reached(self, measure: str, percent: int) -> None:
        bound = next(each for each in self._BOUNDS if each <= percent)
        self._reached[measure, str(bound)].inc()


class LedgerMetrics:
    def __init__(self, instruments: Instruments) -> None:
        self._entries = instruments.counters("ledger_entries_total")
        self._commits = instruments.histograms("ledger_commit_duration_seconds")
        self._entries.begin(*product(PLACES))

    def committed(self, place: str, entries: int, seconds: float) -> None:
        self._entries[(place,)].inc(entries)
        self._commits[(place,)].observe(seconds)


class BatchMetrics:
    def __init__(self, instruments: Instruments) -> None:
        self._items = instruments.counters("batch_items_total")
        self._batches = instruments.gauges("batches_open")
        self._open_items = instruments.gauges("batch_items_open")
        self._items.begin(*product(BatchMode, OVER))
        self.batches_stand(())

    def item_ended(self, mode: BatchMode, outcome: ItemState) -> None:
        self._items[mode, outcome].inc()

    def batches_stand(self, batches: Sequence[Batch]) -> None:
        for mode in BatchMode:
            of_mode = [batch for batch in batches if batch.mode is mode]
            self._batches[(mode,)].set(len(of_mode))
            for state in OPEN:
                self._open_items[mode, state].set(sum(getattr(batch.counts, state) for batch in of_mode))


class WebhookMetrics:
    def __init__(self, instruments: Instruments) -> None:
        self._deliveries = instruments.counters("webhook_deliveries_total")
        self._deliveries.begin(*product(WebhookOutcome))

    def webhook_tried(self, outcome: WebhookOutcome) -> None:
        self._deliveries[(outcome,)].inc()


class ServerMetrics:
    """All that a server tells. Implements `resolvers.observing.Observer`."""

    def __init__(self, instruments: Instruments, jobs: JobMetrics) -> None:
        completions, operations = CompletionMetrics(instruments), OperationMetrics(instruments)
        self.attempted = completions.attempted
        self.collected = completions.collected
        self.switched = completions.switched
        self.completed = completions.completed
        self.operated = operations.operated
        self.refused = operations.refused
        self.committed = LedgerMetrics(instruments).committed
        self.budget_reached = BudgetMetrics(instruments).budget_reached
        batches = BatchMetrics(instruments)
        self.item_ended = batches.item_ended
        self.batches_stand = batches.batches_stand
        self.webhook_tried = WebhookMetrics(instruments).webhook_tried
        self.took = jobs.took
        self.worked = jobs.worked


_REFUSALS = {QueryTooComplexError.code: ("too_complex",), RateLimitedError.code: ("throttled",)}
"""By the codes of operations that were not run."""
_OTHER_CODES = frozenset({"DEADLINE_EXCEEDED", "INTERNAL"})


def _codes(error: type[Exception]) -> Set[str]:
    """Of all the errors below it that have one of their own."""
    below = error.__subclasses__()
    return {code for each in below if isinstance(code := vars(each).get("code"), str)}.union(*map(_codes, below))
