"""Price rules through the schema: every argument is translated, every field comes through."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from persistence.ports import Audit
from persistence.price_records import Discount, PriceRule
from providers.prices import PRICE_VERSION
from providers.types import Credentials
from resolvers.key_pool import KeyPool
from resolvers.price_book import PriceBook
from resolvers.principal import Scope
from resolvers.routing import Vendor
from tests.persistence.entries import NOON, at
from tests.persistence.prices import price_rule
from tests.resolvers.scene import FakeProvider, texts

from .stage import EVERY_SCOPE, Stage, refusals

RULE = """
fragment Rule on PriceRule {
  __typename id provider model since until note createdAt createdBy
  ... on PriceOverride { input output cachedInput cacheWrite reasoning }
  ... on PriceDiscount { percent }
}
"""
OVERRIDE = "mutation ($input: CreatePriceOverrideInput!) { createPriceOverride(input: $input) { ...Rule } }" + RULE
DISCOUNT = "mutation ($input: CreateDiscountInput!) { createDiscount(input: $input) { ...Rule } }" + RULE
END = "mutation ($input: EndPriceInput!) { endPrice(input: $input) { ...Rule } }" + RULE
NODE = "query ($id: ID!) { node(id: $id) { ...Rule } }" + RULE
PRICES = (
    """
query ($first: Int! = 50, $after: String, $filter: PriceFilter) {
  prices(first: $first, after: $after, filter: $filter) {
    edges { cursor node { id } } nodes { ...Rule } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
    + RULE
)
FAR = {"since": "2096-03-01T12:00:00+05:30", "until": "2097-01-01T00:00:00Z"}
PRICED = {"provider": "alpha", "model": "a-1", "input": "2.50", "output": "10"}


async def ask(stage: Stage, query: str, **variables: Any) -> Any:
    data, errors = await stage.ask(query, variables)
    assert errors == []
    assert data is not None
    (answer,) = data.values()
    return answer


async def test_an_override(stage: Stage) -> None:
    more = {"cachedInput": "0.000000000000000001", "cacheWrite": "0", "reasoning": "1000000", "note": "contract 7"}
    made = await ask(stage, OVERRIDE, input={**PRICED, **more, **FAR})
    assert made["id"].startswith("prc_")
    assert made["createdAt"].endswith("+00:00")
    assert {name: made[name] for name in made if name not in ("id", "createdAt")} == {
        "__typename": "PriceOverride",
        "provider": "alpha",
        "model": "a-1",
        "since": "2096-03-01T06:30:00+00:00",
        "until": "2097-01-01T00:00:00+00:00",
        "note": "contract 7",
        "createdBy": "key_1",
        "input": "2.50",
        "output": "10",
        "cachedInput": "0.000000000000000001",
        "cacheWrite": "0",
        "reasoning": "1000000",
    }
    assert await ask(stage, NODE, id=made["id"]) == made


async def test_a_discount_on_everything(stage: Stage) -> None:
    made = await ask(stage, DISCOUNT, input={"percent": "12.5"})
    assert (made["__typename"], made["percent"]) == ("PriceDiscount", "12.5")
    assert [made[name] for name in ("provider", "model", "until", "note")] == [None] * 4
    assert await ask(stage, NODE, id=made["id"]) == made


async def test_an_override_with_what_it_needs_alone(stage: Stage) -> None:
    made = await ask(stage, OVERRIDE, input={**PRICED, "model": None, "cachedInput": None})
    assert [made[name] for name in ("model", "cachedInput", "cacheWrite", "reasoning", "until")] == [None] * 5


async def test_a_rule_is_ended(stage: Stage) -> None:
    made = await ask(stage, OVERRIDE, input=PRICED)
    ended = await ask(stage, END, input={"id": made["id"], "at": "2096-03-01T12:00:00Z"})
    assert ended == {**made, "until": "2096-03-01T12:00:00+00:00"}
    assert (await ask(stage, END, input={"id": made["id"]}))["until"] < ended["until"]


async def test_the_next_completion_is_booked_by_it(stage: Stage) -> None:
    complete = """mutation { complete(input: { model: "alpha/a-1", messages: [{ role: USER, content: "hi" }] }) {
      usage { cost costSource } attempts { priceVersion }
    } }"""
    stage.scene.alpha.will(*[texts("hi")] * 3)
    assert (await ask(stage, complete))["usage"] == {"cost": None, "costSource": "UNKNOWN"}
    await ask(stage, OVERRIDE, input={**PRICED, "input": "1000000", "output": "0"})
    while (answer := await ask(stage, complete))["usage"]["costSource"] == "UNKNOWN":
        stage.scene.alpha.will(texts("hi"))  # the rule holds from the next millisecond on
    [rule] = stage.scene.rules.rules
    assert answer == {"usage": {"cost": "7", "costSource": "ORGANISATION"}, "attempts": [{"priceVersion": rule.id}]}


async def test_what_is_asked_for_while_rules_are_written_is_booked_by_those_that_hold(stage: Stage) -> None:
    scene = stage.scene
    add = scene.rules.add

    async def add_slowly(rule: PriceRule, *, at_most: int, audit: Audit[PriceRule]) -> None:
        await asyncio.sleep(0.003)  # as a store on a disk
        await add(rule, at_most=at_most, audit=audit)

    scene.rules.add = add_slowly  # type: ignore[method-assign]
    asked = []
    for number in range(20):
        making = asyncio.create_task(ask(stage, OVERRIDE, input={**PRICED, "input": str(number)}))
        while not making.done():
            scene.alpha.will(*[texts("hi")] * 2)
            asked += [scene.started(), scene.started()]
            await asyncio.sleep(0.001)
        await making
    await asyncio.gather(*asked)
    book = PriceBook(scene.rules.rules)
    held = [(entry, book.terms("alpha", "a-1", entry.time)) for entry in scene.store.entries]
    assert [entry.price_version for entry, _ in held] == [
        terms.version if terms else PRICE_VERSION for _, terms in held
    ]
    assert len({entry.price_version for entry, _ in held}) > 10


async def test_pages(stage: Stage) -> None:
    made = [price_rule(provider="alpha", model=model) for model in ("a-1", "a-2", "a-1")]
    stage.scene.rules.rules = made
    one = await ask(stage, PRICES, first=2)
    two = await ask(stage, PRICES, first=2, after=one["pageInfo"]["endCursor"])
    assert [rule["id"] for rule in one["nodes"] + two["nodes"]] == [rule.id for rule in reversed(made)]
    assert [edge["node"]["id"] for edge in one["edges"]] == [rule["id"] for rule in one["nodes"]]
    assert (one["pageInfo"]["hasNextPage"], one["pageInfo"]["hasPreviousPage"]) == (True, False)
    assert (two["pageInfo"]["hasNextPage"], two["pageInfo"]["hasPreviousPage"]) == (False, True)
    assert two["pageInfo"]["startCursor"] == two["edges"][0]["cursor"]


async def test_filters(stage: Stage) -> None:
    stage.scene.rules.rules = [
        price_rule(provider="alpha", model="a-1", until=at(10)),
        price_rule(provider="alpha", model=None, since=at(10)),
        price_rule(provider="beta", model="a-1"),
        price_rule(organisation="globex"),
    ]
    found = [
        len((await ask(stage, PRICES, filter=where))["nodes"])
        for where in (
            {},
            {"provider": "alpha"},
            {"model": "a-1"},
            {"provider": "alpha", "activeAt": at(10).isoformat()},
            {"activeAt": NOON.isoformat()},
            {"provider": "x"},
        )
    ]
    assert found == [3, 2, 2, 1, 2, 0]
    assert (await ask(stage, PRICES, filter={"provider": "x"}))["pageInfo"]["startCursor"] is None


REFUSED: list[tuple[str, dict[str, Any], str, list[str]]] = [
    (PRICES, {"first": 0}, "BAD_USER_INPUT", ["first"]),
    (PRICES, {"after": "x"}, "BAD_USER_INPUT", ["after"]),
    (PRICES, {"filter": {"activeAt": "2026-01-01T00:00:00"}}, "BAD_USER_INPUT", ["filter", "activeAt"]),
    (OVERRIDE, {"input": {**PRICED, "provider": "x"}}, "BAD_USER_INPUT", ["input", "provider"]),
    (OVERRIDE, {"input": {**PRICED, "output": "-1"}}, "BAD_USER_INPUT", ["input", "output"]),
    (OVERRIDE, {"input": {**PRICED, "cachedInput": "1000000.1"}}, "BAD_USER_INPUT", ["input", "cachedInput"]),
    (OVERRIDE, {"input": {**PRICED, "since": "2026-01-01T00:00:00"}}, "BAD_USER_INPUT", ["input", "since"]),
    (OVERRIDE, {"input": {**PRICED, "since": "2026-01-01T00:00:00Z"}}, "BAD_USER_INPUT", ["input", "since"]),
    (OVERRIDE, {"input": {**PRICED, "until": "2026-01-01T00:00:00Z"}}, "BAD_USER_INPUT", ["input", "until"]),
    (DISCOUNT, {"input": {"percent": "0"}}, "BAD_USER_INPUT", ["input", "percent"]),
    (DISCOUNT, {"input": {"percent": "5", "model": "a-1"}}, "BAD_USER_INPUT", ["input", "provider"]),
    (DISCOUNT, {"input": {"percent": "5", "note": ""}}, "BAD_USER_INPUT", ["input", "note"]),
    (END, {"input": {"id": "prc_1", "at": "2026-01-01T00:00:00Z"}}, "BAD_USER_INPUT", ["input", "at"]),
    (END, {"input": {"id": "prc_1", "at": "2096-01-01T00:00:00"}}, "BAD_USER_INPUT", ["input", "at"]),
]


@pytest.mark.parametrize(("query", "variables", "code", "path"), REFUSED)
async def test_what_is_refused(stage: Stage, query: str, variables: dict[str, Any], code: str, path: list[str]) -> None:
    _, errors = await stage.ask(query, variables)
    assert refusals(errors) == [(code, path)]


@pytest.mark.parametrize("price", ["1e3", "1_000", " 1", "NaN", "-Infinity", 2.5, 3, "1" * 21, "0." + "1" * 19])
async def test_a_price_is_plain_text(stage: Stage, price: Any) -> None:
    _, errors = await stage.ask(OVERRIDE, {"input": {**PRICED, "input": price}})
    assert refusals(errors) == [("BAD_USER_INPUT", None)]
    assert stage.scene.rules.rules == []


async def test_what_has_ended_is_a_conflict(stage: Stage) -> None:
    rule = price_rule(until=at(1))
    stage.scene.rules.rules = [rule]
    _, errors = await stage.ask(END, {"input": {"id": rule.id}})
    assert refusals(errors) == [("CONFLICT", None)]


@pytest.mark.parametrize("query", [NODE, "mutation ($id: ID!) { endPrice(input: { id: $id }) { id } }"])
async def test_what_is_not_the_organisation_s_is_not_found(stage: Stage, query: str) -> None:
    rule = price_rule(organisation="globex")
    stage.scene.rules.rules = [rule]
    for rule_id in (rule.id, "prc_", "prc_1"):
        _, errors = await stage.ask(query, {"id": rule_id})
        assert refusals(errors) == [("NOT_FOUND", None)]


async def test_a_rule_is_no_node_without_the_scope(stage: Stage) -> None:
    rule = price_rule()
    stage.scene.rules.rules = [rule]
    _, errors = await stage.ask(NODE, {"id": rule.id}, scopes=EVERY_SCOPE - {Scope.PRICES_READ})
    assert refusals(errors) == [("FORBIDDEN", None)]


async def test_a_store_that_is_away(stage: Stage) -> None:
    stage.scene.rules.down = True
    for query, variables in [
        (PRICES, {}),
        (OVERRIDE, {"input": PRICED}),
        (DISCOUNT, {"input": {"percent": "1"}}),
        (END, {"input": {"id": "prc_1"}}),
        (NODE, {"id": "prc_1"}),
    ]:
        _, errors = await stage.ask(query, variables)
        assert refusals(errors) == [("SERVICE_UNAVAILABLE", None)]


MODELS = """{ models(filter: { search: "openai/gpt-4o-mini" }) { nodes {
  name prices { input } organisationPrices { input cachedInput cacheWrite output reasoning tiered rule }
} } }"""


async def test_what_the_organisation_pays_for_a_model(stage: Stage) -> None:
    vendors = {"openai": Vendor(FakeProvider("openai"), KeyPool.of(Credentials("secret")))}
    stage.scene.services = replace(stage.scene.services, vendors=vendors)
    override = price_rule(model="gpt-4o-mini")
    discount = price_rule(model=None, terms=Discount(Decimal(50)))
    stage.scene.rules.rules = [override, discount]
    found = {each["name"]: each for each in (await ask(stage, MODELS))["nodes"]}
    assert found["gpt-4o-mini"]["organisationPrices"] == {
        "input": "2.5",
        "cachedInput": "2.5",
        "cacheWrite": "2.5",
        "output": "10",
        "reasoning": "10",
        "tiered": False,
        "rule": override.id,
    }
    other = next(each for name, each in found.items() if name != "gpt-4o-mini" and each["prices"])
    assert other["organisationPrices"]["rule"] == discount.id
    assert Decimal(other["organisationPrices"]["input"]) * 2 == Decimal(other["prices"]["input"])
    stage.scene.rules.rules = []
    stage.scene.services.prices.cache.outdate("acme")
    assert {each["organisationPrices"] for each in (await ask(stage, MODELS))["nodes"]} == {None}
