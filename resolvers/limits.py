"""Limits at work: what a call may come to is reserved before it, and what it came to is settled after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial

import structlog

from persistence.entry_json import encoded
from persistence.limit_records import LimitRule
from persistence.ports import Leases, PriceStore, Reservations, StoreUnavailableError
from persistence.records import LedgerEntry
from persistence.reservation_records import Allowance, Kept, Refused, Settled

from . import booking
from .abandoned import Finder
from .allowances import (
    MONEY,
    Most,
    Need,
    budgets_of,
    came_to,
    divided,
    has_budget,
    leaving_room,
    needs,
    refusal,
)
from .beside import beside
from .bounds import most_tokens, most_usd
from .errors import DomainError, ServiceUnavailableError
from .holds import Call, Hold
from .leases import LEASE_S, Lease, LeaseKeeper, reservation_of
from .ledger import Ledger
from .limit_cache import LimitCache, Rules, counts_for
from .settling import Settlement, Settler, open_settler
from .taking import HELD_S, Outstanding, Taker

AT_ONCE = 40
"""Reservations that are made in the shared store at the same time."""

AWAY_S = 1.0
"""For so long after a failure the shared store is not asked by calls that can do without it."""

log = structlog.get_logger("limits")


@dataclass(frozen=True, slots=True)
class Shared:
    """What several processes count together, and by what each finds what another leaves. `prices`: what is found is
    booked by them."""

    reservations: Reservations
    leases: Leases
    prices: PriceStore


class Limiter:
    """Reserves and settles. Opened by `open_limiter`. `local`: what this process counts; `shared`: what several count
    together, None where there is one; `keeper`: of what this process has under way there.

    While the shared store is away, requests, tokens and streams are counted by this process, each limit divided by
    `share`; where a budget applies the call is refused. `now` is aware UTC, `clock` monotonic, in seconds.
    """

    def __init__(
        self,
        cache: LimitCache,
        settler: Settler,
        local: Reservations,
        shared: Shared | None,
        keeper: LeaseKeeper | None,
        taker: Taker,
        *,
        share: int,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self.cache = cache
        self._taker = taker
        self._settler = settler
        self._local = local
        self._shared = None if shared is None else shared.reservations
        self._leases = None if shared is None else shared.leases
        self._keeper = keeper
        self._share = share
        self._now = now
        self._clock = clock
        self._failed_at = -AWAY_S
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._counting: set[asyncio.Task[None]] = set()
        self.touched: Callable[[str, Reservations, Sequence[Need]], None] | None = None
        """Told of what was settled, and of what had no room."""

    async def reserve(self, call: Call) -> Hold | None:
        """None where nothing is limited, and no other process has to know of it. Raises RateLimitedError,
        BudgetExceededError, BadUserInputError where what the call may come to has no bound, ServiceUnavailableError
        where a budget can't be looked at."""
        organisation = call.principal.organisation
        rules = self.cache.at_hand(organisation)
        if rules is None:
            rules = await self.cache.rules(organisation)
        target = call.target
        asked = self._needs(rules.applying(call.principal.key_id, target.provider, target.model), call)
        if not asked:
            return None if self._keeper is None else self._held(call, (), None, self._kept(call, ()))
        if call.background:
            asked = leaving_room(asked)
        reserving = asyncio.ensure_future(self._reserve(call, asked))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(self._let_go)
            raise

    def settle(self, hold: Hold | None, entry: LedgerEntry | None, committed: asyncio.Future[None] | None) -> None:
        """What the attempt came to; None where it was never sent. Counted once its entry is committed."""
        if hold is None and (entry is None or self.cache.has_none(entry.organisation)):
            return
        if committed is None or committed.done():
            self._settle(hold, entry)
        else:
            committed.add_done_callback(lambda _: self._settle(hold, entry))

    def _settle(self, hold: Hold | None, entry: LedgerEntry | None) -> None:
        if entry is not None:
            self.settle_unreserved(entry, frozenset(need.asked.key for need in hold.needs) if hold else frozenset())
        if hold is not None:
            self._settle_held(hold, entry)

    def settle_unreserved(self, entry: LedgerEntry, reserved: frozenset[str]) -> None:
        """Against budgets that were set while the call ran: all but those whose keys are `reserved`."""
        if not entry.cost:
            return
        if (rules := self.cache.at_hand(entry.organisation)) is not None:
            self._count(rules, entry, reserved)
            return
        task = asyncio.create_task(self.count(entry, reserved), name="limits-count")
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    def _count(self, rules: Rules, entry: LedgerEntry, reserved: frozenset[str]) -> None:
        asked = [each for each in self._budgets(rules, entry) if each.asked.key not in reserved]
        if asked:
            amounts = [need.asked.amount for need in asked]
            self._tell(self._shared or self._local, asked, amounts, entry, name=_unreserved(entry))

    async def counted(self, entry: LedgerEntry) -> None:
        """By somebody else, who knows no rules. Raises ServiceUnavailableError."""
        if entry.cost:
            rules = await self.cache.rules(entry.organisation)
            self._touch(entry.organisation, self._shared or self._local, self._budgets(rules, entry))

    def _budgets(self, rules: Rules, entry: LedgerEntry) -> Sequence[Need]:
        """What its cost counts against."""
        applying = rules.applying(entry.principal, entry.provider, entry.model)  # as `counted_as` has it
        return budgets_of(applying, entry.cost, entry.time) if entry.cost else ()

    def _settle_held(self, hold: Hold, entry: LedgerEntry | None) -> None:
        truth = booking.unsent(hold.opening) if entry is None else entry
        if hold.lease is not None and self._keeper is not None:
            self._keeper.end(hold.lease)
        if hold.store is not None:
            amounts = [0 if entry is None else came_to(need.asked, entry) for need in hold.needs]
            self._tell(hold.store, hold.needs, amounts, truth, hold.settled)
        if self._shared is not None and hold.store is not self._shared and hold.lease is not None and hold.lease.told:
            self._tell(self._shared, (), (), truth)

    def _tell(
        self,
        store: Reservations,
        asked: Sequence[Need],
        amounts: Sequence[int],
        truth: LedgerEntry,
        done: asyncio.Future[None] | None = None,
        name: str | None = None,
    ) -> None:
        done = done or asyncio.get_running_loop().create_future()
        allowances = [need.asked for need in asked]
        counted = partial(self._touch, truth.organisation, store, asked)
        name = name or reservation_of(truth)
        self._settler.put(Settlement(store, truth.organisation, name, allowances, amounts, truth, done, counted))

    def _touch(self, organisation: str, store: Reservations, asked: Sequence[Need]) -> None:
        if self.touched is not None:
            self.touched(organisation, store, asked)

    async def count(self, entry: LedgerEntry, reserved: frozenset[str] = frozenset()) -> None:
        """What is booked beside any reservation, such as a correction: against the budgets of its day and month."""
        if entry.cost:
            self._count(await self.cache.rules(entry.organisation), entry, reserved)

    async def used(self, organisation: str, asked: Sequence[Need]) -> Sequence[int]:
        """How much of each is used. Raises ServiceUnavailableError."""
        store = self._shared or self._local
        try:
            found = await store.used(organisation, [need.asked for need in asked])
            if None not in found:
                return [each or 0 for each in found]
            for need, each in zip(asked, found, strict=True):
                if each is None:
                    await self._taker.begin(store, organisation, need)
            return [each or 0 for each in await store.used(organisation, [need.asked for need in asked])]
        except StoreUnavailableError as error:
            raise _unavailable("limits can't be looked at at the moment") from error

    async def hold(self, organisation: str, name: str, budgets: Sequence[Need]) -> tuple[Need, Refused] | None:
        """Reserved under that name until `release`, whatever becomes of this process; or what has no room. Who calls
        this has written it down for `Outstanding`. Raises ServiceUnavailableError."""
        store, kept = self._shared or self._local, Kept(name, "", [need.asked for need in budgets])
        try:
            return await self._taker.take(store, organisation, kept, budgets, HELD_S)
        except StoreUnavailableError as error:
            raise _unavailable("a USD budget applies, and can't be looked at at the moment") from error

    async def release(self, organisation: str, name: str, held: Sequence[Allowance]) -> None:
        """What `hold` has reserved; what it came to is counted by itself. May be repeated. Raises
        ServiceUnavailableError."""
        try:
            await (self._shared or self._local).settle(organisation, [Settled(name, held, [0] * len(held))])
        except StoreUnavailableError as error:
            raise _unavailable("a USD budget can't be looked at at the moment") from error

    async def count_all(self, organisation: str, entries: Sequence[LedgerEntry]) -> None:
        """As `count`, for entries of one organisation; counted when it returns. Raises ServiceUnavailableError."""
        rules = await self.cache.rules(organisation)
        settled, counted = [], list[Need]()
        for entry in entries:
            asked = self._budgets(rules, entry)
            allowances = [need.asked for need in asked]
            amounts = [each.amount for each in allowances]
            settled.append(Settled(_unreserved(entry), allowances, amounts))
            counted += asked
        if not counted:
            return
        store = self._shared or self._local
        try:
            await store.settle(organisation, settled)
        except StoreUnavailableError as error:
            raise _unavailable("a USD budget can't be looked at at the moment") from error
        self._touch(organisation, store, list({need.asked.key: need for need in counted}.values()))

    def _needs(self, rules: Sequence[LimitRule], call: Call) -> Sequence[Need]:
        """A budget is of the day and month that the ledger has the call in."""
        if not rules:
            return ()
        tokens, cost = self._most(rules, call)
        holder = call.opening.completion_id if call.opening.streamed else None
        asked: list[Need] = []
        for rule in rules:
            counted = any(counts_for(rule, each.provider, each.model) for each in call.earlier)
            asked += needs([rule], Most(int(not counted), tokens, cost, holder), call.opening.time)
        return asked

    def _most(self, rules: Sequence[LimitRule], call: Call) -> tuple[int, Decimal]:
        budgeted = any(getattr(rule, measure) is not None for rule in rules for measure in MONEY)
        if not budgeted and all(rule.tokens_per_minute is None for rule in rules):
            return 0, Decimal(0)
        tokens = most_tokens(call.command, call.input_size, call.target)
        if not budgeted:
            return sum(tokens), Decimal(0)
        return sum(tokens), most_usd(call.prices, call.command, call.target, tokens, call.opening.time)

    async def _reserve(self, call: Call, asked: Sequence[Need]) -> Hold:
        if self._shared is not None and (self._clock() >= self._failed_at + AWAY_S or has_budget(asked)):
            try:
                return await self._reserve_in_turn(self._shared, call, asked)
            except StoreUnavailableError as error:
                self._failed_at = self._clock()
                log.warning("limits are counted by this process alone", reason=str(error))
                self._tell(self._shared, asked, [0] * len(asked), booking.unsent(call.opening))  # it may have been had
                if has_budget(asked):
                    raise _unavailable("a USD budget applies, and can't be looked at at the moment") from error
        if self._shared is not None:
            asked = divided(asked, self._share)
        return await self._reserve_in(self._local, call, asked)

    async def _reserve_in_turn(self, store: Reservations, call: Call, asked: Sequence[Need]) -> Hold:
        """A crowd waits here, and is not taken for a store that does not answer; where it does not, the crowd is gone
        with the first. Once more, because an answer also comes late to a process that is busy: it is had once."""
        came_at = self._clock()
        async with self._turns:
            if self._failed_at > came_at:
                raise StoreUnavailableError("it did not answer others that came before")
            try:
                return await self._reserve_in(store, call, asked)
            except StoreUnavailableError:
                return await self._reserve_in(store, call, asked)

    async def _reserve_in(self, store: Reservations, call: Call, asked: Sequence[Need]) -> Hold:
        organisation, allowances = call.opening.organisation, [need.asked for need in asked]
        is_shared = store is self._shared
        kept = self._kept(call, allowances if is_shared else ())
        if is_shared and self._keeper is not None:
            await self._keeper.enrol(organisation)
        refused = await self._taker.take(store, organisation, replace(kept, asked=allowances), asked, LEASE_S)
        if refused is None:
            return self._held(call, asked, store, kept)
        self._touch(organisation, store, [refused[0]])
        raise refusal(*refused, self._now())

    def _kept(self, call: Call, asked: Sequence[Allowance]) -> Kept:
        note = "" if self._keeper is None else encoded(call.opening).decode()
        return Kept(reservation_of(call.opening), note, asked)

    def _held(self, call: Call, asked: Sequence[Need], store: Reservations | None, kept: Kept) -> Hold:
        lease = None
        if self._keeper is not None:
            lease = Lease(call.opening.organisation, kept, told=bool(kept.asked))
            self._keeper.begin(lease)
        return Hold(call.opening, asked, store, lease)

    async def outdate(self, organisation: str, budgets: Sequence[Need]) -> None:
        """Before they are set: what was spent meanwhile, the ledger says. Raises StoreUnavailableError."""
        await (self._shared or self._local).outdate(organisation, [need.asked for need in budgets])

    async def nothing_lost(self, organisation: str) -> None:
        """Before its first budget is set: nothing can be reserved from any."""
        if self._leases is not None:
            with suppress(StoreUnavailableError):  # at worst the first call waits
                await self._leases.nothing_lost(organisation)

    async def close(self) -> None:
        await self._taker.close()
        if self._counting:
            await asyncio.wait(self._counting)

    def _let_go(self, reserving: asyncio.Future[Hold]) -> None:
        """Its caller has gone meanwhile."""
        if not reserving.cancelled() and reserving.exception() is None:
            self.settle(reserving.result(), None, None)


@asynccontextmanager
async def open_limiter(
    cache: LimitCache,
    ledger: Ledger,
    local: Reservations,
    outstanding: Outstanding,
    shared: Shared | None = None,
    *,
    share: int,
    now: Callable[[], datetime],
    clock: Callable[[], float],
) -> AsyncIterator[Limiter]:
    order = asyncio.Lock()
    async with AsyncExitStack() as stack:
        keeper = finder = None
        if shared is not None:
            finder = Finder(shared.leases, shared.reservations, ledger, shared.prices)
            keeper = LeaseKeeper(shared.leases, shared.reservations, order, clock)
        settler = await stack.enter_async_context(open_settler(order, None if finder is None else finder.came_late))
        if keeper is not None and finder is not None:
            await stack.enter_async_context(beside("leases", keeper.prolong))
            await stack.enter_async_context(beside("leases-begun", keeper.tell))
            await stack.enter_async_context(beside("leases-left", finder.work))
        taker = Taker(ledger, outstanding)
        limiter = Limiter(cache, settler, local, shared, keeper, taker, share=share, now=now, clock=clock)
        if finder is not None:
            finder.unreserved = limiter.settle_unreserved
            finder.counted = limiter.counted
        try:
            yield limiter
        finally:
            await limiter.close()


def _unreserved(entry: LedgerEntry) -> str:
    """Another name than the reservation's, which is settled once."""
    return f"{reservation_of(entry)}/unreserved"


def _unavailable(message: str) -> DomainError:
    error = ServiceUnavailableError(message)
    error.retry_after_ms = round(AWAY_S * 1000)
    return error
