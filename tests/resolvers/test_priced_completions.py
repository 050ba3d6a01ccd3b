"""Completions booked by the organisation's own prices, however they end; without a cost while these can't be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from persistence.price_records import Discount, Override
from persistence.records import CostSource
from providers.errors import ProviderTimeoutError
from providers.prices import PRICE_VERSION
from providers.types import Credentials, Finished, FinishReason, TextDelta, Usage
from resolvers.errors import CompletionFailedError, ServiceUnavailableError
from resolvers.health import Health
from resolvers.key_pool import KeyPool
from resolvers.routing import Vendor
from resolvers.types import CompletionFailed, CompletionFinished, Target
from tests.persistence.entries import entry
from tests.persistence.prices import MemoryPrices, price_rule

from .scene import ACME, BETA, GLOBEX, FakeProvider, Hold, Scene, only, texts, unavailable
from .test_ledger import Inflight, Store, call, open_ledger

LONG_AGO = price_rule().since
CONTRACT = Override(Decimal(1_000_000), Decimal(10_000_000))  # a dollar a token read, ten a token written
PRICED = ("cost", "cost_source", "price_version")


def contract(**changes: object) -> object:
    return price_rule(**{"provider": "alpha", "model": "a-1", "terms": CONTRACT} | changes)


async def test_an_answer_costs_what_was_agreed(scene: Scene) -> None:
    rule = contract()
    scene.rules.rules = [rule]
    scene.alpha.will(texts("hi"))
    answer = await scene.complete()
    assert (answer.usage.cost, answer.usage.cost_source) == (27, CostSource.ORGANISATION)
    assert answer.attempts[0].price_version == rule.id
    assert scene.booked(*PRICED) == [(27, CostSource.ORGANISATION, rule.id)]


async def test_a_stream_too(scene: Scene) -> None:
    rule = contract()
    scene.rules.rules = [rule]
    scene.alpha.will(texts("hi", " there"))
    finished = only(await scene.events(), CompletionFinished)
    assert finished.completion.usage.cost == 27
    assert scene.booked(*PRICED) == [(27, CostSource.ORGANISATION, rule.id)]


async def test_what_is_cut_short_too(scene: Scene) -> None:
    """Of an answer that broke off: 2 tokens read and 2 written, both estimated."""
    rule = contract()
    scene.rules.rules = [rule]
    broken = ProviderTimeoutError("silent", provider="alpha", sent=True)
    scene.alpha.will([(TextDelta("12345678"),), broken])
    assert only(await scene.events(max_tokens=2), CompletionFailed).usage.cost == 22
    assert scene.booked(*PRICED, "estimated") == [(22, CostSource.ORGANISATION, rule.id, True)]


async def test_each_attempt_by_its_own_model(scene: Scene) -> None:
    scene.rules.rules = [contract(), contract(provider="beta", model=None, terms=Override(Decimal(1), Decimal(0)))]
    scene.alpha.will(*[[unavailable()]] * 3)
    scene.beta.will(texts("hi"))
    answer = await scene.complete(fallbacks=(BETA,))
    assert answer.usage.cost == Decimal("0.000007")
    assert [each.usage.cost_source for each in answer.attempts] == [CostSource.NOT_BILLED] * 3 + [
        CostSource.ORGANISATION
    ]


async def test_another_organisation_has_its_own_prices(scene: Scene) -> None:
    scene.rules.rules = [contract()]
    scene.alpha.will(texts("hi"), texts("hi"))
    await scene.complete(GLOBEX)
    await scene.complete(ACME)
    assert [source for (source,) in scene.booked("cost_source")] == [CostSource.UNKNOWN, CostSource.ORGANISATION]


async def test_a_discount_is_off_the_published_price(scene: Scene) -> None:
    openai = FakeProvider("openai")
    vendors = {"openai": Vendor(openai, KeyPool.of(Credentials("secret")))}
    health = Health(["openai"], vendors, scene.services.circuits, scene.services.clock)
    scene.services = replace(scene.services, vendors=vendors, health=health)
    rule = price_rule(provider=None, model=None, terms=Discount(Decimal(50)))
    scene.rules.rules = [rule]
    openai.will([(TextDelta("hi"), Finished(FinishReason.STOP, Usage(1_000_000, 1_000_000)))])
    answer = await scene.complete(target=Target("openai", "gpt-4o-mini"))
    assert answer.usage.cost == Decimal("0.375")
    assert scene.booked(*PRICED) == [(Decimal("0.375"), CostSource.ORGANISATION, f"{PRICE_VERSION}+{rule.id}")]


async def test_the_usual_case_reads_nothing(scene: Scene) -> None:
    scene.alpha.will(*[texts("hi")] * 3)
    for _ in range(3):
        await scene.complete()
    assert scene.rules.reads == 1


async def test_the_prices_are_those_of_the_beginning(scene: Scene) -> None:
    """A rule that is made while a completion runs is for the next one."""
    hold = Hold()
    scene.alpha.will([hold, *texts("hi")], texts("hi"))
    running = scene.started()
    await hold.reached.wait()
    scene.rules.rules = [contract()]
    scene.services.prices.cache.outdate("acme")
    hold.free.set()
    assert (await running).usage.cost is None
    assert (await scene.complete()).usage.cost == 27


async def test_what_can_t_be_priced_by_the_rules_has_no_price(scene: Scene) -> None:
    """Not even the vendor's own figure: the organisation may have agreed on another."""
    scene.rules.rules = [contract()]
    scene.rules.down = True
    scene.alpha.will(texts("hi"), [(TextDelta("hi"), Finished(FinishReason.STOP, Usage(7, 2, cost=Decimal(1))))])
    assert (await scene.complete()).usage.cost is None
    assert only(await scene.events(), CompletionFinished).completion.usage.cost is None
    assert scene.booked(*PRICED) == [(None, CostSource.UNKNOWN, None)] * 2


async def test_an_error_costs_nothing_though_no_rule_can_be_read(scene: Scene) -> None:
    scene.rules.down = True
    scene.alpha.will([unavailable(status=400, retryable=False)])
    with pytest.raises(CompletionFailedError):
        await scene.complete()
    assert scene.booked(*PRICED) == [(0, CostSource.NOT_BILLED, None)]


async def test_the_deadline_holds_while_prices_are_read(scene: Scene) -> None:
    hold = Hold()

    class Slow(MemoryPrices):
        async def unended(self, *_: object, **__: object) -> list:
            await hold.wait()
            return []

    scene.services.prices.cache._store = Slow()
    with pytest.raises(CompletionFailedError) as caught:
        await scene.complete(timeout_ms=1)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert scene.alpha.calls == []


async def test_what_a_killed_process_left_is_booked_by_the_rules_of_its_time() -> None:
    store, inflight = Store(), Inflight()
    before = LONG_AGO - timedelta(hours=1)
    inflight.left = [
        call("acme"),
        replace(call("early"), time=before),
        replace(call("globex"), organisation="globex"),
        entry(completion_id="known"),
    ]
    rule = price_rule(until=LONG_AGO + timedelta(minutes=1))
    async with open_ledger(store, inflight) as ledger:
        assert await ledger.recover(MemoryPrices(rule)) == 4
    [booked] = store.commits
    versions = {each.completion_id: each.price_version for each in booked}
    assert versions == {"acme": rule.id, "early": PRICE_VERSION, "globex": PRICE_VERSION, "known": None}
    assert {each.cost for each in booked if each.completion_id == "acme"} == {Decimal("0.003")}


async def test_recovery_waits_for_the_prices() -> None:
    store, inflight, prices = Store(), Inflight(), MemoryPrices()
    inflight.left = [call("a")]
    prices.down = True
    async with open_ledger(store, inflight) as ledger:
        with pytest.raises(ServiceUnavailableError, match="price rules"):
            await ledger.recover(prices)
    assert store.commits == []


async def test_an_error_costs_nothing_under_any_rule(scene: Scene) -> None:
    scene.rules.rules = [contract()]
    scene.alpha.will([unavailable(status=400, retryable=False)])
    with pytest.raises(CompletionFailedError):
        await scene.complete()
    assert scene.booked(*PRICED) == [(0, CostSource.NOT_BILLED, None)]
