"""Limits at work: what a call may come to is reserved before it, and what it came to is settled after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import structlog

from persistence.limit_records import LimitRule
from persistence.ports import Reservations, StoreUnavailableError
from persistence.records import LedgerEntry
from persistence.reservation_records import Allowance, Kind, Refused, Unbegun
from persistence.usage_records import UsageSelection

from .allowances import MONEY, Measure, Most, Need, applies, counted_as, needs, refusal, units
from .bounds import most_cost, most_input, most_output
from .errors import BadUserInputError, DomainError, ServiceUnavailableError
from .ledger import Ledger
from .limit_cache import LimitCache
from .price_book import PriceBook
from .principal import Principal
from .settling import Settlement, Settler, open_settler
from .types import Command, Target

LEASE_S = 60.0
AWAY_S = 1.0
"""For so long after a failure the shared store is not asked by calls that can do without it."""

log = structlog.get_logger("limits")


@dataclass(slots=True)
class Hold:
    """What is reserved for one attempt."""

    organisation: str
    reservation: str
    needs: Sequence[Need]
    store: Reservations
    settled: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Call:
    """The attempt that is to be made. `first`: the completion's first at this target counts as a request, the first of
    all as the organisation's and the key's."""

    principal: Principal
    command: Command
    target: Target
    input_size: int
    streamed: bool
    completion_id: str
    attempt: int
    prices: PriceBook
    first: bool
    first_at_target: bool


class Limiter:
    """Reserves and settles. Opened by `open_limiter`. `local`: what this process counts; `shared`: what several count
    together, None where there is one.

    While the shared store is away, requests, tokens and streams are counted by this process, each limit divided by
    `share`; where a budget applies the call is refused. `now` is aware UTC, `clock` monotonic, in seconds.
    """

    def __init__(
        self,
        cache: LimitCache,
        ledger: Ledger,
        settler: Settler,
        local: Reservations,
        shared: Reservations | None = None,
        *,
        share: int,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self.cache = cache
        self._ledger = ledger
        self._settler = settler
        self._local = local
        self._shared = shared
        self._share = share
        self._now = now
        self._clock = clock
        self._away_until = 0.0
        self._beginning: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def reserve(self, call: Call) -> Hold | None:
        """None where nothing is limited. Raises RateLimitedError, BudgetExceededError, BadUserInputError where what the
        call may come to has no bound, ServiceUnavailableError where a budget can't be looked at."""
        organisation = call.principal.organisation
        rules = self.cache.at_hand(organisation)
        if rules is None:
            rules = await self.cache.rules(organisation)
        if not rules:
            return None
        now = self._now()
        asked = self._needs([rule for rule in rules if applies(rule, call.principal, call.target)], call, now)
        if not asked:
            return None
        reservation = f"{call.completion_id}/{call.attempt}"
        reserving = asyncio.ensure_future(self._reserve(organisation, reservation, asked, now))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(self._let_go)
            raise

    def settle(self, hold: Hold, entry: LedgerEntry | None, committed: asyncio.Future[None] | None) -> None:
        """What the attempt came to; None where it was never sent. Counted once its entry is committed."""
        amounts = [_came_to(need, entry) for need in hold.needs]
        asked = [need.asked for need in hold.needs]
        settlement = Settlement(hold.store, hold.organisation, hold.reservation, asked, amounts, hold.settled)
        if committed is None or committed.done():
            self._settler.put(settlement)
        else:
            committed.add_done_callback(lambda _: self._settler.put(settlement))

    async def used(self, organisation: str, asked: Sequence[Need]) -> Sequence[int]:
        """How much of each is used. Raises ServiceUnavailableError."""
        store = self._shared or self._local
        try:
            found = await store.used(organisation, [need.asked for need in asked])
            if None not in found:
                return [each or 0 for each in found]
            for need, each in zip(asked, found, strict=True):
                if each is None:
                    await self._begin(store, organisation, need)
            return [each or 0 for each in await store.used(organisation, [need.asked for need in asked])]
        except StoreUnavailableError as error:
            raise _unavailable("limits can't be looked at at the moment") from error

    def _needs(self, rules: Sequence[LimitRule], call: Call, now: datetime) -> Sequence[Need]:
        if not rules:
            return ()
        tokens, cost = self._most(rules, call, now)
        holder = call.completion_id if call.streamed else None
        asked: list[Need] = []
        for rule in rules:
            counts = call.first_at_target if rule.limited == "model" else call.first
            asked += needs([rule], Most(int(counts), tokens, cost, holder), now)
        return asked

    def _most(self, rules: Sequence[LimitRule], call: Call, now: datetime) -> tuple[int, Decimal]:
        budgeted = any(getattr(rule, measure) is not None for rule in rules for measure in MONEY)
        if not budgeted and all(rule.tokens_per_minute is None for rule in rules):
            return 0, Decimal(0)
        most_in = most_input(call.command, call.input_size, call.target)
        most_out = most_output(call.command, call.target)
        if most_out is None:
            raise BadUserInputError(
                f"how much {call.target} writes at most is not known, and a limit of tokens or USD applies: "
                "give maxTokens",
                path=("input", "maxTokens"),
            )
        if not budgeted:
            return most_in + most_out, Decimal(0)
        if call.command.provider_options.get(call.target.provider):
            raise BadUserInputError(
                "a call under a USD budget takes no providerOptions: they may make it dearer than what is reserved",
                path=("input", "providerOptions"),
            )
        cost = most_cost(call.prices, call.target, (most_in, most_out), now)
        if cost is None:
            raise BadUserInputError(
                f"{call.target} has no known price, and a USD budget applies: set a price for it, or use another model",
                path=("input", "model"),
            )
        return most_in + most_out, cost

    async def _reserve(self, organisation: str, reservation: str, asked: Sequence[Need], now: datetime) -> Hold:
        if self._shared is not None and (self._clock() >= self._away_until or _has_budget(asked)):
            try:
                return await self._reserve_in(self._shared, organisation, reservation, asked, now)
            except StoreUnavailableError as error:
                self._away_until = self._clock() + AWAY_S
                log.warning("limits are counted by this process alone", reason=str(error))
                if _has_budget(asked):
                    raise _unavailable("a USD budget applies, and can't be looked at at the moment") from error
        if self._shared is not None:
            asked = [replace(need, asked=_divided(need.asked, self._share)) for need in asked]
        return await self._reserve_in(self._local, organisation, reservation, asked, now)

    async def _reserve_in(
        self, store: Reservations, organisation: str, reservation: str, asked: Sequence[Need], now: datetime
    ) -> Hold:
        by_key = {need.asked.key: need for need in asked}
        while True:
            answer = await store.reserve(organisation, reservation, [need.asked for need in asked], lease_s=LEASE_S)
            if answer is None:
                return Hold(organisation, reservation, asked, store)
            need = by_key[answer.allowance.key]
            if isinstance(answer, Refused):
                raise refusal(need, answer, now)
            assert isinstance(answer, Unbegun)  # noqa: S101  # there is no fourth
            await self._begin(store, organisation, need)

    async def _begin(self, store: Reservations, organisation: str, need: Need) -> None:
        """All that ask at once wait for one and the same look at the ledger."""
        name = organisation, need.asked.key
        beginning = self._beginning.get(name)
        if beginning is None:
            beginning = self._beginning[name] = asyncio.create_task(
                self._begin_by_ledger(store, organisation, need), name="budget-begin"
            )
            beginning.add_done_callback(lambda task: self._begun(name, task))
        await asyncio.shield(beginning)

    async def _begin_by_ledger(self, store: Reservations, organisation: str, need: Need) -> None:
        assert need.begun_at is not None  # noqa: S101  # a budget has a period
        await store.open(organisation, need.asked)
        until = datetime.now(UTC) + timedelta(days=1)
        selection = UsageSelection([(need.begun_at, until)], where=counted_as(need.rule))
        cells = await self._ledger.usage(organisation, selection)
        spent = sum((cell.sums.cost for cell in cells), Decimal(0))
        await store.begin(organisation, need.asked, max(0, units(spent)))

    def _begun(self, name: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._beginning.pop(name, None)
        if not task.cancelled():
            task.exception()  # seen: whoever waited for it may be gone

    async def close(self) -> None:
        tasks = list(self._beginning.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _let_go(self, reserving: asyncio.Future[Hold]) -> None:
        """Its caller has gone meanwhile."""
        if not reserving.cancelled() and reserving.exception() is None:
            self.settle(reserving.result(), None, None)


@asynccontextmanager
async def open_limiter(
    cache: LimitCache,
    ledger: Ledger,
    local: Reservations,
    shared: Reservations | None = None,
    *,
    share: int,
    now: Callable[[], datetime],
    clock: Callable[[], float],
) -> AsyncIterator[Limiter]:
    async with open_settler() as settler:
        limiter = Limiter(cache, ledger, settler, local, shared, share=share, now=now, clock=clock)
        try:
            yield limiter
        finally:
            await limiter.close()


def _has_budget(asked: Sequence[Need]) -> bool:
    return any(need.asked.kind is Kind.BUDGET for need in asked)


def _divided(asked: Allowance, share: int) -> Allowance:
    return replace(asked, limit=max(1, asked.limit // share) if asked.limit else 0)


def _came_to(need: Need, entry: LedgerEntry | None) -> int:
    """Where the cost is not known, it may have been all that was reserved."""
    if entry is None or need.measure is Measure.STREAMS:
        return 0
    if need.measure is Measure.TOKENS:
        return entry.input_tokens + entry.output_tokens
    if need.measure in MONEY and entry.cost is not None:
        return units(entry.cost)
    return need.asked.amount


def _unavailable(message: str) -> DomainError:
    error = ServiceUnavailableError(message)
    error.retry_after_ms = round(AWAY_S * 1000)
    return error
