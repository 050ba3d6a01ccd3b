"""Events of the audit log for tests: one by hand, what a store notes where a test doesn't look, and a log in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uuid_utils import uuid7

from persistence.audit_records import AuditEvent, AuditFilter, first_id
from persistence.ports import StoreUnavailableError
from tests.persistence.entries import NOON


def audit_event(**changes: Any) -> AuditEvent:
    values: dict[str, Any] = {
        "id": f"aud_{uuid7().hex}",
        "organisation": "acme",
        "at": NOON,
        "actor": "somebody",
        "key_id": None,
        "address": "203.0.113.7",
        "request_id": "request-1",
        "action": "config.update",
        "subject_kind": "config",
        "subject_id": "cfg_1",
        "before": {"revision": 1},
        "after": {"revision": 2},
    }
    return AuditEvent(**values | changes)


def noted(before: Any, after: Any) -> AuditEvent:
    """Says no more than whether something stood before, and stands after."""
    return audit_event(before=None if before is None else {}, after=None if after is None else {})


class MemoryAuditLog:
    """`persistence.ports.AuditStore` in memory. `down` fails every call."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.down = False

    async def append(self, event: AuditEvent) -> None:
        self._check()
        self.events.append(event)

    async def page(
        self, organisation: str, *, where: AuditFilter, limit: int, before: str | None = None
    ) -> Sequence[AuditEvent]:
        self._check()
        if limit < 1:
            raise ValueError("limit must be at least 1")
        found = [each for each in self.events if each.organisation == organisation and _matches(each, where)]
        newest = sorted(found, key=lambda each: each.id, reverse=True)
        return [each for each in newest if before is None or each.id < before][:limit]

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("down")


def _matches(event: AuditEvent, where: AuditFilter) -> bool:
    return (
        where.action in (None, event.action)
        and where.subject_id in (None, event.subject_id)
        and where.actor in (None, event.actor)
        and (where.since is None or event.id >= first_id(where.since))
        and (where.until is None or event.id < first_id(where.until))
    )
