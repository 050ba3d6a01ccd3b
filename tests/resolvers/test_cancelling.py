"""Completions that are stopped: by a client that leaves, by `cancel`. And keys that keep one from being asked twice."""

from __future__ import annotations

import asyncio

import pytest

from persistence.records import CostSource, Outcome
from providers.errors import ProviderRateLimitedError, UnsupportedFeatureError
from providers.types import FinishReason
from resolvers.errors import CompletionFailedError, ConflictError, NotFoundError, ServiceUnavailableError

from .clockwork import idle
from .scene import BETA, GLOBEX, Hold, Scene, Unconnected, texts, unavailable


async def running(scene: Scene) -> str:
    """The id of the one completion whose attempt is in flight."""
    ((completion_id, _),) = scene.inflight.noted
    return completion_id


async def left(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_leaves_ends_the_call_and_it_is_booked(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = scene.started(fallbacks=(BETA,))
    await hold.reached.wait()
    await left(task)
    await idle()
    assert scene.alpha.endings == ["CancelledError"]
    assert scene.beta.calls == []
    assert scene.booked("outcome", "error_code", "estimated", "input_tokens") == [(Outcome.CANCELLED, None, True, 2)]


async def test_a_client_that_leaves_between_two_attempts_starts_no_other(scene: Scene) -> None:
    scene.alpha.will([ProviderRateLimitedError("wait", provider="alpha", status=429, retry_after=5)])
    task = scene.started(fallbacks=(BETA,))
    await asyncio.sleep(1)
    await left(task)
    await asyncio.sleep(10)
    assert scene.booked("attempt", "outcome") == [(1, Outcome.FAILED)]
    assert scene.beta.calls == []


async def test_a_client_that_leaves_during_the_commit_leaves_the_entry_to_it(scene: Scene) -> None:
    scene.alpha.will(texts("hi"))
    scene.store.gate.clear()
    task = scene.started()
    await scene.store.appending.wait()
    await left(task)
    scene.store.gate.set()
    await idle()
    assert scene.booked("outcome") == [(Outcome.SUCCEEDED,)]


async def test_a_client_that_leaves_as_the_deadline_passes_is_still_a_client_that_left(scene: Scene) -> None:
    scene.alpha.will([Hold()])
    task = scene.started(timeout_ms=1000)
    await idle()
    asyncio.get_running_loop().call_at(1.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle()
    assert len(scene.store.entries) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_ends_before_there_is_a_connection_costs_nothing(scene: Scene, streamed: bool) -> None:
    holds = Unconnected(), Unconnected()
    holds[1].free.set()  # its connection comes, and then it says nothing
    for hold in holds:
        scene.alpha.will([hold, Hold()])
        task = asyncio.create_task(scene.events() if streamed else scene.complete())
        await hold.reached.wait()
        await idle()
        await scene.cancel(id=await running(scene))
        await task
    assert scene.booked("cost_source", "input_tokens", "estimated") == [
        (CostSource.NOT_BILLED, 0, False),
        (CostSource.UNKNOWN, 2, True),
    ]


@pytest.mark.parametrize("by", ["id", "idempotency_key"])
async def test_cancelled_by_either_name_it_answers_that_it_was(scene: Scene, by: str) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = scene.started(idempotency_key="k1", fallbacks=(BETA,))
    await hold.reached.wait()
    completion_id = await running(scene)
    ref = {"id": completion_id} if by == "id" else {"idempotency_key": "k1"}
    with pytest.raises(NotFoundError):
        await scene.cancel(GLOBEX, **ref)
    assert not task.done()
    assert await scene.cancel(**ref) == (completion_id, True)
    answer = await task
    assert (answer.id, answer.finish_reason, answer.content) == (completion_id, FinishReason.CANCELLED, None)
    assert [attempt.outcome for attempt in answer.attempts] == [Outcome.CANCELLED]
    assert answer.usage.estimated
    assert scene.alpha.endings == ["CancelledError"]
    assert scene.beta.calls == []
    assert scene.booked("outcome", "error_code") == [(Outcome.CANCELLED, None)]
    assert await scene.cancel(**ref) == (completion_id, False), "it has ended"
    with pytest.raises(NotFoundError):
        await scene.cancel(GLOBEX, **ref)


async def test_interrupted_by_the_process_s_end_it_is_booked_and_told(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = scene.started(fallbacks=(BETA,))
    await hold.reached.wait()
    scene.services.running.interrupt_all()
    with pytest.raises(CompletionFailedError, match="shutting down") as caught:
        await task
    assert (caught.value.code, caught.value.retryable) == ("SERVICE_UNAVAILABLE", True)
    assert [attempt.outcome for attempt in caught.value.attempts] == [Outcome.CANCELLED]
    assert scene.beta.calls == []
    assert scene.booked("outcome", "error_code") == [(Outcome.CANCELLED, None)]


async def test_cancelled_during_backoff(scene: Scene) -> None:
    scene.alpha.will([ProviderRateLimitedError("wait", provider="alpha", status=429, retry_after=5)])
    task = scene.started(idempotency_key="k1")
    await asyncio.sleep(1)
    _, cancelled = await scene.cancel(idempotency_key="k1")
    assert cancelled
    answer = await task
    assert (answer.finish_reason, answer.latency_ms) == (FinishReason.CANCELLED, 1000)
    assert [attempt.error_code for attempt in answer.attempts] == ["PROVIDER_RATE_LIMITED"]


async def test_cancelled_twice_is_cancelled_once(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = scene.started(idempotency_key="k1")
    await hold.reached.wait()
    first, second = await asyncio.gather(
        scene.cancel(idempotency_key="k1"), scene.cancel(idempotency_key="k1"), return_exceptions=False
    )
    assert first == second == ((await task).id, True)
    assert len(scene.store.entries) == 1


async def test_while_it_is_being_committed_it_has_ended_but_is_known(scene: Scene) -> None:
    scene.alpha.will(texts("hi"))
    scene.store.gate.clear()
    task = scene.started(idempotency_key="k1")
    await scene.store.appending.wait()
    completion_id = await running(scene)
    assert await scene.cancel(idempotency_key="k1") == (completion_id, False)
    assert await scene.cancel(id=completion_id) == (completion_id, False)
    scene.store.gate.set()
    assert (await task).content == "hi"


async def test_once_its_time_is_up_it_cannot_be_cancelled(scene: Scene) -> None:
    scene.alpha.will([Hold()])
    scene.store.gate.clear()
    task = scene.started(timeout_ms=1000)
    await scene.store.appending.wait()
    completion_id = await running(scene)
    assert await scene.cancel(id=completion_id) == (completion_id, False)
    scene.store.gate.set()
    with pytest.raises(CompletionFailedError) as caught:
        await task
    assert caught.value.code == "DEADLINE_EXCEEDED"


async def test_what_never_was_is_not_found(scene: Scene) -> None:
    for ref in ({"id": "cmp_0"}, {"idempotency_key": "k1"}, {}):
        with pytest.raises(NotFoundError):
            await scene.cancel(**ref)


async def test_a_ledger_that_cannot_be_read_cannot_tell(scene: Scene) -> None:
    scene.store.down = True
    with pytest.raises(ServiceUnavailableError):
        await scene.cancel(id="cmp_0")
    with pytest.raises(ServiceUnavailableError):
        await scene.complete(idempotency_key="k1")
    scene.store.down = False
    assert scene.alpha.calls == []


async def test_a_key_is_refused_while_its_completion_runs_and_after(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold, *texts("hi")])
    task = scene.started(idempotency_key="k1")
    await hold.reached.wait()
    with pytest.raises(ConflictError, match="running"):
        await scene.complete(idempotency_key="k1")
    with pytest.raises(ConflictError, match="running"):
        await scene.events(idempotency_key="k1")
    hold.free.set()
    completion_id = (await task).id
    for again in (scene.complete, scene.events):
        with pytest.raises(ConflictError, match=completion_id):
            await again(idempotency_key="k1")
    assert len(scene.alpha.calls) == 1


async def test_another_organisation_may_use_the_same_key(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold, *texts("one")], texts("two"), texts("three"))
    task = scene.started(idempotency_key="k1")
    await hold.reached.wait()
    assert (await scene.complete(GLOBEX, idempotency_key="k1")).content == "two"
    hold.free.set()
    await task
    assert (await scene.complete(idempotency_key="k2")).content == "three"


async def test_of_two_at_the_same_time_one_goes_on(scene: Scene) -> None:
    scene.alpha.will(texts("hi"), texts("never"))
    results = await asyncio.gather(*(scene.complete(idempotency_key="k1") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 4
    assert len(scene.alpha.calls) == 1


async def test_a_key_stays_taken_until_the_ledger_knows_of_the_client_that_left(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = scene.started(idempotency_key="k1")
    await hold.reached.wait()
    scene.store.gate.clear()
    await left(task)
    with pytest.raises(ConflictError, match="ended"):
        await scene.complete(idempotency_key="k1")
    scene.store.gate.set()
    await idle()
    with pytest.raises(ConflictError, match="ended"):
        await scene.complete(idempotency_key="k1")


async def test_a_key_is_free_again_where_nothing_was_sent(scene: Scene) -> None:
    scene.alpha.will([UnsupportedFeatureError("seed", provider="alpha", model="a-1")], texts("hi"))
    with pytest.raises(CompletionFailedError):
        await scene.complete(idempotency_key="k1")
    scene.inflight.full = True
    with pytest.raises(ServiceUnavailableError):
        await scene.complete(idempotency_key="k1")
    scene.inflight.full = False
    assert (await scene.complete(idempotency_key="k1")).content == "hi"


async def test_a_failed_completion_keeps_its_key(scene: Scene) -> None:
    scene.alpha.will([unavailable(retryable=False)])
    with pytest.raises(CompletionFailedError):
        await scene.complete(idempotency_key="k1")
    with pytest.raises(ConflictError, match="ended"):
        await scene.complete(idempotency_key="k1")


async def test_a_key_stays_used_while_its_entry_waits_for_the_ledger_to_come_back(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold, *texts("hi")])
    task = scene.started(idempotency_key="k")
    await hold.reached.wait()
    completion_id = await running(scene)

    async def is_still_used() -> None:
        with pytest.raises(ConflictError, match=completion_id):
            await scene.complete(idempotency_key="k")
        assert await scene.cancel(idempotency_key="k") == (completion_id, False)

    scene.store.down = True
    hold.free.set()
    await task
    scene.store.down = False
    await is_still_used()  # owed: not in the store yet
    scene.store.appending.clear()
    scene.store.gate.clear()
    await scene.store.appending.wait()
    await is_still_used()  # within the commit that makes up for it
    scene.store.gate.set()
    await idle()
    await is_still_used()
    assert len(scene.alpha.calls) == 1
