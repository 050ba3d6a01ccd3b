"""Prices of one's own in use: set, ended, listed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from persistence.price_records import Discount, Override, PriceFilter
from resolvers import prices as module
from resolvers.errors import BadUserInputError, ConflictError, NotFoundError, ServiceUnavailableError
from resolvers.price_cache import PriceCache
from resolvers.prices import MAX_NOTE_LENGTH, NewRule, Prices
from tests.persistence.prices import MemoryPrices

from .scene import ACME, GLOBEX

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_400, tzinfo=UTC)
WITHIN = NOW.replace(microsecond=250_000)
NEXT = NOW.replace(microsecond=251_000)
LATER = NEXT + timedelta(days=1)
CONTRACT = Override(Decimal("1.5"), Decimal(6))
TENTH = Discount(Decimal(10))
ALPHA = NewRule(CONTRACT, "alpha", "a-1")


class Desk:
    """The use cases at a time that the test sets."""

    def __init__(self) -> None:
        self.store = MemoryPrices()
        self.time = NOW
        cache = PriceCache(self.store, lambda: 1000.0, lambda: self.time)
        self.prices = Prices(self.store, cache, {"alpha", "beta", "openai"}, lambda: self.time)

    async def holding(self, at: datetime, model: str = "a-1") -> str | None:
        terms = (await self.prices.book("acme")).terms("alpha", model, at)
        return None if terms is None else terms.version


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_an_override_from_now_on(desk: Desk) -> None:
    rule = await desk.prices.create(ACME, replace(ALPHA, note="contract 7"))
    assert rule.id.startswith("prc_")
    assert (rule.organisation, rule.provider, rule.model, rule.terms) == ("acme", "alpha", "a-1", CONTRACT)
    assert (rule.since, rule.until, rule.note) == (NEXT, None, "contract 7")
    assert (rule.created_at, rule.created_by) == (WITHIN, "key_1")
    assert await desk.prices.get(ACME, rule.id) == rule
    assert [await desk.holding(at) for at in (WITHIN, NEXT)] == [None, rule.id]


async def test_a_discount_on_everything_for_a_day(desk: Desk) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    asked = NewRule(TENTH, since=LATER.astimezone(zone), until=LATER + timedelta(days=1, microseconds=1))
    rule = await desk.prices.create(ACME, asked)
    assert (rule.since, rule.until) == (LATER, LATER + timedelta(days=1))
    assert rule.since.tzinfo is UTC
    assert [await desk.holding(at) for at in (LATER - timedelta(milliseconds=1), LATER)] == [None, rule.id]


async def test_a_rule_is_in_force_for_the_next_completion(desk: Desk) -> None:
    assert await desk.holding(LATER) is None
    first = await desk.prices.create(ACME, ALPHA)
    assert await desk.holding(LATER) == first.id
    second = await desk.prices.create(ACME, replace(ALPHA, since=LATER))
    assert [await desk.holding(at) for at in (NEXT, LATER)] == [first.id, second.id]
    await desk.prices.end(ACME, second.id)
    assert await desk.holding(LATER) == first.id


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"provider": None}, "provider"),
    ({"provider": "nobody"}, "provider"),
    ({"provider": None, "terms": TENTH}, "provider"),
    ({"model": ""}, "model"),
    ({"model": "x" * 257}, "model"),
    ({"note": ""}, "note"),
    ({"note": "x" * (MAX_NOTE_LENGTH + 1)}, "note"),
    ({"since": WITHIN - timedelta(microseconds=1)}, "since"),
    ({"until": NEXT}, "until"),
    ({"since": LATER, "until": LATER + timedelta(microseconds=999)}, "until"),
    ({"terms": Override(Decimal("-0.01"), Decimal(1))}, "input"),
    ({"terms": Override(Decimal(1), Decimal(1_000_001))}, "output"),
    ({"terms": Override(Decimal(1), Decimal(1), cached_input=Decimal(-1))}, "cachedInput"),
    ({"terms": Override(Decimal(1), Decimal(1), cache_write=Decimal(-1))}, "cacheWrite"),
    ({"terms": Override(Decimal(1), Decimal(1), reasoning=Decimal(-1))}, "reasoning"),
    ({"terms": Discount(Decimal(0))}, "percent"),
    ({"terms": Discount(Decimal(-5))}, "percent"),
    ({"terms": Discount(Decimal("100.01"))}, "percent"),
]


@pytest.mark.parametrize(("changes", "name"), WRONG)
async def test_what_is_refused(desk: Desk, changes: dict[str, Any], name: str) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await desk.prices.create(ACME, replace(ALPHA, **changes))
    assert caught.value.path == ("input", name)
    assert (await desk.prices.page(ACME, first=1, after=None, where=PriceFilter())).rules == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": Override(Decimal(0), Decimal(0))},
        {"terms": Override(Decimal(1_000_000), Decimal("1E-18"))},
        {"terms": Discount(Decimal(100))},
        {"terms": Discount(Decimal("0.01"))},
        {"terms": TENTH, "model": None},
        {"since": WITHIN},
        {"until": NEXT + timedelta(milliseconds=1)},
    ],
)
async def test_what_is_just_allowed(desk: Desk, changes: dict[str, Any]) -> None:
    rule = await desk.prices.create(ACME, replace(ALPHA, **changes))
    assert await desk.holding(NEXT) == rule.id


async def test_times_beyond_the_calendar(desk: Desk) -> None:
    last = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))
    with pytest.raises(BadUserInputError, match="calendar"):
        await desk.prices.create(ACME, replace(ALPHA, until=last))
    assert (await desk.prices.create(ACME, replace(ALPHA, until=datetime.max.replace(tzinfo=UTC)))).until is not None


async def test_ending(desk: Desk) -> None:
    rule = await desk.prices.create(ACME, ALPHA)
    ended = await desk.prices.end(ACME, rule.id, LATER)
    assert ended == replace(rule, until=LATER)
    assert (await desk.prices.end(ACME, rule.id)).until == NEXT
    desk.time = NOW + timedelta(seconds=1)
    with pytest.raises(ConflictError, match=r"the rule ended at 2026-03-01T12:00:00\.251"):
        await desk.prices.end(ACME, rule.id, LATER)


async def test_an_end_is_not_past(desk: Desk) -> None:
    rule = await desk.prices.create(ACME, ALPHA)
    desk.time = NOW + timedelta(seconds=1)
    with pytest.raises(BadUserInputError) as caught:
        await desk.prices.end(ACME, rule.id, NEXT)
    assert caught.value.path == ("input", "at")
    assert (await desk.prices.get(ACME, rule.id)).until is None


async def test_a_rule_to_come_is_called_off(desk: Desk) -> None:
    rule = await desk.prices.create(ACME, replace(ALPHA, since=LATER))
    assert (await desk.prices.end(ACME, rule.id)).until == NEXT
    assert await desk.holding(LATER) is None


async def test_another_organisation_s_rules_are_not_there(desk: Desk) -> None:
    rule = await desk.prices.create(ACME, ALPHA)
    for call in (desk.prices.get(GLOBEX, rule.id), desk.prices.end(GLOBEX, rule.id), desk.prices.get(ACME, "prc_1")):
        with pytest.raises(NotFoundError):
            await call
    assert (await desk.prices.page(GLOBEX, first=5, after=None, where=PriceFilter())).rules == ()
    assert await desk.prices.paid(GLOBEX, "alpha", "a-1") is None


async def test_so_many_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RULES", 2)
    rule, _ = [await desk.prices.create(ACME, ALPHA) for _ in range(2)]
    with pytest.raises(ConflictError, match="there are 2 rules that have not ended"):
        await desk.prices.create(ACME, ALPHA)
    await desk.prices.end(ACME, rule.id)
    desk.time = NOW + timedelta(seconds=1)
    await desk.prices.create(ACME, ALPHA)


async def test_pages(desk: Desk) -> None:
    made = [await desk.prices.create(ACME, replace(ALPHA, model=f"a-{n % 2}")) for n in range(5)]
    one = await desk.prices.page(ACME, first=3, after=None, where=PriceFilter())
    two = await desk.prices.page(ACME, first=3, after=one.rules[-1][0], where=PriceFilter())
    assert [rule for _, rule in (*one.rules, *two.rules)] == made[::-1]
    assert (one.more, two.more) == (True, False)
    odd = await desk.prices.page(ACME, first=3, after=None, where=PriceFilter(model="a-1"))
    assert [rule.model for _, rule in odd.rules] == ["a-1", "a-1"]


@pytest.mark.parametrize("first", [0, 101])
async def test_bad_page_sizes(desk: Desk, first: int) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await desk.prices.page(ACME, first=first, after=None, where=PriceFilter())
    assert caught.value.path == ("first",)


@pytest.mark.parametrize("after", ["", "x", "cHJjXzE=", "\u00e4", "cHJjXzE", "////"])
async def test_bad_cursors(desk: Desk, after: str) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await desk.prices.page(ACME, first=1, after=after, where=PriceFilter())
    assert caught.value.path == ("after",)


async def test_a_write_that_failed_leaves_the_book_in_use(desk: Desk) -> None:
    rule = await desk.prices.create(ACME, ALPHA)
    book = await desk.prices.book("acme")
    desk.store.down = True
    with pytest.raises(ServiceUnavailableError, match="price rules"):
        await desk.prices.create(ACME, ALPHA)
    assert await desk.prices.book("acme") is book
    assert await desk.holding(NEXT) == rule.id


async def test_what_is_paid_for_a_model_now(desk: Desk) -> None:
    assert await desk.prices.paid(ACME, "alpha", "a-1") is None
    rule = await desk.prices.create(ACME, ALPHA)
    discount = await desk.prices.create(ACME, NewRule(TENTH))
    desk.time = NOW + timedelta(seconds=1)
    paid = await desk.prices.paid(ACME, "alpha", "a-1")
    assert paid is not None
    assert (paid.rule, paid.prices.input, paid.prices.reasoning) == (rule.id, Decimal("1.5"), 6)
    assert await desk.prices.paid(ACME, "alpha", "unpriced") is None
    reduced = await desk.prices.paid(ACME, "openai", "gpt-4o-mini")
    assert reduced is not None
    assert (reduced.rule, reduced.prices.input) == (discount.id, Decimal("0.135"))
