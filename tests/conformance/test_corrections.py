"""Corrections on every LedgerStore: entries of their own that change what an attempt's figures add up to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from persistence.ports import LedgerStore
from persistence.records import CompletionFilter, CostSource, LedgerEntry, Outcome
from persistence.usage_records import UsageField, UsageSelection, UsageSums
from resolvers import history
from resolvers.history import CompletionRecord
from resolvers.ledger import open_ledger
from resolvers.principal import Principal
from resolvers.types import CompletionRef
from tests.conformance.test_ledger_store import STORES
from tests.persistence.entries import NOON, at, entry
from tests.resolvers.scene import MemoryInflight


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LedgerStore]:
    opener: Callable[[Path], AbstractAsyncContextManager[LedgerStore]] = request.param
    async with opener(tmp_path) as store:
        yield store


@pytest.fixture
def org() -> str:
    return f"org_{uuid4().hex}"


def correction(of: LedgerEntry, number: int = 1, **deltas: Any) -> LedgerEntry:
    nothing: dict[str, Any] = {
        "input_tokens": 0,
        "output_tokens": 0,
        "cost": None,
        "latency_ms": 0,
        "time_to_first_token_ms": None,
        "estimated": False,
    }
    return replace(of, attempt=-number, corrects=of.attempt, **nothing | deltas)


async def sums(store: LedgerStore, org: str, *group_by: UsageField) -> dict[tuple[Any, ...], UsageSums]:
    cells = await store.usage(org, UsageSelection([(NOON, at(1000))], group_by, max_groups=9))
    return {cell.group or (): cell.sums for cell in cells}


async def recorded(store: LedgerStore, first: LedgerEntry) -> CompletionRecord:
    reader = Principal("key_1", first.organisation, frozenset(), 0.0)
    async with open_ledger(store, MemoryInflight()) as ledger:
        found = await history.completion(ledger, reader, CompletionRef(id=first.completion_id))
        page = await history.completions(ledger, reader, first=9, after=None, where=CompletionFilter())
    assert [record for _, record in page.records if record.id == first.completion_id] == [found]
    return found


async def test_its_figures_are_added_and_it_is_no_attempt(store: LedgerStore, org: str) -> None:
    first = entry(organisation=org, latency_ms=100, time_to_first_token_ms=10)
    await store.append([first])
    before = (await sums(store, org))[()]
    await store.append([correction(first, input_tokens=-200, output_tokens=-80, cost=Decimal("-0.001"))])
    after = (await sums(store, org))[()]
    assert after == replace(before, input_tokens=1000, output_tokens=0, cost=Decimal("0.00204"))
    record = await recorded(store, first)
    assert (record.usage.input_tokens, record.usage.output_tokens, record.usage.cost) == (1000, 0, Decimal("0.00204"))
    assert [attempt.number for attempt in record.attempts] == [1]
    assert record.latency_ms == 100


async def test_it_settles_what_was_unpriced_and_estimated(store: LedgerStore, org: str) -> None:
    first = entry(organisation=org, cost=None, cost_source=CostSource.UNKNOWN, estimated=True)
    await store.append([first, entry(organisation=org, cost=None, estimated=True)])
    settled = correction(
        first, cost=Decimal("0.5"), cost_source=CostSource.PROVIDER, settles_cost=True, settles_estimate=True
    )
    await store.append([settled, settled])
    total = (await sums(store, org))[()]
    assert (total.unpriced, total.estimated, total.cost) == (1, 1, Decimal("0.5"))
    usage = (await recorded(store, first)).usage
    assert (usage.cost, usage.cost_source, usage.estimated) == (Decimal("0.5"), CostSource.PROVIDER, False)


async def test_it_counts_where_its_attempt_does(store: LedgerStore, org: str) -> None:
    failed = entry(organisation=org, outcome=Outcome.FAILED, cost=None, estimated=True)
    last = replace(failed, attempt=2, model="other", outcome=Outcome.SUCCEEDED, cost=Decimal(1), estimated=False)
    await store.append([correction(failed, cost=Decimal(2), settles_cost=True), failed, last])
    await store.append([correction(failed, 2, output_tokens=5, settles_estimate=True)])
    found = await sums(store, org, UsageField.MODEL, UsageField.OUTCOME)
    of_failed, of_last = found[failed.model, "failed"], found["other", "succeeded"]
    assert (of_failed.completions, of_failed.attempts, of_failed.failed_attempts) == (0, 1, 1)
    assert (of_failed.cost, of_failed.unpriced, of_failed.estimated, of_failed.output_tokens) == (2, 0, 0, 85)
    assert (of_last.completions, of_last.attempts, of_last.cost) == (1, 1, 1)
    record = await recorded(store, failed)
    assert (record.outcome, record.model, record.usage.cost, record.usage.estimated) == ("succeeded", "other", 3, False)
    assert [attempt.number for attempt in record.attempts] == [1, 2]


async def test_a_completion_with_an_unknown_cost_keeps_it_until_that_one_is_settled(
    store: LedgerStore, org: str
) -> None:
    first = entry(organisation=org, cost=None, cost_source=CostSource.UNKNOWN)
    last = replace(first, attempt=2, cost=Decimal(1), cost_source=CostSource.PRICE_TABLE)
    await store.append([first, last, correction(last, cost=Decimal("0.5"))])
    assert (await recorded(store, first)).usage.cost is None
    await store.append([correction(first, 2, cost=Decimal(0), cost_source=CostSource.PROVIDER, settles_cost=True)])
    usage = (await recorded(store, first)).usage
    assert (usage.cost, usage.cost_source) == (Decimal("1.5"), CostSource.PRICE_TABLE)


async def test_a_corrected_completion_is_found_by_its_last_attempt(store: LedgerStore, org: str) -> None:
    first = entry(organisation=org, outcome=Outcome.FAILED, idempotency_key="k")
    last = replace(first, attempt=2, outcome=Outcome.SUCCEEDED)
    fixed = correction(first, cost=Decimal(1))
    await store.append([first, last, fixed])
    for where in (CompletionFilter(), CompletionFilter(outcome=Outcome.SUCCEEDED)):
        [found] = await store.completions(org, where=where, limit=9)
        assert list(found) == [fixed, first, last]
    assert list(await store.completions(org, where=CompletionFilter(outcome=Outcome.FAILED), limit=9)) == []
    assert list(await store.completion_by_key(org, "k")) == [fixed, first, last]
