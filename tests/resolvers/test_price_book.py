"""Which rule holds, against a plain reading of the order that is promised."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from persistence.price_records import Discount, Override, PriceRule
from providers.prices import OwnDiscount, OwnPrices, OwnTerms
from resolvers.price_book import NO_RULES, PriceBook
from tests.persistence.entries import NOON, at
from tests.persistence.prices import CONTRACT, price_rule

MODEL = "openai", "gpt-4.1"
TENTH = Discount(Decimal(10))
JUST = timedelta(milliseconds=1)

moments = st.integers(0, 6).map(at)  # few, so that rules often begin and end at the same one
targets = st.sampled_from([("openai", "gpt-4.1"), ("openai", "o3"), ("openai", None), ("groq", None), (None, None)])


@st.composite
def rules(draw: st.DrawFn) -> PriceRule:
    provider, model = draw(targets)
    terms = TENTH if provider is None else draw(st.sampled_from([CONTRACT, TENTH]))
    until = draw(st.none() | moments)
    return price_rule(provider=provider, model=model, terms=terms, since=draw(moments), until=until)


def version(terms: OwnTerms) -> str | None:
    return None if terms is None else terms.version


def the_rule(book: list[PriceRule], provider: str, model: str, moment: datetime) -> PriceRule | None:
    """As the schema's description says it."""
    holding = [
        rule
        for rule in book
        if rule.provider in (provider, None)
        and rule.model in (model, None)
        and rule.since <= moment
        and (rule.until is None or moment < rule.until)
    ]
    return max(
        holding,
        key=lambda rule: (
            isinstance(rule.terms, Override),
            rule.model is not None,
            rule.provider is not None,
            rule.since,
            rule.id,
        ),
        default=None,
    )


@given(st.lists(rules(), max_size=8), st.integers(0, 6000).map(lambda n: NOON + timedelta(microseconds=n)))
def test_the_rule_that_holds(book: list[PriceRule], moment: datetime) -> None:
    for provider, model in [MODEL, ("openai", "o3"), ("groq", "x"), ("mistral", "x")]:
        expected = the_rule(book, provider, model, moment)
        found = PriceBook(book).terms(provider, model, moment)
        assert version(found) == (None if expected is None else expected.id)
        assert isinstance(found, OwnPrices) is (expected is not None and isinstance(expected.terms, Override))


def test_no_rules() -> None:
    assert NO_RULES.terms(*MODEL, NOON) is None
    assert PriceBook([]).terms(*MODEL, NOON) is None


def test_the_begin_counts_and_the_end_does_not() -> None:
    rule = price_rule(since=at(10), until=at(20))
    book = PriceBook([rule])
    found = [book.terms(*MODEL, moment) is not None for moment in (at(10) - JUST, at(10), at(20) - JUST, at(20))]
    assert found == [False, True, True, False]


def test_of_two_that_begin_at_once_the_one_made_last_holds() -> None:
    first, second = price_rule(), price_rule()
    for book in ([first, second], [second, first]):
        assert version(PriceBook(book).terms(*MODEL, NOON)) == second.id


def test_one_follows_another_without_a_gap() -> None:
    first, second = price_rule(until=at(10)), price_rule(since=at(10))
    book = PriceBook([first, second])
    assert [version(book.terms(*MODEL, at(n))) for n in (0, 9, 10)] == [first.id, first.id, second.id]


def test_a_rule_that_ends_before_it_begins_never_holds() -> None:
    book = PriceBook([price_rule(since=at(10), until=at(5))])
    assert [book.terms(*MODEL, at(n)) for n in range(12)] == [None] * 12


def test_an_override_of_the_provider_stands_before_a_discount_of_the_model() -> None:
    discount, override = price_rule(terms=TENTH, since=at(5)), price_rule(model=None)
    book = PriceBook([discount, override])
    assert version(book.terms(*MODEL, at(6))) == override.id
    assert PriceBook([discount]).terms(*MODEL, at(6)) == OwnDiscount(discount.id, Decimal(10))


def test_names_are_exact() -> None:
    book = PriceBook([price_rule()])
    for other in ("gpt-4.1-2025-04-14", "GPT-4.1", "gpt-4.1 ", ""):
        assert book.terms("openai", other, NOON) is None
    assert book.terms("openrouter", "gpt-4.1", NOON) is None


def test_a_kind_without_a_price_costs_what_its_other_tokens_do() -> None:
    rule = price_rule()
    assert PriceBook([rule]).terms(*MODEL, NOON) == OwnPrices(
        rule.id, Decimal("2.5"), Decimal("2.5"), Decimal("2.5"), Decimal(10), Decimal(10)
    )
    free = replace(rule, terms=Override(Decimal(1), Decimal(2), Decimal(0), Decimal(0), Decimal(0)))
    assert PriceBook([free]).terms(*MODEL, NOON) == OwnPrices(
        rule.id, Decimal(1), Decimal(0), Decimal(0), Decimal(2), Decimal(0)
    )
