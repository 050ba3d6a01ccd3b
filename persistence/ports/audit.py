"""The audit log, and what a store that writes is told by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ..audit_records import AuditEvent, AuditFilter

T = TypeVar("T")

Audit = Callable[[T | None, T | None], AuditEvent]
"""What is noted of a write, made of the record before it and the one after it. Pure and quick: it is called within the
write's own transaction, in whatever thread, and once more where that begins anew."""


class AuditStore(Protocol):
    """Events, which nobody changes or deletes. Every method raises StoreUnavailableError, and ValueError for what can't
    be stored. Stores of what is written note their events themselves."""

    async def append(self, event: AuditEvent) -> None:
        """Of what no such store writes."""
        ...

    async def page(
        self, organisation: str, *, where: AuditFilter, limit: int, before: str | None = None
    ) -> Sequence[AuditEvent]:
        """Newest first; `before`: with smaller ids alone. Raises ValueError for a limit below 1."""
        ...
