"""What an observer is told of completions and jobs, and that it is told once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from persistence.limit_records import Limited
from persistence.queue_records import Job
from persistence.records import LedgerEntry, Outcome
from providers.types import ResponseFormat
from resolvers.errors import CompletionFailedError, ConflictError, RateLimitedError
from resolvers.observed_jobs import observed_batch
from resolvers.observing import CompletionEnd, CompletionOutcome, JobOutcome, Unobserved
from resolvers.types import CompletionFailed, CompletionFinished, Target
from tests.persistence.limits import limit_rule

from .clockwork import idle
from .scene import ALPHA, BETA, Hold, Scene, texts, unavailable


class Listener(Unobserved):
    def __init__(self) -> None:
        self.attempts: list[tuple[str, str, Outcome]] = []
        self.switches: list[tuple[Target, Target, str]] = []
        self.ends: list[CompletionEnd] = []
        self.jobs: list[tuple[Any, ...]] = []

    def attempted(self, entry: LedgerEntry, operation: str) -> None:
        self.attempts.append((operation, entry.provider, entry.outcome))

    def switched(self, origin: Target, target: Target, error_code: str) -> None:
        self.switches.append((origin, target, error_code))

    def completed(self, end: CompletionEnd) -> None:
        self.ends.append(end)

    def took(self, kind: str, age_s: float) -> None:
        self.jobs.append(("took", kind, round(age_s)))

    def worked(self, kind: str, outcome: JobOutcome, seconds: float, age_s: float) -> None:
        self.jobs.append((kind, outcome, round(age_s)))

    @property
    def end(self) -> CompletionEnd:
        (only,) = self.ends
        return only


@pytest.fixture
def listener(scene: Scene) -> Listener:
    listener = Listener()
    scene.services = replace(scene.services, observer=listener)
    return listener


def limited(scene: Scene, **limits: Any) -> None:
    none = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "usd_per_day", "usd_per_month", "streams"))
    rule = limit_rule(**none | limits)
    scene.limits.rules[rule.organisation, rule.limited, rule.name] = rule
    scene.services.limits.cache.outdate(rule.organisation)


async def test_an_answer_and_the_time_it_took(scene: Scene, listener: Listener) -> None:
    """The waits between tries are not ours; here nothing else takes any time."""
    scene.jitter[0] = 0.5
    scene.alpha.will([unavailable()], [unavailable()], texts("he", "llo"))
    completion = await scene.complete()
    end = listener.end
    assert (end.operation, end.id, end.target) == ("chat", completion.id, ALPHA)
    assert (end.outcome, end.error_code, end.limit) == (CompletionOutcome.SUCCEEDED, None, None)
    assert (end.seconds, end.upstream_s) == (0.75, 0.75)
    assert [entry.attempt for entry in end.entries] == [1, 2, 3]
    assert listener.attempts == [
        ("chat", "alpha", Outcome.FAILED),
        ("chat", "alpha", Outcome.FAILED),
        ("chat", "alpha", Outcome.SUCCEEDED),
    ]
    assert getattr(end.answer, "content", None) == "hello"


async def test_a_fallback_and_who_answered(scene: Scene, listener: Listener) -> None:
    scene.alpha.will(*[[unavailable()]] * 3)
    scene.beta.will(texts("yes"))
    await scene.complete(fallbacks=(BETA,))
    assert listener.switches == [(ALPHA, BETA, "PROVIDER_UNAVAILABLE")]
    assert listener.end.target == BETA


async def test_a_failure(scene: Scene, listener: Listener) -> None:
    scene.alpha.will(*[[unavailable()]] * 3)
    with pytest.raises(CompletionFailedError):
        await scene.complete()
    assert (listener.end.outcome, listener.end.error_code) == (CompletionOutcome.FAILED, "PROVIDER_UNAVAILABLE")


async def test_an_answer_that_is_not_as_asked(scene: Scene, listener: Listener) -> None:
    scene.alpha.will(texts("no JSON"))
    with pytest.raises(CompletionFailedError):
        await scene.complete(response_format=ResponseFormat())
    assert (listener.end.outcome, listener.end.error_code) == (CompletionOutcome.FAILED, "PROVIDER_BAD_RESPONSE")


async def test_a_defect_of_ours(scene: Scene, listener: Listener) -> None:
    scene.alpha.will([RuntimeError("ours")])
    with pytest.raises(RuntimeError):
        await scene.complete()
    assert (listener.end.outcome, listener.end.error_code) == (CompletionOutcome.FAILED, "INTERNAL")


async def test_what_a_limit_refuses(scene: Scene, listener: Listener) -> None:
    limited(scene, requests_per_minute=0)
    with pytest.raises(RateLimitedError):
        await scene.complete()
    end = listener.end
    assert (end.outcome, end.error_code, end.entries) == (CompletionOutcome.REFUSED, "RATE_LIMITED", [])
    assert end.limit is not None
    assert (end.limit.limited, end.limit.measure) == ("organisation", "requests_per_minute")


async def test_what_a_limit_refuses_after_an_attempt(scene: Scene, listener: Listener) -> None:
    limited(scene, limited=Limited.MODEL, name="beta/b-1", requests_per_minute=0)
    scene.alpha.will(*[[unavailable()]] * 3)
    with pytest.raises(CompletionFailedError):
        await scene.complete(fallbacks=(BETA,))
    assert listener.end.outcome is CompletionOutcome.FAILED
    assert listener.end.limit is not None
    assert listener.end.limit.limited == "model"


async def test_a_stream_that_a_limit_refuses(scene: Scene, listener: Listener) -> None:
    limited(scene, streams=0)
    (failed,) = [each for each in await scene.events() if isinstance(each, CompletionFailed)]
    assert failed.code == "RATE_LIMITED"
    assert (listener.end.outcome, listener.end.streamed) == (CompletionOutcome.REFUSED, True)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_key_that_is_taken(scene: Scene, listener: Listener, streamed: bool) -> None:
    hold = Hold()
    scene.alpha.will([hold, *texts("first")])
    first = scene.started(idempotency_key="k")
    await hold.reached.wait()
    with pytest.raises(ConflictError):
        await (scene.events if streamed else scene.complete)(idempotency_key="k")
    assert (listener.end.outcome, listener.end.error_code) == (CompletionOutcome.REFUSED, "CONFLICT")
    hold.free.set()
    await first
    assert [end.outcome for end in listener.ends[1:]] == [CompletionOutcome.SUCCEEDED]


async def test_a_caller_who_leaves(scene: Scene, listener: Listener) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    call = scene.started()
    await hold.reached.wait()
    call.cancel()
    await idle()
    assert (listener.end.outcome, listener.end.error_code) == (CompletionOutcome.CANCELLED, None)


async def test_a_reader_who_leaves(scene: Scene, listener: Listener) -> None:
    hold = Hold()
    scene.alpha.will([*texts("be"), hold])
    async with aclosing(scene.stream()) as events:
        await anext(events)
        await hold.reached.wait()
    assert listener.end.outcome is CompletionOutcome.CANCELLED
    assert getattr(listener.end.answer, "content", None) == "be"


@pytest.mark.parametrize("streamed", [False, True])
async def test_one_that_is_cancelled(scene: Scene, listener: Listener, streamed: bool) -> None:
    hold = Hold()
    scene.alpha.will([*texts("be"), hold])
    if streamed:
        async with aclosing(scene.stream()) as events:
            started = await anext(events)
            await hold.reached.wait()
            await scene.cancel(id=started.completion_id)
            assert isinstance([event async for event in events][-1], CompletionFinished)
    else:
        call = scene.started(idempotency_key="k")
        await hold.reached.wait()
        await scene.cancel(idempotency_key="k")
        await call
    assert (listener.end.outcome, listener.end.error_code) == (CompletionOutcome.CANCELLED, None)


async def test_a_stream(scene: Scene, listener: Listener) -> None:
    scene.alpha.will(texts("he", "llo"))
    await scene.events()
    end = listener.end
    assert (end.outcome, end.streamed, end.first_token_s) == (CompletionOutcome.SUCCEEDED, True, 0.0)


class Given:
    """A delivery that notes how it was ended."""

    def __init__(self, kind: str, age_s: float) -> None:
        self.job = Job(f"{kind}-{age_s}", kind, "{}", datetime.now(UTC) - timedelta(seconds=age_s))
        self.ends: list[str] = []

    async def done(self) -> None:
        self.ends.append("done")

    async def failed(self, reason: str) -> None:
        self.ends.append(reason)

    async def refused(self, reason: str) -> None:
        self.ends.append(reason)

    async def put_back(self) -> None:
        self.ends.append("put back")


async def test_jobs_and_what_becomes_of_them() -> None:
    listener, given = Listener(), [Given("ledger", 5), Given("batch", 60), Given("ledger", 7), Given("ledger", 1)]
    batch: Sequence[Any] = observed_batch(given, listener)
    await batch[0].done()
    await batch[1].failed("why")
    await batch[2].refused("never")
    await batch[3].put_back()
    assert [each.ends for each in given] == [["done"], ["why"], ["never"], ["put back"]]
    assert listener.jobs == [
        ("took", "batch", 60),
        ("ledger", JobOutcome.DONE, 5),
        ("batch", JobOutcome.FAILED, 60),
        ("ledger", JobOutcome.PARKED, 7),
        ("ledger", JobOutcome.PUT_BACK, 1),
    ]
