"""Jobs as messages, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from ..queue_records import Job

_FAILURES_AT_MOST = 100
"""More than any job comes to before it is parked."""
_COUNTED_AS = "counted_as"


def message_of(job: Job, counted_as: str | None = None) -> aio_pika.Message:
    """`counted_as`: the name that its failures are counted by; None: its id."""
    headers: Any = {"kind": job.kind, "failures": job.failures, "created_at": job.created_at.isoformat()}
    if job.reason is not None:
        headers["reason"] = job.reason
    if job.trace is not None:
        headers["traceparent"] = job.trace
    if counted_as is not None and counted_as != job.id:
        headers[_COUNTED_AS] = counted_as
    return aio_pika.Message(
        job.body.encode(),
        headers=headers,
        message_id=job.id,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def job_of(message: AbstractIncomingMessage) -> Job:
    """Also of what somebody else has put there: no worker knows its kind, and it is parked."""
    headers = message.headers
    failures, reason, trace = headers.get("failures"), headers.get("reason"), headers.get("traceparent")
    return Job(
        id=message.message_id or f"foreign-{sha256(message.body).hexdigest()[:32]}",
        kind=str(headers.get("kind", "")),
        body=message.body.decode(errors="replace"),
        created_at=_time(headers.get("created_at")),
        failures=failures if isinstance(failures, int) and 0 <= failures <= _FAILURES_AT_MOST else 0,
        reason=None if reason is None else str(reason),
        trace=None if trace is None else str(trace),
    )


def counted_as(message: AbstractIncomingMessage) -> str:
    return str(message.headers.get(_COUNTED_AS) or job_of(message).id)


def _time(told: object) -> datetime:
    """Now, where it is none. One without a zone is taken for UTC: ages are reckoned with it."""
    try:
        found = datetime.fromisoformat(str(told))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
