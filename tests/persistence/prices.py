"""Price rules for tests: one by hand, any by hypothesis, and a store of them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from uuid_utils import uuid7

from persistence.audit_records import AuditEvent
from persistence.ports import Audit, Conflict, StoreConflictError, StoreUnavailableError
from persistence.price_records import Discount, Override, PriceFilter, PriceRule
from tests.persistence.entries import NOON, times

CONTRACT = Override(input=Decimal("2.5"), output=Decimal(10))


def price_rule(**changes: Any) -> PriceRule:
    values: dict[str, Any] = {
        "id": f"prc_{uuid7().hex}",
        "organisation": "acme",
        "provider": "openai",
        "model": "gpt-4.1",
        "terms": CONTRACT,
        "since": NOON,
        "until": None,
        "note": None,
        "created_at": NOON,
        "created_by": "key_1",
    }
    return PriceRule(**values | changes)


amounts = st.decimals(0, 1_000_000, places=18)
percents = st.decimals(Decimal("0.01"), 100, places=2) | st.decimals(Decimal("1E-18"), 100, places=18)
overrides = st.builds(
    Override,
    input=amounts,
    output=amounts,
    cached_input=st.none() | amounts,
    cache_write=st.none() | amounts,
    reasoning=st.none() | amounts,
)
discounts = st.builds(Discount, percent=percents)
texts = st.text(max_size=20)
rules = st.builds(
    price_rule,
    provider=texts,
    model=st.none() | texts,
    terms=overrides | discounts,
    since=times,
    until=st.none() | times,
    note=st.none() | texts,
    created_at=times,
    created_by=texts,
)


class MemoryPrices:
    """`persistence.ports.PriceStore` in memory. `down` fails every call; `reads` counts those of books; `events` is
    what was noted."""

    def __init__(self, *rules: PriceRule) -> None:
        self.rules = list(rules)
        self.down = False
        self.reads = 0
        self.events: list[AuditEvent] = []

    async def add(self, rule: PriceRule, *, at_most: int, audit: Audit[PriceRule]) -> None:
        self._check()
        if len(await self._unended(rule.organisation, rule.created_at)) >= at_most:
            raise StoreConflictError(f"there are {at_most} rules that have not ended", on=Conflict.FULL)
        _check_times(rule.since, rule.until, rule.created_at)
        self.rules.append(rule)
        self.events.append(audit(None, rule))

    async def by_id(self, organisation: str, rule_id: str) -> PriceRule | None:
        self._check()
        return next((rule for rule in self._of(organisation) if rule.id == rule_id), None)

    async def end(
        self, organisation: str, rule_id: str, until: datetime, *, now: datetime, audit: Audit[PriceRule]
    ) -> PriceRule | None:
        _check_times(until, now)
        standing = await self.by_id(organisation, rule_id)
        if standing is None:
            return None
        if standing.until is not None and standing.until <= now:
            raise StoreConflictError(f"the rule ended at {standing.until.isoformat()}", on=Conflict.ENDED)
        ended = replace(standing, until=until)
        self.rules[self.rules.index(standing)] = ended
        self.events.append(audit(standing, ended))
        return ended

    async def unended(self, organisation: str, *, since: datetime) -> Sequence[PriceRule]:
        self.reads += 1
        self._check()
        return await self._unended(organisation, since)

    async def page(
        self, organisation: str, *, where: PriceFilter, limit: int, before: str | None = None
    ) -> Sequence[PriceRule]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        self._check()
        found = [rule for rule in reversed(self._of(organisation)) if _matches(rule, where)]
        return [rule for rule in found if before is None or rule.id < before][:limit]

    async def _unended(self, organisation: str, since: datetime) -> Sequence[PriceRule]:
        return [rule for rule in self._of(organisation) if rule.until is None or rule.until > since]

    def _of(self, organisation: str) -> list[PriceRule]:
        return sorted((rule for rule in self.rules if rule.organisation == organisation), key=lambda rule: rule.id)

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("gone")


def _matches(rule: PriceRule, where: PriceFilter) -> bool:
    return (
        where.provider in (None, rule.provider)
        and where.model in (None, rule.model)
        and (where.active_at is None or rule.holds(where.active_at))
    )


def _check_times(*times: datetime | None) -> None:
    for time in times:
        if time is not None and (time.tzinfo is None or time.microsecond % 1000):
            raise ValueError("a price rule's times must be aware, in whole milliseconds")
