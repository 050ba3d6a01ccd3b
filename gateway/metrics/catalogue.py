"""Every metric there is. The instruments are made from these rows, and `docs/metrics.md` is written from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """What a gauge's values of several processes come to. Only living ones count; the values are the client
    library's."""

    SUM = "livesum"
    MIN = "livemin"
    MAX = "livemax"
    LATEST = "livemostrecent"


VENDOR_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 300)
"""Seconds that a model takes: from a small answer to the longest deadline."""
FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 50, 120)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)
OWN_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Seconds of our own."""
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
AGE_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)


@dataclass(frozen=True)
class Row:
    """`name` as it is in a query, a counter's `_total` among it. Seconds and bytes, as Prometheus has it. `text` says
    what it counts, and what the values of a label can be."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM


def _counter(name: str, text: str, *labels: str) -> Row:
    return Row(name, Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str, merge: Merge = Merge.SUM) -> Row:
    return Row(name, Kind.GAUGE, text, labels, merge=merge)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Row:
    return Row(name, Kind.HISTOGRAM, text, labels, buckets)


@dataclass(frozen=True)
class Section:
    """`worker`: whether `ai-middleware worker` has them; a server has all."""

    title: str
    rows: Sequence[Row] = field(default_factory=tuple)
    worker: bool = False


_MODEL = ("provider", "model")

_HTTP = (
    _counter(
        "http_requests_total",
        "Requests that were answered. `endpoint` is a path of this server's or `other`; `status` 499: the client left.",
        "method",
        "endpoint",
        "status",
    ),
    _histogram(
        "http_request_duration_seconds",
        "From a request's head to the end of its answer; of a stream, to the stream's.",
        REQUEST_BUCKETS,
        "method",
        "endpoint",
    ),
    _gauge("http_requests_in_flight", "Requests that are being answered, streams among them."),
    _gauge("websocket_connections", "Open WebSockets."),
    _gauge("operations_in_flight", "Operations and downloads that count against `MAX_OPERATIONS_IN_FLIGHT`."),
    _gauge("operations_in_flight_limit", "How many there can be at most, without what others' share adds to it."),
    _counter("operations_shed_total", "Those that were refused at once, as too many were in flight."),
)

_GRAPHQL = (
    _counter(
        "graphql_operations_total",
        "Operations at their end. `type`: `query`, `mutation`, `subscription`, or `invalid` of one that was "
        "not run, for its document or its cost; `name`: the operation's, one of the first hundred that went well, else "
        "`other`, empty where it has none; `outcome`: `succeeded`, as a subscription has that is left, `failed` where "
        "there was any error, or `cancelled` where the caller of another operation left before it was done.",
        "type",
        "name",
        "outcome",
    ),
    _histogram(
        "graphql_operation_duration_seconds",
        "How long they took; a subscription, until its end.",
        REQUEST_BUCKETS,
        "type",
    ),
    _counter(
        "graphql_cost_refusals_total",
        "Operations that were not run for what they cost. `reason`: `too_complex` (more than any may cost, or a "
        "document that is too large), `throttled` (more than the caller has left).",
        "reason",
    ),
    _counter("graphql_errors_total", "Errors that callers were told, by `extensions.code`.", "code"),
    _gauge("graphql_subscriptions_in_flight", "Subscriptions that are running."),
)

_COMPLETIONS = (
    _counter(
        "ai_requests_total",
        "Completions and calls for embeddings at their end, retries and fallbacks within them; provider and model of "
        "the last attempt. `outcome`: `succeeded`, `failed`, `cancelled` (by the caller, or as it left), `refused` "
        "(by a limit, or for what the call is, before any vendor was asked).",
        *_MODEL,
        "outcome",
    ),
    _histogram(
        "ai_request_duration_seconds",
        "How long a completion took, from its beginning to the commit of its ledger entries.",
        VENDOR_BUCKETS,
        *_MODEL,
    ),
    _counter(
        "ai_request_errors_total", "Completions that failed or were refused, by their error's code.", "provider", "code"
    ),
    _gauge("ai_requests_in_flight", "Completions that are running, streams among them."),
    _gauge("ai_streams_in_flight", "Completions that are being streamed."),
    _histogram(
        "ai_overhead_seconds",
        "Our own part of a completion: its duration without the time at vendors and the waits before another try. What "
        "comes before it (token, parsing) is in `http_request_duration_seconds` alone.",
        OWN_BUCKETS,
    ),
    _counter(
        "ai_attempts_total",
        "Calls that were sent to vendors, items of vendors' batches among them, by what they are booked as. "
        "`outcome`: `succeeded`, `failed`, `cancelled`, or `abandoned` of a process that died; `code`: of the error, "
        "else empty.",
        *_MODEL,
        "outcome",
        "code",
    ),
    _histogram("ai_attempt_duration_seconds", "How long a vendor took, for each call.", VENDOR_BUCKETS, *_MODEL),
    _counter(
        "ai_fallbacks_total",
        "Completions that went on to another target, and the error that made them.",
        "from_provider",
        "to_provider",
        "code",
    ),
    _counter(
        "ai_tokens_total",
        "Tokens as booked. `kind`: `input` and `output`; `cached_input` and `cache_write` are part of input, "
        "`reasoning` is part of output.",
        *_MODEL,
        "kind",
    ),
    _counter(
        "ai_cost_usd_total",
        "What they cost, in USD, as far as a price is known. The ledger has it to the cent.",
        *_MODEL,
    ),
    _counter("ai_unpriced_attempts_total", "Attempts that were booked without a cost, for no price is known.", *_MODEL),
    _histogram(
        "ai_time_to_first_token_seconds",
        "Of streams: from the sending of the call that answered to its first token.",
        FIRST_TOKEN_BUCKETS,
        *_MODEL,
    ),
    _histogram(
        "ai_time_per_output_token_seconds",
        "Of streams: the time after the first token, divided by the tokens after it.",
        TOKEN_BUCKETS,
        *_MODEL,
    ),
    _gauge(
        "ai_circuit_state",
        "The worst circuit of a provider: 0 closed, 1 half-open, 2 open.",
        "provider",
        merge=Merge.MAX,
    ),
    _counter(
        "limit_rejections_total",
        "Completions that a limit refused. `limited`: whose (`organisation`, `api_key`, `model`); `measure`: "
        "`requests_per_minute`, `tokens_per_minute`, `usd_per_day`, `usd_per_month`, `streams`.",
        "limited",
        "measure",
    ),
)

_BUDGETS = (
    _counter(
        "budget_thresholds_total",
        "Budgets that were spent up to a threshold, counted once in a budget's period. `measure`: `usd_per_day`, "
        "`usd_per_month`; `percent`: 0, 50, 80, 90 or 100, the greatest of them that is not above the threshold.",
        "measure",
        "percent",
    ),
)

_BATCHES = (
    _counter(
        "batch_items_total",
        "Items of batches at their end; one that is begun anew ends again. `mode`: `live`, `provider`; `outcome`: "
        "`succeeded`, `failed`, `cancelled`.",
        "mode",
        "outcome",
    ),
    _gauge("batches_open", "Batches that have not ended. Of the one process that dispatches; 0 of all others.", "mode"),
    _gauge(
        "batch_items_open",
        "Their items. `state`: `waiting`, `queued`, `running` (of `provider`: at the vendor). Of that process too.",
        "mode",
        "state",
    ),
)

_WEBHOOKS = (
    _counter(
        "webhook_deliveries_total",
        "Tries to deliver events to webhooks. `outcome`: `delivered`, `failed` (comes again), `given_up`.",
        "outcome",
    ),
)

_CACHES = (
    _counter(
        "cache_requests_total",
        "`cache`: `document` (parsed GraphQL), `token` (verified tokens), `api_key`, `provider_key`, `config`, "
        "`price`, `limit`; `result`: `hit`, or `miss` where it had to be read or made.",
        "cache",
        "result",
    ),
    _gauge(
        "api_key_soonest_expiry_timestamp_seconds",
        "When the first of the API keys ends that were used lately and have an end; +Inf where none has.",
        merge=Merge.MIN,
    ),
)

_LEDGER = (
    _counter(
        "ledger_entries_total",
        "Entries that were committed, by `place`: the ledger's `store`; the `queue`, while that is away; the `spool`, "
        "where both are.",
        "place",
    ),
    _histogram(
        "ledger_commit_duration_seconds", "How long a commit took; it may hold many entries.", OWN_BUCKETS, "place"
    ),
    _gauge("ledger_pending_entries", "Booked entries that are neither in the store nor in the queue yet."),
    _gauge("ledger_spooled_entries", "Those of them that found no place but the spool."),
    _gauge("ledger_lag_seconds", "How long the oldest of them has been waiting; 0 where none is.", merge=Merge.MAX),
    _gauge(
        "ledger_available",
        "1, or 0 while neither store nor queue takes entries, and calls are refused.",
        merge=Merge.MIN,
    ),
    _gauge("inflight_log_entries", "Attempts that are noted in the in-flight log."),
    _gauge("inflight_log_bytes", "The size of that log."),
    _gauge("data_dir_free_bytes", "What is free on the disk of DATA_DIR.", merge=Merge.MIN),
)

_QUEUE = (
    _gauge(
        "queue_jobs",
        "Jobs in the queue. `state`: `ready` (in no worker's hands), `delayed` (resting after a failure), `parked`. "
        "Looked at every 15 seconds.",
        "state",
        merge=Merge.LATEST,
    ),
    _gauge(
        "queue_oldest_job_age_seconds",
        "How old the oldest ready job is; 0 where none is. RabbitMQ does not tell: there it is the age of the oldest "
        "that this process took last, until the queue is empty.",
        merge=Merge.MAX,
    ),
)

_WORKER = (
    _counter(
        "worker_jobs_total",
        "Jobs that a worker took. `outcome`: `done`, `failed` (comes again), `parked`, `put_back` (what it needs is "
        "away).",
        "kind",
        "outcome",
    ),
    _histogram("worker_job_duration_seconds", "For how long a job was in a worker's hands.", REQUEST_BUCKETS, "kind"),
    _histogram("worker_job_age_seconds", "How old a job was when it was done.", AGE_BUCKETS, "kind"),
)

_PROCESS = (
    _gauge(
        "ai_middleware_info",
        "Always 1; `version` of this server, `python` of its interpreter.",
        "version",
        "python",
        merge=Merge.MAX,
    ),
    _gauge("ai_middleware_ready", "1, or 0 while `/readyz` answers 503.", merge=Merge.MIN),
    _gauge(
        "dependency_up", "1, or 0 of a server behind this process that does not answer.", "dependency", merge=Merge.MIN
    ),
    _histogram(
        "event_loop_lag_seconds", "How late the event loop woke a task that slept for half a second.", OWN_BUCKETS
    ),
    _counter("process_cpu_seconds_total", "User and system CPU time."),
    _gauge("process_resident_memory_bytes", "Resident memory."),
    _gauge("process_virtual_memory_bytes", "Virtual memory."),
    _gauge("process_open_fds", "Open file descriptors."),
    _gauge("process_max_fds", "How many one process may have open.", merge=Merge.MIN),
    _gauge("process_start_time_seconds", "When the oldest of the processes began.", merge=Merge.MIN),
    _gauge("ai_middleware_processes", "Processes that are counted together here."),
    _counter("python_gc_collections_total", "Runs of the garbage collector.", "generation"),
    _counter("python_gc_objects_collected_total", "Objects that it freed.", "generation"),
    _counter("python_gc_objects_uncollectable_total", "Objects that it could not free.", "generation"),
)

SECTIONS = (
    Section("HTTP", _HTTP),
    Section("GraphQL", _GRAPHQL),
    Section("Completions", _COMPLETIONS),
    Section("Budgets", _BUDGETS),
    Section("Batches", _BATCHES),
    Section("Webhooks", _WEBHOOKS),
    Section("Caches and keys", _CACHES),
    Section("Ledger", _LEDGER),
    Section("Queue", _QUEUE, worker=True),
    Section("Worker", _WORKER, worker=True),
    Section("Process", _PROCESS, worker=True),
)

ROWS: Mapping[str, Row] = {row.name: row for section in SECTIONS for row in section.rows}
WORKER_ROWS: Mapping[str, Row] = {row.name: row for section in SECTIONS if section.worker for row in section.rows}
