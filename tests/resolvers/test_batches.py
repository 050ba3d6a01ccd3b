"""Batches at work: every item one result, whatever becomes of workers, queue and store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from persistence.batch_records import BatchState, Counts, ItemState
from persistence.key_records import Grant
from providers.errors import ProviderInvalidRequestError, ProviderRateLimitedError
from providers.types import Message, Role
from resolvers.batches.asked import BatchAsked
from resolvers.batches.dispatching import LEAD_S, QUEUED_AT_LEAST
from resolvers.batches.sweeping import REQUEUE_S
from resolvers.batches.verdicts import MAX_FAILURES, MAX_LOST
from resolvers.batches.working import LEASE_S
from resolvers.errors import ConflictError
from tests.persistence.api_keys import api_key
from tests.persistence.limits import limit_rule

from .batch_stage import BatchStage, answering, inputs, open_batch_stage, until
from .scene import ACME, ALPHA, GLOBEX, Hold, texts, unavailable


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


def lines(stage: BatchStage, batch: Any) -> list[dict[str, Any]]:
    name = stage.now(batch).result_file
    assert name is not None
    return [orjson.loads(line) for line in stage.objects.files[batch.organisation, name].splitlines()]


async def test_every_item_is_answered_and_the_results_are_in_the_inputs_order(stage: BatchStage) -> None:
    answering(stage.alpha)
    batch = await stage.submit(25, labels={"job": "night"})
    assert batch.counts == Counts(waiting=25)
    async with stage.running():
        ended = await stage.ended(batch)
    assert (ended.state, ended.counts) == (BatchState.COMPLETED, Counts(succeeded=25))
    assert ended.ended_at is not None
    found = lines(stage, batch)
    assert [each["index"] for each in found] == list(range(25))
    assert {each["completion"]["content"] for each in found} == {"ab"}
    assert {each["completion"]["finishReason"] for each in found} == {"STOP"}
    booked = stage.scene.store.entries
    assert {entry.completion_id for entry in booked} == {each["completionId"] for each in found}
    assert [dict(entry.labels) for entry in booked] == [{"job": "night", "batch": batch.id}] * 25
    assert stage.events.told == [ended]
    assert all(len(each.body) < 200 and "hello" not in each.body for each in stage.queue.published)


async def test_a_cost_is_summed_up_and_an_unknown_one_counted(stage: BatchStage) -> None:
    stage.alpha.will([unavailable()], texts("a"), texts("b"))
    batch = await stage.submit(2)
    async with stage.running():
        ended = await stage.ended(batch)
    assert (ended.cost, ended.unpriced) == (Decimal(0), 2)


async def test_what_can_be_tried_again_is_and_a_poisonous_item_fails_alone(stage: BatchStage) -> None:
    poison = ProviderInvalidRequestError("that is no picture", provider="alpha", status=400)
    answering(stage.alpha, 1)
    stage.alpha.will([poison], texts("c"))
    batch = await stage.submit(3)
    async with stage.running(prefetch=1):
        ended = await stage.ended(batch)
    assert (ended.state, ended.counts) == (BatchState.COMPLETED, Counts(succeeded=2, failed=1))
    [failed] = [each for each in lines(stage, batch) if each["state"] == "FAILED"]
    assert failed["error"] == {"code": "PROVIDER_INVALID_REQUEST", "message": "that is no picture"}
    assert failed["completion"] is None


async def test_an_item_has_so_many_attempts(stage: BatchStage) -> None:
    stage.alpha.will(*[[unavailable()]] * 100)
    batch = await stage.submit(1)
    async with stage.running():
        ended = await stage.ended(batch)
    [item] = stage.items(batch)
    assert (ended.counts, item.failures) == (Counts(failed=1), MAX_FAILURES)
    assert item.error is not None
    assert item.error.code == "PROVIDER_UNAVAILABLE"
    completions = Counter(entry.completion_id for entry in stage.scene.store.entries)
    assert len(completions) == MAX_FAILURES, "each attempt at an item is a completion of its own"
    assert sum(completions.values()) > MAX_FAILURES, "with retries of its own"


async def test_a_vendors_limit_burns_no_attempt_and_holds_the_others(stage: BatchStage) -> None:
    limited = ProviderRateLimitedError("slow down", provider="alpha", status=429, retry_after=30)
    stage.alpha.will(*[[limited]] * 9)
    answering(stage.alpha)
    batch = await stage.submit(8)
    async with stage.running(prefetch=3):
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=8)
    assert {item.failures for item in stage.items(batch)} == {0}
    assert len(stage.alpha.calls) <= 8 + 9


async def test_our_limits_make_items_wait_and_leave_room_for_others(stage: BatchStage) -> None:
    await stage.scene.limits.put(limit_rule(requests_per_minute=10, usd_per_day=None, streams=None), audit=_noted)
    answering(stage.alpha)
    batch = await stage.submit(20)
    async with stage.running(prefetch=20):
        await until(lambda: stage.now(batch).counts.succeeded == 8)
        await asyncio.sleep(5)
        assert stage.now(batch).counts.succeeded == 8, "four fifths"
        for _ in range(2):
            await stage.scene.complete()
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=20)
    assert {item.failures for item in stage.items(batch)} == {0}


def _noted(before: Any, after: Any) -> Any:
    return None


async def test_a_worker_that_is_gone_loses_its_claims(stage: BatchStage) -> None:
    hold = Hold()
    stage.alpha.will([hold], texts("late"))
    batch = await stage.submit(1)
    async with stage.dispatcher():
        async with stage.worker(drain_s=0):
            await hold.reached.wait()
            [item] = stage.items(batch)
            assert (item.state, item.fence) == (ItemState.RUNNING, 1)
            stage.store.down = True  # it can't even give the item back
        stage.store.down = False
        assert stage.states(batch) == ["running"]
        async with stage.worker():
            ended = await stage.ended(batch)
    [item] = stage.items(batch)
    assert (ended.counts, item.fence, item.lost) == (Counts(succeeded=1), 2, 1)
    assert [entry.outcome.value for entry in stage.scene.store.entries] == ["cancelled", "succeeded"]


async def test_a_worker_that_ends_gives_back_what_it_has(stage: BatchStage) -> None:
    hold = Hold()
    stage.alpha.will([hold], texts("a"))
    batch = await stage.submit(1)
    async with stage.dispatcher():
        async with stage.worker(drain_s=1):
            await hold.reached.wait()
        assert stage.states(batch) == ["waiting"]
        async with stage.worker():
            ended = await stage.ended(batch)
    [item] = stage.items(batch)
    assert (ended.counts, item.lost, item.failures) == (Counts(succeeded=1), 0, 0)


async def test_a_claim_lasts_as_long_as_its_worker_works(stage: BatchStage) -> None:
    hold = Hold()
    stage.alpha.will([hold, *texts("a")])
    batch = await stage.submit(1)
    async with stage.running():
        await hold.reached.wait()
        await asyncio.sleep(3 * LEASE_S)
        hold.free.set()
        ended = await stage.ended(batch)
    [item] = stage.items(batch)
    assert (ended.counts, item.fence, item.lost) == (Counts(succeeded=1), 1, 0)


async def test_an_item_that_ends_each_of_its_workers_is_given_up(stage: BatchStage) -> None:
    batch = await stage.submit(1)
    stage.alpha.will(*[[Hold()]] * MAX_LOST)
    async with stage.dispatcher():
        for number in range(MAX_LOST):
            async with stage.worker(drain_s=0):
                await until(lambda number=number: len(stage.alpha.calls) > number)  # type: ignore[misc]
                stage.store.down = True
            stage.store.down = False
        ended = await stage.ended(batch)
    [item] = stage.items(batch)
    assert (ended.counts, item.lost) == (Counts(failed=1), MAX_LOST)
    assert item.error is not None
    assert "its worker ended" in item.error.message


async def test_a_ticket_is_good_for_one_claim(stage: BatchStage) -> None:
    answering(stage.alpha)
    batch = await stage.submit(5)
    async with stage.dispatcher():
        await until(lambda: len(stage.queue.published) == 5)
        stage.queue.jobs.extend([*stage.queue.published, replace(stage.queue.published[0], body="{}")])
        async with stage.worker(), stage.worker():
            await stage.ended(batch)
            await until(lambda: not stage.queue.jobs)
    assert len(stage.alpha.calls) == 5
    assert len(stage.queue.refused) == 1, "what is no ticket is parked"


async def test_a_lost_ticket_is_written_anew(stage: BatchStage) -> None:
    answering(stage.alpha)
    stage.queue.lose = True
    batch = await stage.submit(2)
    async with stage.running():
        await until(lambda: len(stage.queue.published) == 2)
        stage.queue.lose = False
        started = asyncio.get_running_loop().time()
        ended = await stage.ended(batch)
    assert asyncio.get_running_loop().time() - started >= REQUEUE_S - 1
    assert ended.counts == Counts(succeeded=2)
    assert {item.lost for item in stage.items(batch)} == {0}


async def test_while_nobody_works_tickets_do_not_pile_up(stage: BatchStage) -> None:
    batch = await stage.submit(QUEUED_AT_LEAST + 50)
    async with stage.dispatcher():
        await asyncio.sleep(20 * REQUEUE_S)
    assert len(stage.queue.jobs) == QUEUED_AT_LEAST
    assert stage.now(batch).counts == Counts(waiting=50, queued=QUEUED_AT_LEAST)


async def test_queue_and_store_may_go_and_come_back(stage: BatchStage) -> None:
    answering(stage.alpha)
    batch = await stage.submit(30, concurrency=3)
    async with stage.running():
        await until(lambda: stage.now(batch).counts.succeeded > 3)
        stage.queue.down = True
        await asyncio.sleep(5)
        stage.queue.down = False
        await until(lambda: stage.now(batch).counts.succeeded > 10)
        stage.store.down = True
        await asyncio.sleep(5)
        stage.store.down = False
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=30)
    assert len(stage.scene.store.entries) == len(stage.alpha.calls)


async def test_one_dispatcher_leads_and_another_takes_over(stage: BatchStage) -> None:
    answering(stage.alpha)
    async with stage.worker(), stage.dispatcher():
        async with stage.dispatcher():
            first = await stage.submit(4)
            await stage.ended(first)
        [(holder, _)] = stage.store.leaders.values()
        second = await stage.submit(4)
        await stage.ended(second)
    stage.store.leaders["batches"] = "one that was killed", stage.batches.now() + timedelta(seconds=LEAD_S)
    async with stage.running():
        third = await stage.submit(4)
        await stage.ended(third)
    assert len(stage.queue.published) == len(stage.alpha.calls) == 12
    assert holder


async def test_a_large_batch_holds_up_nobody_elses(stage: BatchStage) -> None:
    answering(stage.alpha, 2_000)
    large = await stage.submit(1_000)
    async with stage.running(prefetch=5):
        await until(lambda: stage.now(large).counts.succeeded > 50)
        before = len(stage.queue.published)
        small = await stage.submit(10, GLOBEX)
        await stage.ended(small)
        await stage.ended(large)
    since = [orjson.loads(job.body)["batch"] for job in stage.queue.published[before:]]
    assert since[:20].count(small.id) == 10, "at worst in turns"


async def test_of_one_organisation_the_higher_priority_goes_first(stage: BatchStage) -> None:
    answering(stage.alpha, 2_000)
    low = await stage.submit(600, priority=1)
    high = await stage.submit(300, priority=9)
    async with stage.running(prefetch=5):
        await stage.ended(high)
        await stage.ended(low)
    queued = [orjson.loads(job.body)["batch"] for job in stage.queue.published]
    assert queued == [high.id] * 300 + [low.id] * 600


async def test_no_more_run_at_once_than_is_asked_for(stage: BatchStage) -> None:
    holds = [Hold() for _ in range(6)]
    stage.alpha.will(*[[hold, *texts("a")] for hold in holds])
    batch = await stage.submit(6, concurrency=2)
    async with stage.running():
        for hold in holds:
            await asyncio.sleep(5)
            assert len([call for call in stage.alpha.calls if call.ended is None]) <= 2
            hold.free.set()
        await stage.ended(batch)


async def test_what_runs_of_a_cancelled_batch_is_stopped(stage: BatchStage) -> None:
    hold = Hold()
    answering(stage.alpha, 3)
    stage.alpha.will([hold])
    batch = await stage.submit(20)
    async with stage.running(prefetch=1):
        await hold.reached.wait()
        cancelling = await stage.batches.cancel(ACME, batch.id)
        assert cancelling.state is BatchState.CANCELLING
        ended = await stage.ended(batch)
        await until(lambda: stage.alpha.calls[-1].ended is not None)
    assert (ended.state, ended.counts) == (BatchState.CANCELLED, Counts(succeeded=3, cancelled=17))
    assert await stage.batches.cancel(ACME, batch.id) == ended
    assert stage.scene.store.entries[-1].outcome.value == "cancelled"


async def test_what_failed_is_tried_anew_and_what_succeeded_stays(stage: BatchStage) -> None:
    poison = ProviderInvalidRequestError("no", provider="alpha", status=400)
    stage.alpha.will(texts("a"), [poison], texts("c"))
    batch = await stage.submit(3)
    async with stage.running(prefetch=1):
        with pytest.raises(ConflictError, match="not ended"):
            await stage.batches.retry(ACME, batch.id, only_failed=True)
        await stage.ended(batch)
        stage.alpha.will(texts("b"))
        again = await stage.batches.retry(replace(ACME, subject="somebody"), batch.id, only_failed=True)
        assert (again.run, again.submitter.subject) == (2, "somebody")
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=3)
    assert [each["completion"]["content"] for each in lines(stage, batch)] == ["a", "b", "c"]
    assert [each.run for each in stage.events.told] == [1, 2]
    assert stage.scene.store.entries[-1].principal == "somebody"


async def test_what_was_cancelled_is_tried_anew_where_that_is_asked(stage: BatchStage) -> None:
    batch = await stage.submit(4)
    async with stage.running(prefetch=1), stage.dispatcher():
        stage.alpha.will([Hold()])
        await until(lambda: bool(stage.alpha.calls))
        await stage.batches.cancel(ACME, batch.id)
        await stage.ended(batch)
        answering(stage.alpha)
        await stage.batches.retry(ACME, batch.id, only_failed=False)
        ended = await stage.ended(batch)
    assert (ended.state, ended.counts) == (BatchState.COMPLETED, Counts(succeeded=4))


async def test_the_deadline_ends_what_has_not_begun(stage: BatchStage) -> None:
    hold = Hold()
    stage.alpha.will(texts("a"), [hold])
    deadline = stage.batches.now() + timedelta(seconds=60)
    batch = await stage.submit(5, deadline=deadline, concurrency=1)
    async with stage.running(prefetch=1):
        ended = await stage.ended(batch)
    assert (ended.state, ended.counts) == (BatchState.COMPLETED, Counts(succeeded=1, failed=4))
    assert ended.ended_at is not None
    assert ended.ended_at < deadline + timedelta(seconds=15)
    assert {each["error"]["code"] for each in lines(stage, batch)[1:]} == {"DEADLINE_EXCEEDED"}


class Slow(Hold):
    async def wait(self) -> None:
        await asyncio.sleep(6)


async def test_a_revoked_key_stops_its_items_and_a_narrower_one_what_it_may_not(stage: BatchStage) -> None:
    stage.alpha.will(*[[Slow(), *texts("a")] for _ in range(10)])
    grant = Grant(roles=("caller",))
    key = api_key(id="key_1", organisation="acme", grant=grant)
    stage.keys.keys["acme", "key_1"] = key
    mine = replace(ACME, key_id="key_1")
    batch = await stage.submit(6, mine, concurrency=1)
    async with stage.running(prefetch=1):
        await until(lambda: stage.now(batch).counts.succeeded > 1)
        stage.keys.keys["acme", "key_1"] = replace(key, grant=replace(grant, models=("beta/*",)))
        ended = await stage.ended(batch)
        assert "may not use the model" in (lines(stage, batch)[-1]["error"]["message"])
        stage.keys.keys["acme", "key_1"] = replace(key, revoked_at=stage.batches.now())
        await asyncio.sleep(10)
        await stage.batches.retry(mine, batch.id, only_failed=True)
        ended = await stage.ended(batch)
    assert ended.counts.failed > 0
    assert lines(stage, batch)[-1]["error"]["code"] == "FORBIDDEN"
    assert "revoked" in lines(stage, batch)[-1]["error"]["message"]


async def test_large_texts_are_in_files(stage: BatchStage) -> None:
    wide = "w" * 200_000
    stage.alpha.will(texts(wide))
    asked = inputs(1, messages=(Message(Role.USER, wide),))
    batch = await stage.batches.submit(ACME, BatchAsked(), asked)
    async with stage.running():
        await stage.ended(batch)
    [item] = stage.items(batch)
    assert (item.input.text, item.result and item.result.text) == (None, None)
    assert lines(stage, batch)[0]["completion"]["content"] == wide
    assert stage.alpha.calls[0].request.messages[0].content == wide
    assert stage.alpha.calls[0].request.model == ALPHA.model
