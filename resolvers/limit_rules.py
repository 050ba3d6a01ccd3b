"""Limits, as they are set and shown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from persistence.audit_records import Action
from persistence.limit_records import Limited, LimitRule
from persistence.ports import LimitStore, StoreUnavailableError
from persistence.reservation_records import Kind

from .allowances import MAX_USD, MONEY, Measure, Most, Need, budgets_of, needs, usd
from .api_keys import ApiKeys
from .audit_fields import audit_of_limits
from .errors import BadUserInputError, NotFoundError, ServiceUnavailableError
from .grants import MODEL_FORM
from .limits import Limiter
from .principal import Principal

MAX_RULES = 1_000
MAX_COUNT = 2**31 - 1
MAX_TOKENS = 2**50
MAX_THRESHOLDS = 10

_NAMES = {
    Measure.REQUESTS: "requestsPerMinute",
    Measure.TOKENS: "tokensPerMinute",
    Measure.USD_A_DAY: "usdPerDay",
    Measure.USD_A_MONTH: "usdPerMonth",
    Measure.STREAMS: "streams",
}


@dataclass(frozen=True, slots=True)
class NewLimits:
    """See `LimitRule`. Of an API key or a model where one is named, else of the organisation."""

    api_key: str | None = None
    model: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    usd_per_day: Decimal | None = None
    usd_per_month: Decimal | None = None
    streams: int | None = None
    alert_at: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class LimitState:
    """How one limit stands: in USD, or in numbers. `used` holds what is reserved for calls that run. `ends_at`: when a
    budget begins anew; None for what is counted by the minute, or at the moment."""

    limited: Limited
    name: str
    measure: Measure
    limit: Decimal
    used: Decimal
    ends_at: datetime | None

    @property
    def left(self) -> Decimal:
        return max(Decimal(0), self.limit - self.used)


@dataclass(frozen=True, slots=True)
class LimitRules:
    """The use cases, each within the principal's organisation. All raise ServiceUnavailableError, and what they say
    themselves. `providers` are those that there are; `now` is aware UTC."""

    store: LimitStore
    limiter: Limiter
    api_keys: ApiKeys
    providers: Collection[str]
    now: Callable[[], datetime]

    async def put(self, principal: Principal, asked: NewLimits) -> LimitRule:
        """In the place of what was set for the same before. Raises BadUserInputError, and NotFoundError for a key that
        the organisation does not have."""
        limited, name = _subject(asked.api_key, asked.model)
        _check(asked)
        if limited is Limited.MODEL and (provider := name.partition("/")[0]) not in self.providers:
            raise BadUserInputError(f"no provider named {provider!r}", path=("input", "model"))
        if asked.api_key is not None:
            await self.api_keys.get(principal, asked.api_key)
        now = self.now()
        rule = LimitRule(
            organisation=principal.organisation,
            limited=limited,
            name=name,
            requests_per_minute=asked.requests_per_minute,
            tokens_per_minute=asked.tokens_per_minute,
            usd_per_day=asked.usd_per_day,
            usd_per_month=asked.usd_per_month,
            streams=asked.streams,
            alert_at=_thresholds(asked),
            updated_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            updated_by=principal.subject,
        )
        with self._written(principal.organisation), _told():
            standing = {(each.limited, each.name): each for each in await self.store.of(principal.organisation)}
            if len(standing) >= MAX_RULES and (limited, name) not in standing:
                raise BadUserInputError(f"an organisation has at most {MAX_RULES} limited keys and models")
            if not any(_is_budget(each) for each in standing.values()):
                await self.limiter.nothing_lost(principal.organisation)
            if budgets := _begun_anew(rule, standing.get((limited, name)), now):
                await self.limiter.outdate(principal.organisation, budgets)
            await self.store.put(rule, audit=audit_of_limits(principal, Action.LIMITS_SET, name or limited.value))
        return rule

    async def remove(self, principal: Principal, api_key: str | None, model: str | None) -> tuple[Limited, str]:
        """What was limited is not any more. Raises BadUserInputError and NotFoundError."""
        limited, name = _subject(api_key, model)
        with self._written(principal.organisation), _told():
            audit = audit_of_limits(principal, Action.LIMITS_REMOVE, name or limited.value)
            if not await self.store.delete(principal.organisation, limited, name, audit=audit):
                raise NotFoundError("there is no such limit")
        return limited, name

    async def listed(self, principal: Principal) -> Sequence[LimitRule]:
        with _told():
            return await self.store.of(principal.organisation)

    async def states(self, principal: Principal, rules: Sequence[LimitRule]) -> Sequence[LimitState]:
        """How each limit of the rules stands."""
        asked = list(needs(rules, Most(1, 0, Decimal(0), ""), self.now()))
        used = await self.limiter.used(principal.organisation, asked)
        return [_state(need, each) for need, each in zip(asked, used, strict=True)]

    async def states_for(self, principal: Principal) -> Sequence[LimitState]:
        """How the limits stand that the principal's calls may meet: other keys' are not among them."""
        rules = await self.limiter.cache.rules(principal.organisation)
        mine = [rule for rule in rules if rule.limited is not Limited.API_KEY or rule.name == principal.key_id]
        return await self.states(principal, mine)

    @contextmanager
    def _written(self, organisation: str) -> Iterator[None]:
        """Whatever becomes of the write, what this process remembers is read anew."""
        try:
            yield
        finally:
            self.limiter.cache.outdate(organisation)


def _thresholds(asked: NewLimits) -> tuple[int, ...] | None:
    """Raises BadUserInputError."""
    if asked.alert_at is None:
        return None
    path = ("input", "alertAt")
    if asked.usd_per_day is None and asked.usd_per_month is None:
        raise BadUserInputError("alertAt is of a budget: say usdPerDay or usdPerMonth", path=path)
    if len(asked.alert_at) > MAX_THRESHOLDS or not all(1 <= each <= 100 for each in asked.alert_at):
        raise BadUserInputError(f"alertAt is at most {MAX_THRESHOLDS} numbers from 1 to 100", path=path)
    return tuple(sorted(set(asked.alert_at)))


def _subject(api_key: str | None, model: str | None) -> tuple[Limited, str]:
    if api_key is not None and model is not None:
        raise BadUserInputError("either an API key or a model, not both", path=("input", "model"))
    if api_key is not None:
        return Limited.API_KEY, api_key
    if model is None:
        return Limited.ORGANISATION, ""
    if MODEL_FORM.fullmatch(model) is None:
        raise BadUserInputError(
            f"{model[:60]!r}: a model is written provider/model, or provider/* for all of a provider's",
            path=("input", "model"),
        )
    return Limited.MODEL, model


def _check(asked: NewLimits) -> None:
    given = {measure: getattr(asked, measure) for measure in Measure}
    if all(value is None for value in given.values()):
        raise BadUserInputError("say at least one limit; removeLimits takes them away", path=("input",))
    for measure, value in given.items():
        if value is None:
            continue
        most = MAX_USD if measure in MONEY else MAX_TOKENS if measure is Measure.TOKENS else MAX_COUNT
        if not 0 <= value <= most:
            raise BadUserInputError(f"{_NAMES[measure]} is from 0 to {most}", path=("input", _NAMES[measure]))
        if isinstance(value, Decimal) and value != round(value, 9):
            raise BadUserInputError(f"{_NAMES[measure]} has at most 9 decimal places", path=("input", _NAMES[measure]))


def _begun_anew(rule: LimitRule, standing: LimitRule | None, now: datetime) -> Sequence[Need]:
    """Budgets that nothing was counted against until now, though they may have been set before."""
    budgets = budgets_of([rule], Decimal(0), now)
    return [need for need in budgets if standing is None or getattr(standing, need.measure) is None]


def _is_budget(rule: LimitRule) -> bool:
    return any(getattr(rule, measure) is not None for measure in MONEY)


def _state(need: Need, used: int) -> LimitState:
    is_money = need.asked.kind is Kind.BUDGET
    limit, taken = (usd(each) if is_money else Decimal(each) for each in (need.asked.limit, used))
    return LimitState(need.rule.limited, need.rule.name, need.measure, limit, taken, need.ends_at)


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors as the caller's."""
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the limits can't be reached at the moment") from error
