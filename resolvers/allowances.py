"""What a limit rule comes to for one call: what is asked of it, and what its refusal says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from math import ceil

from persistence.limit_records import Limited, LimitRule
from persistence.records import LedgerEntry
from persistence.reservation_records import Allowance, Kind, Refused
from persistence.usage_records import UsageField, UsageFilter
from providers.variants import names_of

from .errors import BudgetExceededError, DomainError, LimitDetail, RateLimitedError

MINUTE_S = 60.0
BUDGET_KEPT = timedelta(days=3)  # after its period: for what is settled late
MAX_USD = 9_000_000
"""What is counted exactly, in units of 10^-9 USD."""

BACKGROUND_SHARE = 0.8
"""Of requests and tokens, what calls that nobody waits for may take."""

SOON_MS = 1_000
"""Where room comes with whoever ends next, which nobody knows."""

MAX_INT = 2**31 - 1  # GraphQL's Int

_UNITS = Decimal(10) ** 9


class Measure(StrEnum):
    """What a limit counts. The values are fields of `LimitRule`."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    USD_A_DAY = "usd_per_day"
    USD_A_MONTH = "usd_per_month"
    STREAMS = "streams"


MONEY = frozenset({Measure.USD_A_DAY, Measure.USD_A_MONTH})


@dataclass(frozen=True, slots=True)
class Need:
    """What one call needs of one limit. `rule`, `measure`: which. `begun_at`: since when a budget runs; `ends_at`:
    until when."""

    rule: LimitRule
    measure: Measure
    asked: Allowance
    begun_at: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Most:
    """What a call may come to. `cost` in USD, of an attempt; `holder`: the completion that a stream is of."""

    requests: int
    tokens: int
    cost: Decimal
    holder: str | None


def units(cost: Decimal) -> int:
    """USD as they are counted, rounded up."""
    return int((cost * _UNITS).to_integral_value(ROUND_CEILING))


def usd(amount: int) -> Decimal:
    return Decimal(amount) / _UNITS


def needs(rules: Sequence[LimitRule], most: Most, now: datetime) -> Iterator[Need]:
    """`now` is aware UTC: which day and month it is."""
    for rule in rules:
        subject = f"{rule.limited}:{rule.name}"
        for measure, kind, amount in _wanted(most):
            limit = getattr(rule, measure)
            if limit is None:
                continue
            if measure in MONEY:
                begun_at, ends_at = period(measure, now)
                seconds = (ends_at + BUDGET_KEPT - now).total_seconds()
                key = f"{measure}:{begun_at:%Y-%m-%d}:{subject}"
                yield Need(rule, measure, Allowance(key, kind, amount, units(limit), seconds), begun_at, ends_at)
            else:
                asked = Allowance(f"{measure}:{subject}", kind, amount, limit, MINUTE_S, most.holder or "")
                yield Need(rule, measure, asked)


def _wanted(most: Most) -> Iterator[tuple[Measure, Kind, int]]:
    if most.requests:
        yield Measure.REQUESTS, Kind.WINDOW, most.requests
    yield Measure.TOKENS, Kind.WINDOW, most.tokens
    yield Measure.USD_A_DAY, Kind.BUDGET, units(most.cost)
    yield Measure.USD_A_MONTH, Kind.BUDGET, units(most.cost)
    if most.holder is not None:
        yield Measure.STREAMS, Kind.PLACES, 1


def period(measure: Measure, now: datetime) -> tuple[datetime, datetime]:
    """The day or the month of UTC that the aware time `now` is in: its beginning and its end."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if measure is Measure.USD_A_DAY:
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def counted_as(rule: LimitRule) -> UsageFilter:
    """The ledger's entries that count. Who calls by an API key is booked under its id."""
    if rule.limited is Limited.ORGANISATION:
        return UsageFilter()
    if rule.limited is Limited.API_KEY:
        return UsageFilter({UsageField.PRINCIPAL: [rule.name]})
    provider, _, model = rule.name.partition("/")
    if model == "*":
        return UsageFilter({UsageField.PROVIDER: [provider]})
    return UsageFilter({UsageField.PROVIDER: [provider], UsageField.MODEL: names_of(model)})


def budgets_of(rules: Sequence[LimitRule], cost: Decimal, at: datetime) -> Sequence[Need]:
    """The budgets of the rules that what costs so much counts against, by its time."""
    return [need for need in needs(rules, Most(0, 0, cost, None), at) if need.measure in MONEY]


def has_budget(asked: Sequence[Need]) -> bool:
    return any(need.measure in MONEY for need in asked)


def leaving_room(asked: Sequence[Need]) -> Sequence[Need]:
    """Of requests and tokens. What takes more than that by itself still has its turn where nothing else is used."""

    def one(whole: Allowance) -> Allowance:
        if whole.kind is not Kind.WINDOW:
            return whole
        return replace(whole, limit=max(int(whole.limit * BACKGROUND_SHARE), min(whole.amount, whole.limit)))

    return [replace(need, asked=one(need.asked)) for need in asked]


def divided(asked: Sequence[Need], share: int) -> Sequence[Need]:
    """Of each limit one of so many shares, where it has any."""

    def one(whole: Allowance) -> Allowance:
        return replace(whole, limit=max(1, whole.limit // share) if whole.limit else 0)

    return [replace(need, asked=one(need.asked)) for need in asked]


def came_to(asked: Allowance, entry: LedgerEntry) -> int:
    """Where the cost is not known, it may have been all that was reserved. A place is left whatever it says."""
    measure = asked.key.partition(":")[0]
    if measure == Measure.TOKENS:
        return entry.input_tokens + entry.output_tokens
    if measure in MONEY and entry.cost is not None:
        return units(entry.cost)
    return asked.amount


def refusal(need: Need, refused: Refused, now: datetime) -> DomainError:
    """What is limited, by how much, and when it is worth another try."""
    asked = need.asked
    money = need.measure in MONEY
    limit, used, amount = (
        f"{usd(each):f}" if money else str(each) for each in (asked.limit, refused.used, asked.amount)
    )
    detail = LimitDetail(need.rule.limited.value, need.rule.name or None, need.measure.value, limit, used, amount)
    who = {Limited.ORGANISATION: "the organisation", Limited.API_KEY: "this API key"}.get(
        need.rule.limited, f"calls to {need.rule.name}"
    )
    text = _TEXTS[need.measure].format(who=who, limit=limit, used=used, asked=amount)
    if asked.amount > asked.limit:
        error = _error(money, f"{text}: this call alone could come to {amount}, so it never fits", detail)
        error.retryable = False
        return error
    error = _error(money, text, detail)
    error.retry_after_ms = _wait_ms(need, refused, now)
    return error


_TEXTS = {
    Measure.REQUESTS: "{who}: at most {limit} requests a minute, of which {used} are used",
    Measure.TOKENS: "{who}: at most {limit} tokens a minute, of which {used} are used or reserved, and this call may"
    " take {asked}",
    Measure.USD_A_DAY: "{who}: at most {limit} USD a day (UTC), of which {used} are spent or reserved, and this call"
    " may cost {asked}",
    Measure.USD_A_MONTH: "{who}: at most {limit} USD a month (UTC), of which {used} are spent or reserved, and this"
    " call may cost {asked}",
    Measure.STREAMS: "{who}: at most {limit} streams at once, and {used} are running",
}


def _error(money: bool, text: str, detail: LimitDetail) -> RateLimitedError | BudgetExceededError:
    return BudgetExceededError(text, detail) if money else RateLimitedError(text, detail)


def _wait_ms(need: Need, refused: Refused, now: datetime) -> int:
    if refused.seconds is not None:
        return max(1, ceil(refused.seconds * 1000))
    if need.ends_at is not None and refused.settled + need.asked.amount > need.asked.limit:
        return min(MAX_INT, max(1, ceil((need.ends_at - now) / timedelta(milliseconds=1))))
    return SOON_MS
