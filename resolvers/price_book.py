"""An organisation's price rules, made ready to be looked up for every attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from persistence.price_records import Discount, Override, PriceRule
from providers.prices import OwnDiscount, OwnPrices, OwnTerms

_Target = tuple[str | None, str | None]
_Terms = TypeVar("_Terms", OwnPrices, OwnDiscount)
_Place = Mapping[_Target, Sequence[tuple[PriceRule, _Terms]]]


class PriceBook:
    """The rules of one organisation at one moment. It never changes.

    Which rule holds for a model at a time: an override before any discount; the rule for the model before the one for
    its provider, and that before the one for all providers; then the one that began last; then the one made last.
    """

    __slots__ = ("_discounts", "_empty", "_overrides")

    def __init__(self, rules: Iterable[PriceRule] = ()) -> None:
        self._overrides: dict[_Target, list[tuple[PriceRule, OwnPrices]]] = {}
        self._discounts: dict[_Target, list[tuple[PriceRule, OwnDiscount]]] = {}
        for rule in sorted(rules, key=lambda rule: (rule.since, rule.id), reverse=True):
            target = rule.provider, rule.model
            if isinstance(rule.terms, Override):
                self._overrides.setdefault(target, []).append((rule, _prices(rule.id, rule.terms)))
            else:
                self._discounts.setdefault(target, []).append((rule, _discount(rule.id, rule.terms)))
        self._empty = not self._overrides and not self._discounts

    def terms(self, provider: str, model: str, at: datetime) -> OwnTerms:
        """What holds for the vendor's own `model` at the aware time `at`; None where no rule does."""
        if self._empty:
            return None
        targets = ((provider, model), (provider, None), (None, None))
        return _first(self._overrides, targets, at) or _first(self._discounts, targets, at)


NO_RULES = PriceBook()

UNKNOWN_RULES = PriceBook()
"""Stands for the book of an organisation while that can't be read: what is booked by it has no known cost."""


def _first(places: _Place[_Terms], targets: Iterable[_Target], at: datetime) -> _Terms | None:
    for target in targets:
        for rule, terms in places.get(target, ()):
            if rule.holds(at):
                return terms
    return None


def _prices(version: str, terms: Override) -> OwnPrices:
    return OwnPrices(
        version=version,
        input=terms.input,
        cache_read=terms.input if terms.cached_input is None else terms.cached_input,
        cache_write=terms.input if terms.cache_write is None else terms.cache_write,
        output=terms.output,
        reasoning=terms.output if terms.reasoning is None else terms.reasoning,
    )


def _discount(version: str, terms: Discount) -> OwnDiscount:
    return OwnDiscount(version, terms.percent)
