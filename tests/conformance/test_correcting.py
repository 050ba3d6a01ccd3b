"""Correcting, on every LedgerStore: whole figures are given, differences are booked, and what stands is not touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from persistence.records import CostSource, LedgerEntry, Outcome
from persistence.usage_records import UsageSelection
from resolvers import corrections, history
from resolvers.audit import AuditLog
from resolvers.corrections import MAX_CORRECTIONS, CorrectCommand, Tokens, correct
from resolvers.errors import BadUserInputError, ConflictError, NotFoundError, ServiceUnavailableError
from resolvers.history import CompletionRecord
from resolvers.ledger import Ledger, open_ledger
from resolvers.types import CompletionRef
from tests.conformance.test_ledger_store import STORES, Opener
from tests.persistence.audit import MemoryAuditLog
from tests.persistence.entries import NOON, at, entry
from tests.resolvers.scene import ACME, GLOBEX, MemoryInflight

ENTRY = entry(completion_id="cmp_1", input_tokens=100, output_tokens=50, reasoning_tokens=0, cost=Decimal("0.5"))


@dataclass
class Desk:
    ledger: Ledger
    log: MemoryAuditLog = field(default_factory=MemoryAuditLog)

    async def correct(self, **changes: Any) -> CompletionRecord:
        kinds = Tokens.__dataclass_fields__
        tokens = Tokens(**{name: value for name, value in changes.items() if name in kinds})
        rest = {name: value for name, value in changes.items() if name not in kinds}
        return await correct(
            self.ledger,
            AuditLog(self.log),
            ACME,
            CorrectCommand(**{"completion_id": "cmp_1", "attempt": 1, "note": "invoice 7", **rest}, tokens=tokens),
        )

    async def booked(self, *entries: LedgerEntry) -> None:
        for each in entries:
            await self.ledger.book(each)

    async def record(self) -> CompletionRecord:
        return await history.completion(self.ledger, ACME, CompletionRef(id="cmp_1"))


@pytest.fixture(params=STORES)
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    opener: Opener = request.param
    async with opener(tmp_path) as store, open_ledger(store, MemoryInflight()) as ledger:
        yield Desk(ledger)


async def test_the_difference_is_booked_and_the_attempt_stays(desk: Desk) -> None:
    await desk.booked(ENTRY)
    before = await desk.record()
    after = await desk.correct(input_tokens=80, cost=Decimal("0.75"))
    assert after == await desk.record()
    assert (after.usage.input_tokens, after.usage.output_tokens, after.usage.cost) == (80, 50, Decimal("0.75"))
    assert after.usage.cost_source is CostSource.CORRECTION
    assert after.attempts == before.attempts
    (one,) = after.corrections
    assert (one.number, one.attempt, one.input_tokens, one.output_tokens) == (1, 1, -20, 0)
    assert (one.cost, one.note, one.by) == (Decimal("0.25"), "invoice 7", "key_1")
    assert one.at > after.created_at


async def test_the_audit_log_has_it_before_the_ledger(desk: Desk) -> None:
    """What it says stood is what stands, earlier corrections included; what changes nothing is not noted."""
    await desk.booked(ENTRY)
    await desk.correct(input_tokens=80)
    await desk.correct(input_tokens=80, cost=Decimal("0.75"))
    await desk.correct(input_tokens=80, cost=Decimal("0.75"))
    one, other = desk.log.events
    assert (one.action, one.subject_kind, one.subject_id) == ("usage.correct", "completion", "cmp_1")
    told = {"attempt": 1, "note": "invoice 7"}
    assert (one.before, one.after) == ({"inputTokens": 100}, {"inputTokens": 80, **told})
    assert (other.before, other.after) == ({"cost": "0.5"}, {"cost": "0.75", **told})
    desk.log.down = True
    with pytest.raises(ServiceUnavailableError):
        await desk.correct(cost=Decimal(9))
    assert (await desk.record()).usage.cost == Decimal("0.75")


async def test_reports_count_it_where_its_attempt_is(desk: Desk) -> None:
    await desk.booked(ENTRY)
    await desk.correct(output_tokens=10, cost=Decimal(0))
    (cell,) = await desk.ledger.usage("acme", UsageSelection([(NOON, at(1000))]))
    assert (cell.sums.attempts, cell.sums.completions, cell.sums.output_tokens, cell.sums.cost) == (1, 1, 10, 0)


async def test_repeated_it_changes_nothing_more(desk: Desk) -> None:
    await desk.booked(ENTRY)
    first = await desk.correct(input_tokens=80, cost=Decimal("0.75"))
    assert await desk.correct(input_tokens=80, cost=Decimal("0.750"), note="again") == first


async def test_the_next_one_goes_by_what_stands_then(desk: Desk) -> None:
    await desk.booked(ENTRY)
    await desk.correct(input_tokens=80)
    record = await desk.correct(input_tokens=90, output_tokens=51)
    assert [(each.number, each.input_tokens, each.output_tokens) for each in record.corrections] == [
        (1, -20, 0),
        (2, 10, 1),
    ]
    assert (record.usage.input_tokens, record.usage.cost, record.usage.cost_source) == (
        90,
        Decimal("0.5"),
        ENTRY.cost_source,
    )


async def test_each_attempt_has_its_own(desk: Desk) -> None:
    last = entry(completion_id="cmp_1", attempt=2, model="other", cost=Decimal(1))
    await desk.booked(entry(completion_id="cmp_1", outcome=Outcome.FAILED, cost=Decimal(0)), last)
    record = await desk.correct(attempt=1, cost=Decimal(2))
    record = await desk.correct(attempt=2, cost=Decimal(3))
    assert record.usage.cost == 5
    assert [(each.number, each.attempt, each.cost) for each in record.corrections] == [(1, 1, 2), (2, 2, 2)]


@pytest.mark.parametrize("cost", [Decimal(0), Decimal("0.3")])
async def test_what_had_no_price_and_was_estimated_is_settled_once(desk: Desk, cost: Decimal) -> None:
    await desk.booked(entry(completion_id="cmp_1", cost=None, cost_source=CostSource.UNKNOWN, estimated=True))
    assert (await desk.correct(output_tokens=ENTRY.output_tokens)).usage.cost is None
    await desk.correct(cost=cost)
    record = await desk.correct(cost=cost + 1, input_tokens=7)
    assert (record.usage.cost, record.usage.estimated) == (cost + 1, False)
    (cell,) = await desk.ledger.usage("acme", UsageSelection([(NOON, at(1000))]))
    assert (cell.sums.unpriced, cell.sums.estimated, cell.sums.cost) == (0, 0, cost + 1)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"input_tokens": -1}, "inputTokens"),
        ({"output_tokens": 10**12 + 1}, "outputTokens"),
        ({"cached_input_tokens": 101}, "inputTokens"),
        ({"cached_input_tokens": 60, "cache_write_tokens": 41}, "inputTokens"),
        ({"reasoning_tokens": 51}, "outputTokens"),
        ({"cost": Decimal("-0.01")}, "cost"),
        ({"cost": Decimal(1_000_001)}, "cost"),
        ({"note": ""}, "note"),
        ({"note": "x" * 1001}, "note"),
    ],
)
async def test_figures_that_can_not_be(desk: Desk, changes: dict[str, Any], path: str) -> None:
    await desk.booked(ENTRY)
    with pytest.raises(BadUserInputError) as raised:
        await desk.correct(**changes)
    assert raised.value.path == ("input", path)
    assert (await desk.record()).corrections == ()


async def test_what_is_not_there(desk: Desk) -> None:
    await desk.booked(ENTRY)
    await desk.correct(cost=Decimal(1))
    for changes in ({"completion_id": "cmp_2"}, {"attempt": 2}, {"attempt": 0}, {"attempt": -1}):
        with pytest.raises(NotFoundError):
            await desk.correct(**changes)
    with pytest.raises(NotFoundError):
        await correct(desk.ledger, AuditLog(desk.log), GLOBEX, CorrectCommand("cmp_1", 1, "theirs", cost=Decimal(9)))


async def test_at_once_none_is_lost_and_the_last_one_stands(desk: Desk) -> None:
    await desk.booked(ENTRY)
    costs = [Decimal(cost) for cost in range(1, 5)]
    records = await asyncio.gather(*(desk.correct(cost=cost) for cost in costs))
    record = await desk.record()
    assert len(record.corrections) == len(costs)
    standing = ENTRY.cost or Decimal(0)
    stood = []
    for each in record.corrections:
        standing += each.cost or 0
        stood.append(standing)
    assert sorted(stood) == costs
    assert record.usage.cost == stood[-1]
    assert all(mine in {each.usage.cost for each in records} for mine in stood[-1:])


async def test_there_is_an_end_to_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "MAX_CORRECTIONS", 2)
    assert MAX_CORRECTIONS > 2
    await desk.booked(ENTRY)
    for cost in (1, 2):
        await desk.correct(cost=Decimal(cost))
    with pytest.raises(ConflictError, match="2 corrections"):
        await desk.correct(cost=Decimal(3))
