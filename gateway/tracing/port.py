"""What the server and the worker ask of whoever traces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import structlog

from persistence.queue_records import Job
from resolvers.observing import Observer
from resolvers.tracing import Tracer, Untraced
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
    """Nothing is traced; logs tell the id of the caller's own trace. Implements `Tracing`."""

    observers = ()

    def operation(self, traceparent: str | None) -> AbstractContextManager[Any]:
        trace_id = None if traceparent is None else trace_id_of(traceparent)
        return _NOTHING if trace_id is None else in_logs(trace_id)

    async def close(self) -> None: ...


_NOTHING = nullcontext()


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
