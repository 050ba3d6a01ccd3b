"""What the server and the worker ask of whoever traces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

import structlog

from persistence.batch_records import Batch
from persistence.queue_records import Job
from resolvers.observing import Observer
from resolvers.tracing import Tracer, Untraced, VendorStep
from resolvers.types import Target
from resolvers.worker import Handler

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""


class Tracing(Tracer, Protocol):
    @property
    def observers(self) -> Sequence[Observer]:
        """Who is to be told of what happens."""
        ...

    def operation(self, traceparent: str | None) -> AbstractContextManager[Any]:
        """A caller's operation; `traceparent` is what the caller says of its own trace."""
        ...

    async def close(self) -> None:
        """Sends what has not been sent."""
        ...


class NoTracing(Untraced):
    """Nothing is traced; logs tell the id of the caller's own trace, also of what is done for him later. Implements
    `Tracing`."""

    observers = ()

    def current(self) -> str | None:
        return _callers.get()

    def operation(self, traceparent: str | None) -> AbstractContextManager[Any]:
        return _within(traceparent)

    def working(self, kind: str, origins: Sequence[str]) -> AbstractContextManager[None]:
        return _within(*set(origins)) if len(set(origins)) == 1 else _NOTHING

    def at_vendor(self, step: VendorStep, batch: Batch, target: Target) -> AbstractContextManager[None]:
        return _within(batch.submitter.trace)

    async def close(self) -> None: ...


_NOTHING = nullcontext()
_callers: ContextVar[str | None] = ContextVar("callers_trace", default=None)


def _within(traceparent: str | None) -> AbstractContextManager[None]:
    trace_id = None if traceparent is None else trace_id_of(traceparent)
    return _NOTHING if traceparent is None or trace_id is None else _in_callers(traceparent, trace_id)


@contextmanager
def _in_callers(traceparent: str, trace_id: str) -> Iterator[None]:
    token = _callers.set(traceparent)
    try:
        with in_logs(trace_id):
            yield
    finally:
        _callers.reset(token)


def trace_id_of(traceparent: str) -> str | None:
    """None where it is not what the standard says."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return None if found is None else found[1]


def in_logs(trace_id: str) -> AbstractContextManager[None]:
    """All that is logged meanwhile has it, by whatever task was begun in it."""
    return structlog.contextvars.bound_contextvars(trace_id=trace_id)


def traced(handlers: Mapping[str, Handler], tracing: Tracing) -> Mapping[str, Handler]:
    """The same, the work of each traced."""
    return {kind: _traced(kind, handler, tracing) for kind, handler in handlers.items()}


def _traced(kind: str, handler: Handler, tracing: Tracing) -> Handler:
    async def work(jobs: Sequence[Job]) -> None:
        with tracing.working(kind, [job.trace for job in jobs if job.trace is not None]):
            await handler(jobs)

    return work
