"""Limits for tests: a store of them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from persistence.audit_records import AuditEvent
from persistence.limit_records import Limited, LimitRule
from persistence.ports import Audit, StoreUnavailableError
from tests.persistence.entries import NOON


def limit_rule(**changes: Any) -> LimitRule:
    values: dict[str, Any] = {
        "organisation": "acme",
        "limited": Limited.ORGANISATION,
        "name": "",
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "usd_per_day": Decimal("12.5"),
        "usd_per_month": None,
        "streams": 3,
        "alert_at": (50, 95),
        "updated_at": NOON,
        "updated_by": "somebody",
    }
    return LimitRule(**values | changes)


class MemoryLimits:
    """`persistence.ports.LimitStore` in memory. `down` fails every call; `reads` counts an organisation's;
    `events` is what was noted."""

    def __init__(self) -> None:
        self.rules: dict[tuple[str, Limited, str], LimitRule] = {}
        self.down = False
        self.reads = 0
        self.events: list[AuditEvent] = []

    async def put(self, rule: LimitRule, *, audit: Audit[LimitRule]) -> None:
        self._check()
        self.events.append(audit(self.rules.get((rule.organisation, rule.limited, rule.name)), rule))
        self.rules[rule.organisation, rule.limited, rule.name] = rule

    async def of(self, organisation: str) -> Sequence[LimitRule]:
        self._check()
        self.reads += 1
        return [rule for name, rule in sorted(self.rules.items()) if name[0] == organisation]

    async def delete(self, organisation: str, limited: Limited, name: str, *, audit: Audit[LimitRule]) -> bool:
        self._check()
        deleted = self.rules.pop((organisation, limited, name), None)
        if deleted is not None:
            self.events.append(audit(deleted, None))
        return deleted is not None

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("down")
