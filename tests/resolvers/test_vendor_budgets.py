"""Vendors' batches under a USD budget: held while the vendor works, counted as their results are collected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from persistence.batch_records import Batch, BatchMode, Counts, VendorRun
from persistence.limit_records import Limited
from persistence.reservation_records import Kind
from providers.errors import ProviderInvalidRequestError, ProviderTimeoutError
from resolvers.allowances import budgets_of, usd
from resolvers.batches import vendor_parts
from resolvers.batches.asked import BatchAsked
from resolvers.batches.vendor_parts import REST
from resolvers.errors import BudgetExceededError
from resolvers.ids import new_completion_id
from resolvers.leases import ENROLLED_S, LEASE_S
from resolvers.limit_rules import NewLimits
from resolvers.limits import Limiter
from resolvers.types import Target
from tests.persistence.leases import MemoryLeases

from .batch_stage import BatchStage, inputs, open_batch_stage, until
from .batches_in_memory import loop_time
from .fake_batches import FakeBatches, with_vendor
from .limiting import limiter_in
from .scene import ACME, texts
from .test_limits import MOST, limit, priced

MODEL = Target("openai", "gpt-4o-mini")
ITEM = Decimal(MOST) / 2
"""What an item may come to, at the vendor's price for batches."""
SPENT = Decimal(3 + 2 * 10) / 2
"""What it comes to."""
HOUR = timedelta(hours=1)
UNBOUNDED: Sequence[dict[str, Any]] = (
    {"max_tokens": None, "target": Target("openai", "x")},
    {"provider_options": {"openai": {"n": 2}}},
)


@pytest.fixture(params=["alone", "shared"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[BatchStage]:
    leases = None if request.param == "alone" else MemoryLeases(asyncio.get_running_loop().time)
    async with open_batch_stage(leases) as stage:
        priced(stage.scene, ("alpha", "a-1"), (MODEL.provider, MODEL.model))
        yield stage


@pytest.fixture
async def vendor(stage: BatchStage) -> FakeBatches:
    vendor = await with_vendor(stage)
    vendor.working = True
    return vendor


async def submitted(stage: BatchStage, count: int, *, within: timedelta = HOUR, **changes: Any) -> Batch:
    asked = BatchAsked(mode=BatchMode.PROVIDER, deadline=loop_time() + within)
    return await stage.batches.submit(ACME, asked, inputs(count, **{"target": MODEL, "max_tokens": 4} | changes))


async def used(stage: BatchStage, limiter: Limiter | None = None) -> Decimal:
    """Of the organisation's budget for this day, with what is held."""
    limiter = limiter or stage.scene.services.limits
    budgets = budgets_of(list(await limiter.cache.rules("acme")), Decimal(0), datetime.now(UTC))
    [amount] = await limiter.used("acme", budgets)
    return usd(amount)


def spent(stage: BatchStage) -> Decimal:
    """As a ledger has it, which keeps an entry once."""
    costs = {entry.completion_id: entry.cost or Decimal(0) for entry in stage.scene.store.entries}
    return sum(costs.values(), Decimal(0))


def sent(vendor: FakeBatches) -> Sequence[int]:
    """How many items each part had."""
    return [len(names) for _, names in vendor.sent]


def errors(stage: BatchStage, batch: Batch) -> Sequence[str | None]:
    return [item.error and item.error.code for item in stage.items(batch)]


async def test_what_has_no_room_waits_and_what_is_there_is_held(stage: BatchStage, vendor: FakeBatches) -> None:
    limit(stage.scene, usd_per_day=4 * ITEM)
    batch = await submitted(stage, 6)
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(2 * (ENROLLED_S + LEASE_S))
        assert sent(vendor) == [4]
        assert stage.states(batch) == ["running"] * 4 + ["waiting"] * 2
        assert errors(stage, batch) == [None] * 4 + ["BUDGET_EXCEEDED", None], "the first that waits says why"
        assert await used(stage) == 4 * ITEM
        with pytest.raises(BudgetExceededError):
            await stage.scene.complete(max_tokens=4)
        vendor.working = False
        await until(lambda: stage.states(batch)[:4] == ["succeeded"] * 4)
        await until(lambda: sent(vendor) == [4, 2], within_s=5)
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=6)
    assert await used(stage) == spent(stage) == ended.cost == 6 * SPENT


async def test_a_budget_is_used_up_and_never_exceeded(stage: BatchStage, vendor: FakeBatches) -> None:
    """What has no room until its batch's deadline fails, as in mode LIVE."""
    vendor.working = False
    limit(stage.scene, usd_per_day=2 * ITEM)
    batch = await submitted(stage, 20, within=HOUR / 10)
    async with stage.dispatcher(vendors=True):
        ended = await stage.ended(batch)
    assert spent(stage) <= 2 * ITEM < spent(stage) + ITEM
    assert await used(stage) == spent(stage) == ended.counts.succeeded * SPENT
    assert set(errors(stage, batch)[ended.counts.succeeded :]) == {"DEADLINE_EXCEEDED"}


async def test_interactive_calls_beside_find_the_same_room(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.working = False
    limit(stage.scene, usd_per_day=10 * Decimal(MOST))
    stage.alpha.will(*[texts("hi")] * 1000)
    batch, refused = await submitted(stage, 30, within=HOUR / 20), 0

    async def call(number: int) -> None:
        nonlocal refused
        while stage.now(batch).ended_at is None:
            try:
                await stage.scene.complete(max_tokens=4)
            except BudgetExceededError:
                refused += 1
            await asyncio.sleep(5 * (number + 1))

    async with stage.dispatcher(vendors=True), asyncio.TaskGroup() as calls:
        for number in range(5):
            calls.create_task(call(number))
    assert (spent(stage) <= 10 * MOST, refused > 0, stage.now(batch).counts.succeeded > 0) == (True, True, True)
    assert await used(stage) == spent(stage)


async def test_what_never_fits_fails(stage: BatchStage, vendor: FakeBatches) -> None:
    limit(stage.scene, usd_per_day=ITEM - 1)
    async with stage.dispatcher(vendors=True):
        batch = await submitted(stage, 2)
        assert (await stage.ended(batch)).counts == Counts(failed=2)
    assert (errors(stage, batch), sent(vendor)) == (["BUDGET_EXCEEDED"] * 2, [])


@pytest.mark.parametrize("changes", UNBOUNDED)
async def test_what_has_no_bound_fails(stage: BatchStage, vendor: FakeBatches, changes: dict[str, Any]) -> None:
    limit(stage.scene, usd_per_day=100 * ITEM)
    async with stage.dispatcher(vendors=True):
        batch = await submitted(stage, 1, **changes)
        await stage.ended(batch)
    assert errors(stage, batch) == ["BAD_USER_INPUT"]
    assert await used(stage) == 0


@pytest.mark.parametrize("forgotten", [False, True])
async def test_what_others_took_meanwhile_is_left_to_them(
    stage: BatchStage, vendor: FakeBatches, monkeypatch: pytest.MonkeyPatch, *, forgotten: bool
) -> None:
    """Between the look at what is left and the reservation, also where the budget has to be begun anew by then."""
    limit(stage.scene, usd_per_day=5 * ITEM)
    limiter, looked = stage.scene.services.limits, stage.scene.services.limits.used
    theirs = budgets_of(list(await limiter.cache.rules("acme")), 3 * ITEM, datetime.now(UTC))

    async def used_before(organisation: str, asked: Sequence[Any]) -> Sequence[int]:
        found = await looked(organisation, asked)
        await limiter.hold(organisation, "theirs", theirs)
        if forgotten:
            await limiter.outdate(organisation, theirs)
        return found

    monkeypatch.setattr(limiter, "used", used_before)
    batch = await submitted(stage, 4)
    async with stage.dispatcher(vendors=True):
        await until(lambda: sent(vendor) == [2])
        monkeypatch.setattr(limiter, "used", looked)
        assert await used(stage) == 5 * ITEM
        await limiter.release("acme", "theirs", [need.asked for need in theirs])
        vendor.working = False
        await stage.ended(batch)
    assert await used(stage) == spent(stage) == 4 * SPENT


@pytest.mark.parametrize("sending", [True, False])
async def test_a_killed_poller_neither_frees_nor_leaks_it(
    stage: BatchStage, vendor: FakeBatches, *, sending: bool
) -> None:
    """As it sends, or while the vendor works. The next process has counters of its own, which know nothing."""
    limit(stage.scene, usd_per_day=3 * ITEM)
    has_it = asyncio.Event()
    if sending:
        vendor.lost.append(has_it)
    batch = await submitted(stage, 3)
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 1)
        await asyncio.sleep(60)
    scene = stage.scene
    async with limiter_in(scene.limits, scene.services.ledger, stage.store) as limiter:
        scene.services = replace(scene.services, limits=limiter)
        assert await used(stage) == 3 * ITEM
        with pytest.raises(BudgetExceededError):
            await scene.complete(max_tokens=4)
        async with stage.dispatcher(vendors=True):
            await asyncio.sleep(HOUR.total_seconds() / 2)
            assert await used(stage) == 3 * ITEM
            vendor.working = False
            assert (await stage.ended(batch)).counts == Counts(succeeded=3)
        assert await used(stage) == spent(stage) == 3 * SPENT
    assert sent(vendor) == [3]


async def test_one_that_is_killed_before_it_sends_leaks_nothing(stage: BatchStage, vendor: FakeBatches) -> None:
    """What it has written down is released by the next, after the time that sending may take."""
    limit(stage.scene, usd_per_day=3 * ITEM)
    vendor.lost.append(asyncio.Event())
    await submitted(stage, 3)
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 1)
    vendor.sent.clear()  # it never arrived
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 1, within_s=3600)
        assert await used(stage) == 3 * ITEM


@pytest.mark.parametrize("where", ["vendor_parts.Parts.claim", "vendor_runs.release"])
async def test_what_a_killed_process_did_not_end_ends_with_the_batch(
    stage: BatchStage, vendor: FakeBatches, where: str
) -> None:
    """It had reserved, and sent nothing; or all was collected, and it had not yet said so."""
    limit(stage.scene, usd_per_day=6 * ITEM)
    reached, vendor.working = asyncio.Event(), False

    async def dies(*_: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    batch = await submitted(stage, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"resolvers.batches.{where}", dies)
        async with stage.dispatcher(vendors=True), asyncio.timeout(3600):
            await reached.wait()
    assert await used(stage) >= 3 * ITEM
    async with stage.dispatcher(vendors=True):
        assert (await stage.ended(batch)).counts == Counts(succeeded=3)
    assert await used(stage) == spent(stage) == 3 * SPENT
    assert all(run.ended for run in stage.store.runs.values())


async def test_a_killed_collector_counts_each_item_once(
    stage: BatchStage, vendor: FakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.batches.vendor_runs.COLLECTED_AT_ONCE", 1)
    limit(stage.scene, usd_per_day=3 * ITEM)
    batch = await submitted(stage, 3)
    collecting = vendor.falters = asyncio.Event()
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 1)
        vendor.working = False
        async with asyncio.timeout(3600):
            await collecting.wait()
    assert stage.states(batch) == ["succeeded", "running", "running"]
    assert await used(stage) == 3 * ITEM + SPENT, "rather twice than never, until all of it is collected"
    async with stage.dispatcher(vendors=True):
        await stage.ended(batch)
    assert await used(stage) == spent(stage) == 3 * SPENT


@pytest.mark.parametrize("ending", ["cancelled", "refused", "unsent"])
async def test_what_is_not_billed_is_free_again(stage: BatchStage, vendor: FakeBatches, ending: str) -> None:
    limit(stage.scene, usd_per_day=3 * ITEM)
    if ending == "refused":
        vendor.refused.append(ProviderInvalidRequestError("no", provider="openai", status=400))
    if ending == "unsent":
        vendor.refused.append(ProviderTimeoutError("no connection", provider="openai", sent=False))
    batch = await submitted(stage, 3)
    async with stage.dispatcher(vendors=True):
        await until(lambda: bool(vendor.sent) or "waiting" not in stage.states(batch))
        if ending != "refused":
            await until(lambda: len(vendor.sent) == 1)
            assert await used(stage) == 3 * ITEM
            await stage.batches.cancel(ACME, batch.id)
        ended = await stage.ended(batch)
    assert ended.counts == (Counts(failed=3) if ending == "refused" else Counts(cancelled=3))
    assert (await used(stage), spent(stage)) == (0, 0)


async def test_a_budget_that_is_begun_as_a_part_ends_holds_nothing_of_it(
    stage: BatchStage, vendor: FakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record says that it is held, until the moment after."""
    limit(stage.scene, usd_per_day=3 * ITEM)
    vendor.working, limiter, save = False, stage.scene.services.limits, stage.store.save_vendor_run

    async def begun_before(run: VendorRun) -> None:
        if run.ended:
            budgets = budgets_of(list(await limiter.cache.rules("acme")), Decimal(0), datetime.now(UTC))
            await limiter.outdate("acme", budgets)
            assert await used(stage) == 3 * SPENT + 3 * ITEM
        await save(run)

    monkeypatch.setattr(stage.store, "save_vendor_run", begun_before)
    async with stage.dispatcher(vendors=True):
        await stage.ended(await submitted(stage, 3))
    assert await used(stage) == spent(stage) == 3 * SPENT


async def test_a_budget_that_is_set_while_the_vendor_works_counts_it_when_it_ends(
    stage: BatchStage, vendor: FakeBatches
) -> None:
    batch = await submitted(stage, 3)
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 1)
        await stage.scene.services.limit_rules.put(ACME, NewLimits(usd_per_day=100 * ITEM))
        assert await used(stage) == 0
        vendor.working = False
        await stage.ended(batch)
    assert await used(stage) == spent(stage) == 3 * SPENT


async def test_limits_of_requests_and_tokens_do_not_count_it(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.working = False
    limit(stage.scene, requests_per_minute=1, tokens_per_minute=1, usd_per_day=100 * ITEM)
    async with stage.dispatcher(vendors=True):
        assert (await stage.ended(await submitted(stage, 5))).counts == Counts(succeeded=5)
    assert sent(vendor) == [5]


async def test_a_part_is_of_one_day(stage: BatchStage, vendor: FakeBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is booked in a day is held in that day's budget."""
    ids = [new_completion_id() for _ in range(4)]
    before = ids[0][1] - timedelta(days=1)
    made = iter([(ids[0][0], before), (ids[1][0], before), *ids[2:]] + [new_completion_id() for _ in range(4)])
    monkeypatch.setattr(vendor_parts, "new_completion_id", lambda: next(made))
    limit(stage.scene, usd_per_day=100 * ITEM)
    await submitted(stage, 4)
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 2)
        assert await used(stage) == 2 * ITEM
    assert sent(vendor) == [2, 2]
    [first, second] = [{each.key for each in run.reserved} for run in stage.store.runs.values()]
    assert not first & second
    assert {each.kind for run in stage.store.runs.values() for each in run.reserved} == {Kind.BUDGET}


async def test_another_model_of_the_batch_goes_on(stage: BatchStage, vendor: FakeBatches) -> None:
    """One model's budget is used up."""
    limit(stage.scene, limited=Limited.MODEL, name=str(MODEL), usd_per_day=ITEM)
    other = Target("openai", "gpt-4o")
    priced(stage.scene, ("openai", "gpt-4o"), (MODEL.provider, MODEL.model))
    asked = BatchAsked(mode=BatchMode.PROVIDER, deadline=loop_time() + HOUR)
    lines = [*inputs(2, target=MODEL, max_tokens=4), *inputs(2, target=other, max_tokens=4)]
    batch = await stage.batches.submit(ACME, asked, lines)
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 2)
    assert sent(vendor) == [1, 2]
    assert stage.states(batch) == ["running", "waiting", "running", "running"]


async def test_where_nobody_can_say_nothing_is_sent_and_nothing_collected() -> None:
    leases = MemoryLeases(asyncio.get_running_loop().time)
    async with open_batch_stage(leases) as stage:
        priced(stage.scene, (MODEL.provider, MODEL.model))
        limit(stage.scene, usd_per_day=100 * ITEM)
        vendor, leases.down = await with_vendor(stage), True
        batch = await submitted(stage, 2)
        async with stage.dispatcher(vendors=True):
            await asyncio.sleep(REST.total_seconds())
            assert vendor.sent == []
            vendor.working, leases.down = True, False
            await until(lambda: len(vendor.sent) == 1)
            vendor.working, leases.down = False, True
            await asyncio.sleep(REST.total_seconds())
            assert stage.states(batch) == ["running"] * 2
            assert len(vendor.looks) < 10, "the vendor is not asked for its results each second"
            leases.down = False
            await stage.ended(batch)
        assert await used(stage) == spent(stage) == 2 * SPENT
