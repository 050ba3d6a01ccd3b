"""An organisation's own prices: overrides and discounts, each from one time until another."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from uuid_utils import uuid7

from persistence.audit_records import Action
from persistence.ports import PriceStore, StoreConflictError, StoreUnavailableError
from persistence.price_records import Discount, Override, PriceFilter, PriceRule
from providers.prices import ListPrices, own_prices

from .audit_fields import audit_of_price
from .errors import BadUserInputError, ConflictError, NotFoundError, ServiceUnavailableError
from .price_book import PriceBook
from .price_cache import LOOK_BACK, PriceCache
from .principal import Principal

ID_PREFIX = "prc_"
MAX_PAGE = 100
MAX_RULES = 1000
"""Of one organisation, those that have ended not counted."""

MAX_BOOK = 2 * MAX_RULES
"""Of one organisation, with those that have ended within LOOK_BACK: what completions are priced by."""

MAX_PRICE = 1_000_000
MAX_MODEL_LENGTH = 256
MAX_NOTE_LENGTH = 1000

_MILLISECOND = timedelta(milliseconds=1)
_NAMES = {
    "input": "input",
    "output": "output",
    "cached_input": "cachedInput",
    "cache_write": "cacheWrite",
    "reasoning": "reasoning",
}


@dataclass(frozen=True, slots=True)
class NewRule:
    """What a rule shall be: see `PriceRule`. Without `since` it holds from now on."""

    terms: Override | Discount
    provider: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class PricePage:
    """Newest first, each with its cursor; `more`: there are older ones."""

    rules: tuple[tuple[str, PriceRule], ...]
    more: bool


@dataclass(frozen=True, slots=True)
class OrganisationPrices:
    """What an organisation pays for a model now, and the id of the rule that says so."""

    rule: str
    prices: ListPrices


@dataclass(frozen=True, slots=True)
class Prices:
    """The use cases, each within the principal's organisation. All raise ServiceUnavailableError; NotFoundError, the
    same for what does not exist and what another organisation has; and what they say themselves. `now` is aware UTC.

    Which of several rules holds is `PriceBook`'s to say. A rule reaches no further back than the moment it is made or
    ended, so that the rules explain what was booked; another process may go by the earlier ones for a minute.
    """

    store: PriceStore
    cache: PriceCache
    providers: Collection[str]
    now: Callable[[], datetime]

    async def create(self, principal: Principal, asked: NewRule) -> PriceRule:
        """Raises BadUserInputError, and ConflictError where the organisation has MAX_RULES rules."""
        self._check_target(asked)
        _check_terms(asked.terms)
        if asked.note is not None and not 1 <= len(asked.note) <= MAX_NOTE_LENGTH:
            raise BadUserInputError(f"a note has 1 to {MAX_NOTE_LENGTH} characters", path=("input", "note"))
        return await self.cache.write(principal.organisation, lambda: self._add(principal, asked))

    async def end(self, principal: Principal, rule_id: str, at: datetime | None = None) -> PriceRule:
        """The rule holds no longer from `at` on, or from now; one that has not begun by then will never hold. Raises
        BadUserInputError for a time that is past, ConflictError for a rule that has ended."""
        return await self.cache.write(principal.organisation, lambda: self._end(principal, rule_id, at))

    async def get(self, principal: Principal, rule_id: str) -> PriceRule:
        with _told():
            return _found(await self.store.by_id(principal.organisation, rule_id))

    async def page(self, principal: Principal, *, first: int, after: str | None, where: PriceFilter) -> PricePage:
        """Raises BadUserInputError for a page size beyond 1 to 100 or a cursor that this list did not make."""
        if not 1 <= first <= MAX_PAGE:
            raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))
        before = None if after is None else _read_cursor(after)
        with _told():
            found = await self.store.page(principal.organisation, where=where, limit=first + 1, before=before)
        return PricePage(tuple((_write_cursor(rule), rule) for rule in found[:first]), more=len(found) > first)

    async def paid(self, principal: Principal, provider: str, model: str) -> OrganisationPrices | None:
        """What the organisation pays for the model now; None where that is the published price."""
        book = await self.book(principal.organisation)
        at = self.now()
        terms = book.terms(provider, model, at)
        prices = None if terms is None else own_prices(provider, model, at, terms)
        return None if terms is None or prices is None else OrganisationPrices(terms.version, prices)

    async def book(self, organisation: str) -> PriceBook:
        """From the cache."""
        at_hand = self.cache.at_hand(organisation)
        return await self.cache.book(organisation) if at_hand is None else at_hand

    def _check_target(self, asked: NewRule) -> None:
        if asked.provider is None:
            if asked.model is not None or isinstance(asked.terms, Override):
                raise BadUserInputError("name the provider", path=("input", "provider"))
        elif asked.provider not in self.providers:
            raise BadUserInputError(f"no provider named {asked.provider[:100]!r}", path=("input", "provider"))
        if asked.model is not None and not 1 <= len(asked.model) <= MAX_MODEL_LENGTH:
            raise BadUserInputError(f"a model's name has 1 to {MAX_MODEL_LENGTH} characters", path=("input", "model"))

    async def _add(self, principal: Principal, asked: NewRule) -> PriceRule:
        now = _whole(self.now())
        since = now + _MILLISECOND if asked.since is None else _from(now, asked.since, "since")
        until = None if asked.until is None else _whole(asked.until)
        if until is not None and until <= since:
            raise BadUserInputError("a rule ends after it begins", path=("input", "until"))
        rule = PriceRule(
            id=ID_PREFIX + uuid7().hex,
            organisation=principal.organisation,
            provider=asked.provider,
            model=asked.model,
            terms=asked.terms,
            since=since,
            until=until,
            note=asked.note,
            created_at=now,
            created_by=principal.subject,
        )
        with _told():
            if len(await self.store.unended(principal.organisation, since=now - LOOK_BACK)) >= MAX_BOOK:
                raise ConflictError(f"{MAX_BOOK} rules hold, or have ended within the hour: wait for a while")
            await self.store.add(rule, at_most=MAX_RULES, audit=audit_of_price(principal, Action.PRICE_SET, rule.id))
        return rule

    async def _end(self, principal: Principal, rule_id: str, at: datetime | None) -> PriceRule:
        now = _whole(self.now())
        until = now + _MILLISECOND if at is None else _from(now, at, "at")
        audit = audit_of_price(principal, Action.PRICE_END, rule_id)
        with _told():
            return _found(await self.store.end(principal.organisation, rule_id, until, now=now, audit=audit))


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors as the caller's."""
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the price rules can't be reached at the moment") from error
    except StoreConflictError as error:
        raise ConflictError(str(error)) from error


def _found(rule: PriceRule | None) -> PriceRule:
    if rule is None:
        raise NotFoundError("no such price rule")
    return rule


def _check_terms(terms: Override | Discount) -> None:
    if isinstance(terms, Discount):
        if not 0 < terms.percent <= 100:
            raise BadUserInputError("a discount is above 0 and up to 100 percent", path=("input", "percent"))
        return
    for field, name in _NAMES.items():
        price: Decimal | None = getattr(terms, field)
        if price is not None and not 0 <= price <= MAX_PRICE:
            raise BadUserInputError(f"a price is between 0 and {MAX_PRICE} USD", path=("input", name))


def _whole(time: datetime) -> datetime:
    """The millisecond that it is in, in UTC."""
    try:
        time = time.astimezone(UTC)
    except OverflowError:  # an offset takes it out of the calendar
        raise BadUserInputError("the calendar has no such time", path=("input",)) from None
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _from(now: datetime, given: datetime, name: str) -> datetime:
    time = _whole(given)
    if time < now:
        raise BadUserInputError(f"{name} is past: leave it out for now", path=("input", name))
    return max(time, now + _MILLISECOND)  # what was asked for within this millisecond is booked by the earlier rules


def _write_cursor(rule: PriceRule) -> str:
    return base64.urlsafe_b64encode(rule.id.encode()).decode()


def _read_cursor(text: str) -> str:
    try:
        rule_id = base64.b64decode(text, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        rule_id = ""
    if re.fullmatch(rf"{ID_PREFIX}[0-9a-f]{{32}}", rule_id) is None:
        raise BadUserInputError("not a cursor of this list", path=("after",))
    return rule_id
