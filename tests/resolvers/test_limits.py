"""Limits: what calls may come to is reserved before them, and what they came to is settled after them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from persistence.limit_records import Limited, LimitRule
from persistence.price_records import Discount, Override
from persistence.records import CostSource
from providers.types import Finished, FinishReason, TextDelta, Usage
from resolvers.allowances import SOON_MS, Most, divided, needs
from resolvers.audit import AuditLog
from resolvers.corrections import CorrectCommand, correct
from resolvers.errors import (
    BadUserInputError,
    BudgetExceededError,
    CompletionFailedError,
    RateLimitedError,
    ServiceUnavailableError,
)
from resolvers.limit_rules import NewLimits
from resolvers.types import CompletionFailed, TextProduced
from tests.persistence.audit import MemoryAuditLog
from tests.persistence.entries import entry
from tests.persistence.limits import limit_rule
from tests.persistence.prices import price_rule

from .clockwork import idle
from .scene import ACME, BETA, GLOBEX, Hold, Scene, only, texts, unavailable

LONG_AGO = price_rule().since
DOLLARS = Override(Decimal(1_000_000), Decimal(10_000_000))  # a dollar a token read, ten a token written
MOST = 85 + 10 * 4
"""Dollars that "hello" may come to, with 4 tokens at most of an answer; it comes to 27."""


def limit(scene: Scene, **limits: Any) -> None:
    """One rule, in the place of the one before. Without its name it is the organisation's."""
    none = dict.fromkeys(
        ("requests_per_minute", "tokens_per_minute", "usd_per_day", "usd_per_month", "streams", "alert_at")
    )
    rule: LimitRule = limit_rule(**none | limits)
    scene.limits.rules[rule.organisation, rule.limited, rule.name] = rule
    scene.services.limits.cache.outdate(rule.organisation)


def priced(scene: Scene, *models: tuple[str, str]) -> None:
    scene.rules.rules = [
        price_rule(provider=provider, model=model, terms=DOLLARS, since=LONG_AGO)
        for provider, model in models or (("alpha", "a-1"), ("beta", "b-1"))
    ]


async def refusal(scene: Scene, kind: type[Any], **changes: Any) -> Any:
    with pytest.raises(kind) as caught:
        await scene.complete(**changes)
    return caught.value


async def test_requests_a_minute(scene: Scene) -> None:
    limit(scene, requests_per_minute=2)
    scene.alpha.will(*[texts("hi")] * 4)
    for _ in range(2):
        await scene.complete()
    error = await refusal(scene, RateLimitedError)
    assert error.message == "the organisation: at most 2 requests a minute, of which 2 are used"
    assert (error.code, error.retryable) == ("RATE_LIMITED", True)
    assert 59_000 <= error.retry_after_ms <= 61_000
    detail = error.detail
    assert (detail.limited, detail.name, detail.measure) == ("organisation", None, "requests_per_minute")
    assert (detail.limit, detail.used, detail.asked) == ("2", "2", "1")
    assert len(scene.alpha.calls) == 2, "who is refused calls no vendor"
    scene.beta.will(texts("hi"))
    await scene.complete(principal=GLOBEX, target=BETA)
    await asyncio.sleep(error.retry_after_ms / 1000)
    await scene.complete()


async def test_tokens_a_minute_are_reserved_and_what_was_not_needed_is_given_back(scene: Scene) -> None:
    """A call may take 89 tokens and takes 9."""
    limit(scene, tokens_per_minute=100)
    scene.alpha.will(*[texts("hi")] * 9)
    held = Hold()
    scene.beta.will([held, *texts("hi")])
    waiting = scene.started(target=BETA, max_tokens=4)
    await held.reached.wait()
    error = await refusal(scene, RateLimitedError, max_tokens=4)
    assert (error.detail.used, error.detail.asked, error.detail.limit) == ("89", "89", "100")
    held.free.set()
    await waiting
    await scene.complete(max_tokens=4)
    error = await refusal(scene, RateLimitedError, max_tokens=4)
    assert error.detail.used == "18"


async def test_what_never_fits_is_not_worth_another_try(scene: Scene) -> None:
    limit(scene, tokens_per_minute=88)
    error = await refusal(scene, RateLimitedError, max_tokens=4)
    assert (error.retryable, error.retry_after_ms) == (False, None)
    assert error.message.endswith("this call alone could come to 89, so it never fits")


async def test_a_budget_is_never_exceeded_and_nobody_is_refused_while_there_is_room(scene: Scene) -> None:
    """Of 40 at once 4 find room for what they may come to; what they leave is there for the next."""
    priced(scene)
    limit(scene, usd_per_day=Decimal(4 * MOST))
    scene.alpha.will(*[texts("hi")] * 40)

    async def call() -> bool:
        try:
            await scene.complete(max_tokens=4)
        except BudgetExceededError:
            return False
        return True

    assert sum(await asyncio.gather(*(call() for _ in range(40)))) == 4
    more = 0
    while await call():
        more += 1
    spent = 27 * (4 + more)
    assert spent <= 4 * MOST < spent + MOST
    assert sum(entry.cost or 0 for entry in scene.store.entries) == spent


async def test_what_is_said_of_a_budget(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_month=Decimal("150.5"))
    scene.alpha.will(*[texts("hi")] * 2)
    await scene.complete(max_tokens=4)
    error = await refusal(scene, BudgetExceededError, max_tokens=4)
    assert error.code == "BUDGET_EXCEEDED"
    assert error.message == (
        "the organisation: at most 150.5 USD a month (UTC), of which 27 are spent or reserved, and this call may cost "
        f"{MOST}"
    )
    now = datetime.now(UTC)
    ends = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    assert abs(min(2**31 - 1, (ends - now).total_seconds() * 1000) - error.retry_after_ms) < 60_000


async def test_where_what_runs_holds_the_room_it_is_worth_another_try_soon(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_day=Decimal(MOST + 27))
    hold = Hold()
    scene.alpha.will([hold, *texts("hi")], texts("hi"))
    running = scene.started(max_tokens=4)
    await hold.reached.wait()
    assert (await refusal(scene, BudgetExceededError, max_tokens=4)).retry_after_ms == SOON_MS
    hold.free.set()
    await running
    await scene.complete(max_tokens=4)


async def test_while_they_are_counted_apart_each_process_has_its_share(scene: Scene) -> None:
    """Of one that is none nobody has any; of others each has at least one."""
    rule = limit_rule(requests_per_minute=9, tokens_per_minute=0, usd_per_day=None, usd_per_month=None, streams=1)
    asked = needs([rule], Most(1, 1, Decimal(0), "cmp_1"), datetime.now(UTC))
    shares = {need.measure.value: need.asked.limit for need in divided(asked, 2)}
    assert shares == {"requests_per_minute": 4, "tokens_per_minute": 0, "streams": 1}


async def test_a_budget_begins_with_what_the_ledger_says_was_spent(scene: Scene) -> None:
    priced(scene)
    now = datetime.now(UTC).replace(microsecond=0)
    spent = {"organisation": "acme", "cost": Decimal(100), "cost_source": CostSource.ORGANISATION}
    await scene.store.append(
        [
            entry(time=now, completion_id="cmp_1", provider="alpha", model="a-1", **spent),
            entry(time=now - timedelta(days=70), completion_id="cmp_2", provider="alpha", model="a-1", **spent),
        ]
    )
    limit(scene, usd_per_month=Decimal(100 + MOST + 26))
    scene.alpha.will(*[texts("hi")] * 3)
    await scene.complete(max_tokens=4)
    error = await refusal(scene, BudgetExceededError, max_tokens=4)
    assert error.detail.used == "127"


async def test_what_has_no_bound_is_refused_under_a_budget(scene: Scene) -> None:
    limit(scene, usd_per_day=Decimal(1000))
    scene.rules.rules = []
    error = await refusal(scene, BadUserInputError, max_tokens=4)
    assert error.message.startswith("alpha/a-1 has no known price, and a USD budget applies")
    priced(scene)
    scene.services.prices.cache.outdate("acme")
    error = await refusal(scene, BadUserInputError)
    assert error.path == ("input", "maxTokens")
    options = {"alpha": {"n": 9}}
    error = await refusal(scene, BadUserInputError, max_tokens=4, provider_options=options)
    assert error.path == ("input", "providerOptions")
    assert not scene.alpha.calls


async def test_what_may_have_cost_anything_keeps_its_reservation(scene: Scene) -> None:
    """Billed at other than the published prices: all that is known is that it was no more than was reserved."""
    scene.rules.rules = [price_rule(provider="alpha", model="a-1", terms=Discount(Decimal(1)), since=LONG_AGO)]
    limit(scene, usd_per_day=Decimal(1000))
    await refusal(scene, BadUserInputError, max_tokens=4)
    priced(scene)
    scene.services.prices.cache.outdate("acme")
    unknown = (Finished(FinishReason.STOP, Usage(7, 2, off_table=True)),)
    scene.alpha.will([unknown], texts("hi"))
    await scene.complete(max_tokens=4)
    assert scene.booked("cost") == [(None,)]
    limit(scene, usd_per_day=Decimal(2 * MOST - 1))
    error = await refusal(scene, BudgetExceededError, max_tokens=4)
    assert error.detail.used == str(MOST)


async def test_streams_at_once(scene: Scene) -> None:
    limit(scene, streams=1)
    held = Hold()
    scene.alpha.will([(TextDelta("one"),), held, *texts("two")], texts("hi"), texts("plain"))
    async with aclosing(scene.stream()) as first:
        while not isinstance(await anext(first), TextProduced):
            pass
        failed = only(await scene.events(), CompletionFailed)
        assert (failed.code, failed.retryable, failed.retry_after_ms) == ("RATE_LIMITED", True, 1000)
        assert failed.message == "the organisation: at most 1 streams at once, and 1 are running"
    events = await scene.events()
    assert not [event for event in events if isinstance(event, CompletionFailed)], "a reader that left holds no place"
    await scene.complete()


async def test_another_try_is_no_other_request(scene: Scene) -> None:
    limit(scene, requests_per_minute=1, tokens_per_minute=100, streams=1)
    scene.alpha.will([unavailable()], texts("hi"))
    events = await scene.events(max_tokens=4)
    assert not [event for event in events if isinstance(event, CompletionFailed)]
    assert len(scene.alpha.calls) == 2


async def test_a_fallback_counts_where_it_goes(scene: Scene) -> None:
    limit(scene, limited=Limited.MODEL, name="beta/*", requests_per_minute=1)
    limit(scene, requests_per_minute=2)
    gone = [unavailable()]
    scene.alpha.will(gone, gone, gone, gone, gone, gone)
    scene.beta.will(texts("hi"))
    assert (await scene.complete(fallbacks=(BETA,))).provider == "beta"
    error = await refusal(scene, CompletionFailedError, fallbacks=(BETA,))
    assert (error.code, len(error.attempts)) == ("RATE_LIMITED", 2), "what was tried before is told"
    assert "calls to beta/*" in error.message


async def test_a_keys_limit_is_that_keys_alone(scene: Scene) -> None:
    limit(scene, limited=Limited.API_KEY, name="key_9", requests_per_minute=0)
    scene.alpha.will(texts("hi"))
    await scene.complete()
    error = await refusal(scene, RateLimitedError, principal=replace(ACME, key_id="key_9"))
    assert error.message.startswith("this API key: at most 0 requests a minute")


async def test_who_leaves_while_it_is_reserved_holds_nothing(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_day=Decimal(MOST))
    reading = Hold()
    usage = scene.store.usage

    async def slow(*asked: Any) -> Any:
        await reading.wait()
        return await usage(*asked)

    scene.store.usage = slow  # type: ignore[method-assign]
    leaving = scene.started(max_tokens=4)
    await reading.reached.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    reading.free.set()
    await idle()
    scene.alpha.will(texts("hi"))
    await scene.complete(max_tokens=4)


async def test_a_budget_that_the_ledger_can_t_begin_is_closed(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_day=Decimal(1000))
    scene.store.down = True
    await refusal(scene, ServiceUnavailableError, max_tokens=4)
    assert not scene.alpha.calls


async def test_a_correction_counts(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_day=Decimal(1000))
    scene.alpha.will(texts("hi"))
    done = await scene.complete(max_tokens=4)
    for cost, used in ((40, 40), (30, 30)):
        command = CorrectCommand(done.id, 1, "invoice 7", cost=Decimal(cost))
        counted = scene.services.limits.count
        await correct(scene.services.ledger, AuditLog(MemoryAuditLog()), ACME, command, counted)
        await idle()
        (state,) = await scene.services.limit_rules.states_for(ACME)
        assert state.used == used
    await scene.services.limits.count(replace(scene.store.entries[0], attempt=-9, time=LONG_AGO))
    await idle()
    (state,) = await scene.services.limit_rules.states_for(ACME)
    assert state.used == 30, "another day's"


async def test_a_price_that_changes_while_a_call_runs_is_the_next_ones(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_day=Decimal(MOST))
    scene.alpha.will([held := Hold(), *texts("hi")])
    running = scene.started(max_tokens=4)
    await held.reached.wait()
    dear = Override(10 * DOLLARS.input, 10 * DOLLARS.output)
    scene.rules.rules = [price_rule(provider="alpha", model="a-1", terms=dear, since=LONG_AGO)]
    scene.services.prices.cache.outdate("acme")
    held.free.set()
    assert (await running).usage.cost == 27
    (state,) = await scene.services.limit_rules.states_for(ACME)
    assert state.used == 27


async def test_a_call_is_of_the_day_that_the_ledger_has_it_in(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It began just before midnight; what is reserved after it, for another try, is of the day before."""
    priced(scene)
    limit(scene, usd_per_day=Decimal(1000))
    yesterday = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    monkeypatch.setattr("resolvers.run.new_completion_id", lambda: ("cmp_1", yesterday))
    scene.alpha.will([unavailable()], texts("hi"))
    await scene.complete(max_tokens=4)
    (state,) = await scene.services.limit_rules.states_for(ACME)
    assert state.used == 0


async def test_rules_that_can_t_be_read_hold_on(scene: Scene) -> None:
    limit(scene, requests_per_minute=1)
    scene.alpha.will(texts("hi"), texts("hi"))
    await scene.complete()
    scene.limits.down = True
    await asyncio.sleep(30)
    await refusal(scene, RateLimitedError)
    scene.limits.down = False
    scene.limits.rules.clear()
    await asyncio.sleep(30)
    await scene.complete()


async def test_a_call_that_ran_when_its_budget_was_set_counts(scene: Scene) -> None:
    """Also by a budget that others have begun meanwhile, whose look at the ledger did not see it."""
    priced(scene)
    limit(scene, limited=Limited.MODEL, name="alpha/a-1", requests_per_minute=9)
    plain, limited = Hold(), Hold()
    scene.beta.will([plain, *texts("hi")])
    scene.alpha.will([limited, *texts("hi")], texts("hi"))
    running = [scene.started(target=BETA, max_tokens=4), scene.started(max_tokens=4)]
    await asyncio.gather(plain.reached.wait(), limited.reached.wait())
    limit(scene, usd_per_day=Decimal(1000))
    await scene.complete(max_tokens=4)
    for held in (plain, limited):
        held.free.set()
    await asyncio.gather(*running)
    await idle()
    (state,) = [each for each in await scene.services.limit_rules.states_for(ACME) if each.ends_at]
    assert state.used == sum(entry.cost or 0 for entry in scene.store.entries) == 3 * 27


async def test_what_is_spent_while_a_budget_is_taken_away_counts_when_it_is_set_again(scene: Scene) -> None:
    priced(scene)
    scene.alpha.will(*[texts("hi")] * 3)
    rules = scene.services.limit_rules
    budget = NewLimits(usd_per_day=Decimal(1000))
    await rules.put(ACME, budget)
    await scene.complete(max_tokens=4)
    await rules.put(ACME, NewLimits(requests_per_minute=9))
    await scene.complete(max_tokens=4)
    await rules.put(ACME, budget)
    await scene.complete(max_tokens=4)
    (state,) = await rules.states_for(ACME)
    assert state.used == 3 * 27
    await rules.put(ACME, replace(budget, usd_per_day=Decimal(3 * 27)))
    error = await refusal(scene, BudgetExceededError, max_tokens=4)
    assert error.detail.used == "81"
