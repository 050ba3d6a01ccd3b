"""Atatus: operations as transactions, calls to vendors as spans in them, by the agent's own API.

The agent patches no library here, and sees no header, no body and no local variable: it would send them. It sends from
a thread of its own, each minute and at the end, to Atatus or ATATUS_NOTIFY_HOST, its licence key in the address.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version

from atatus import Client
from atatus.collector import builder
from atatus.traces import execution_context
from atatus.utils.disttracing import TraceParent

from gateway.metrics.labels import MAX_NAMES, FirstSeen, ModelLabels
from persistence.batch_records import Batch
from persistence.records import LedgerEntry, Outcome
from resolvers.observing import Unobserved
from resolvers.tracing import Untraced, VendorStep
from resolvers.types import Target

from .port import in_logs, trace_id_of

NAME = "ai-middleware"
CLOSE_S = 5.0
_PRIVATE = {
    "instrument": False,
    "capture_body": "off",
    "capture_headers": False,
    "collect_local_variables": "off",
    "disable_log_record_factory": True,
    "central_config": False,
    "cloud_provider": "none",
    "metrics_sets": [],
}


def agent(licence_key: str, environment: str) -> Atatus:
    # It looks through all packages once for each module: a minute of CPU at every start.
    builder.get_plugins = dict  # type: ignore[attr-defined]
    named = {"app_name": NAME, "service_name": NAME, "version": version(NAME), "environment": environment}
    return Atatus(Client(license_key=licence_key, **named, **_PRIVATE))


class Atatus(Untraced):
    """Implements `Tracing`; of the ledger and of what is put into the queue the agent knows nothing."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.observers = (_Transactions(),)

    def current(self) -> str | None:
        transaction = execution_context.get_transaction()
        if transaction is None:
            return None
        found: str = transaction.trace_parent.copy_from(span_id=transaction.id).to_string()
        return found

    def operation(self, traceparent: str | None) -> AbstractContextManager[None]:
        return self._transaction("request", "GraphQL", traceparent)

    def working(self, kind: str, origins: Sequence[str]) -> AbstractContextManager[None]:
        named = set(origins)
        return self._transaction("messaging", f"process {kind}", *named if len(named) == 1 else (None,))

    def at_vendor(self, step: VendorStep, batch: Batch, target: Target) -> AbstractContextManager[None]:
        return self._transaction("external", f"batch {step.value}", batch.submitter.trace)

    @contextmanager
    def _transaction(self, kind: str, name: str, origin: str | None) -> Iterator[None]:
        parent = None if origin is None or trace_id_of(origin) is None else TraceParent.from_string(origin)
        transaction = self._client.begin_transaction(kind, trace_parent=parent)
        transaction.result = "OK"
        try:
            with in_logs(transaction.trace_parent.trace_id):
                yield
        finally:
            self._client.end_transaction(name)

    async def close(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._client.close()
            with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=end, name="atatus-end", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await ended.wait()


class _Transactions(Unobserved):
    """What is told to the transaction that runs. The agent keeps sums by name for a minute, so names are bounded."""

    def __init__(self) -> None:
        self._models = ModelLabels()
        self._names = FirstSeen(MAX_NAMES)

    def attempted(self, entry: LedgerEntry, operation: str) -> None:
        transaction = execution_context.get_transaction()
        if transaction is None or entry.outcome is Outcome.ABANDONED:
            return
        if entry.outcome is Outcome.SUCCEEDED:
            self._models.answered(entry.provider, entry.model)
        seconds = entry.latency_ms / 1000
        span = transaction.begin_span(
            f"{operation} {entry.provider}/{self._models.of(entry.provider, entry.model)}",
            "external",
            span_subtype="gen_ai",
            start=time.time() - seconds,
            auto_activate=False,
            labels={"outcome": entry.outcome.value, "error_code": entry.error_code or ""},
        )
        span.end(duration=timedelta(seconds=seconds))

    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None:
        transaction = execution_context.get_transaction()
        if transaction is not None:
            if name and not error_codes:
                self._names.learn(name)
            transaction.name = f"{kind} {self._names[name]}" if name else kind
        for code in (error_codes or ())[:1]:
            self.refused(code)

    def refused(self, error_code: str) -> None:
        transaction = execution_context.get_transaction()
        if transaction is not None:
            transaction.result = error_code
            transaction.outcome = "failure"
