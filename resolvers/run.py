"""What is asked of vendors, on its way: its id, its route, its attempts and what of them is booked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from persistence.records import LedgerEntry
from providers.errors import ProviderError, ProviderTimeoutError, UnsendableRequestError
from providers.fold import Fold
from providers.ports import Dispatch, Transport, current_dispatch
from providers.types import ReasoningDelta, StreamEvent

from . import booking
from .alert_feed import AlertFeed
from .api_keys import ApiKeys
from .batches.cases import Batches
from .bounds import most_output
from .configs import Configs
from .errors import CompletionFailedError, DomainError, LimitDetail, LimitError
from .health import Health
from .holds import Call, Hold
from .ids import new_completion_id
from .ledger import Ledger
from .limit_rules import LimitRules
from .limits import Limiter
from .live_usage import LiveUsage
from .observing import UNOBSERVED, Observer
from .prices import Prices
from .principal import Principal
from .provider_keys import ProviderKeys
from .recordings import Recordings
from .routing import Circuits, Route, Step, Vendor, rest_asked, tells_of_illness
from .running import Running, RunningCompletions
from .shared_keys import SharedKeys
from .siblings import Siblings
from .tokens import TokenMaker
from .types import Command, Target
from .unseen import Sight, read_tokens, written_tokens
from .upstream import Upstream
from .usage_links import UsageLinks
from .webhooks import Webhooks

DEFAULT_TIMEOUT_MS = 120_000
MAX_INT = 2**31 - 1  # GraphQL's Int; a vendor may ask to wait for longer
COUNTING_S = 2.0  # for so long an answer waits until it is counted against its limits


@dataclass(frozen=True, slots=True)
class Services:
    """What the completion use cases work with. `clock` is monotonic, in seconds; `random` is in [0, 1)."""

    vendors: Mapping[str, Vendor]
    transport: Transport
    upstream: Upstream
    ledger: Ledger
    configs: Configs
    prices: Prices
    circuits: Circuits
    health: Health
    running: RunningCompletions
    live_usage: LiveUsage
    usage_links: UsageLinks
    api_keys: ApiKeys
    tokens: TokenMaker
    provider_keys: ProviderKeys
    limits: Limiter
    limit_rules: LimitRules
    recordings: Recordings
    webhooks: Webhooks
    alerts: AlertFeed
    batches: Batches
    clock: Callable[[], float]
    random: Callable[[], float]
    siblings: Siblings | None = None  # this and the next, where there are other processes
    keys: SharedKeys | None = None
    observer: Observer = UNOBSERVED

    async def vendors_of(self, principal: Principal) -> Mapping[str, Vendor]:
        """What the organisation's calls go to: by its own keys, where it has such. Raises ServiceUnavailableError."""
        return await self.provider_keys.vendors(principal.organisation, self.vendors)


class Run:
    """The state of one completion, or of one call for embeddings. `running` is set while its attempts are made;
    `prices` are there before the first, from the beginning where they are at hand. `input_size` is in bytes.
    `upstream_s`: for how long it was at vendors, or waited before another try."""

    operation = "chat"

    def __init__(
        self,
        services: Services,
        vendors: Mapping[str, Vendor],
        principal: Principal,
        command: Command,
        input_size: int,
        *,
        streamed: bool,
    ) -> None:
        self.id, self.created_at = new_completion_id()
        self.services = services
        self.principal = principal
        self.command = command
        self.input_size = input_size
        self.streamed = streamed
        self.background = False
        self.timeout_s = (command.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
        self.route = Route((command.target, *command.fallbacks), vendors, services.circuits, services.random)
        self.prices = services.prices.cache.at_hand(principal.organisation)
        self.running: Running | None = None
        self.may_hold_shared_key = False
        self.attempts_begun = 0
        self.last: AttemptScope | None = None
        self.first_token_ms: int | None = None
        self.answer: booking.Answer | None = None
        self.upstream_s = 0.0
        self._started = services.clock()
        self._entries: list[LedgerEntry] = []
        self._commits: list[asyncio.Future[None]] = []
        self._holds: list[Hold] = []
        self._targets: set[Target] = set()

    def elapsed_s(self) -> float:
        return self.services.clock() - self._started

    def elapsed_ms(self) -> int:
        return round(self.elapsed_s() * 1000)

    def time_left_s(self) -> float:
        return self.timeout_s - self.elapsed_s()

    def attempt(self, step: Step, opening: LedgerEntry) -> AttemptScope:
        self.last = AttemptScope(self, step, opening)
        return self.last

    def book(self, entry: LedgerEntry) -> None:
        self._entries.append(entry)
        self._commits.append(self.services.ledger.book(entry))
        self.services.observer.attempted(entry, self.operation)

    def produced(self) -> booking.Answer | None:
        """The answer, or what there is of it."""
        return self.answer or (None if self.last is None else self.last.fold.completion())

    async def settled(self) -> None:
        """Returns when every entry of this completion is committed, and counted where that takes no longer than
        COUNTING_S. Raises ServiceUnavailableError."""
        for commit in self._commits:
            await commit  # cancelled with its waiter, the entry is committed all the same
        await self._counted()

    @asynccontextmanager
    async def reserving(self, step: Step) -> AsyncIterator[LedgerEntry]:
        """The entry that the attempt opens with; meanwhile what it may come to is held, if that is limited. Raises as
        `Limiter.reserve`, and CompletionFailedError where attempts were made before."""
        try:
            await self._counted()
            opening = self._opening(step)
            hold = await self.services.limits.reserve(self._call(step, opening))
        except BaseException as error:  # whatever it is: this may be the circuit's probe, and its place must be free
            self.services.circuits.undecided(step.circuit, self.route)
            if isinstance(error, DomainError) and self._entries:
                raise self.refused(error) from error
            raise
        booked = len(self._entries)
        try:
            yield opening
        finally:
            self._targets.add(step.target)
            if hold is not None and hold.needs:
                self._holds.append(hold)
            sent = len(self._entries) > booked
            entry, commit = (self._entries[-1], self._commits[-1]) if sent else (None, None)
            self.services.limits.settle(hold, entry, commit)

    def _opening(self, step: Step) -> LedgerEntry:
        return booking.opening_entry(
            principal=self.principal,
            command=self.command,
            completion_id=self.id,
            created_at=self.created_at,
            attempt=self.attempts_begun + 1,
            target=step.target,
            input_size=self.input_size,
            streamed=self.streamed,
        )

    def _call(self, step: Step, opening: LedgerEntry) -> Call:
        assert self.prices is not None  # noqa: S101  # no vendor is called before it is known what that costs
        return Call(
            principal=self.principal,
            command=self.command,
            target=step.target,
            input_size=self.input_size,
            opening=opening,
            background=self.background,
            prices=self.prices,
            earlier=frozenset(self._targets),
        )

    async def _counted(self) -> None:
        """So that a caller who has its answer finds room for the next."""
        waiting = [hold.settled for hold in self._holds]
        self._holds.clear()
        if waiting:
            await asyncio.wait(waiting, timeout=COUNTING_S)

    @property
    def commits(self) -> Sequence[asyncio.Future[None]]:
        """One for each of the entries."""
        return self._commits

    @property
    def entries(self) -> Sequence[LedgerEntry]:
        """What is booked so far, in the attempts' order."""
        return self._entries

    def told_by(self) -> Target:
        """Who was asked last."""
        last = self._entries[-1] if self._entries else None
        return self.command.target if last is None else Target(last.provider, last.model)

    def failure(self, error: ProviderError) -> CompletionFailedError:
        wait = error.retry_after
        return self.failed(
            error.message,
            code=error.code,
            provider=error.provider,
            retryable=error.retryable,
            retry_after_ms=None if wait is None else min(round(wait * 1000), MAX_INT),
        )

    def deadline_exceeded(self) -> CompletionFailedError:
        count = len(self._entries)
        return self.failed(
            f"no answer within {round(self.timeout_s * 1000)} ms ({count} {'attempt' if count == 1 else 'attempts'})",
            code="DEADLINE_EXCEEDED",
            provider=self._entries[-1].provider if self._entries else None,
            retryable=True,
        )

    def interrupted(self) -> CompletionFailedError:
        """The process ends, and has waited as long as it may."""
        return self.failed(
            "the server is shutting down: ask again",
            code="SERVICE_UNAVAILABLE",
            provider=self._entries[-1].provider if self._entries else None,
            retryable=True,
        )

    def blocked(self) -> CompletionFailedError:
        """Every target's circuit is open: no vendor was called."""
        target, wait_s = self.route.blocked or (self.command.target, 0.0)
        return self.failed(
            f"{target} has been failing and is left alone for a moment",
            code="PROVIDER_UNAVAILABLE",
            provider=target.provider,
            retryable=True,
            retry_after_ms=round(wait_s * 1000),
        )

    def refused(self, error: DomainError) -> CompletionFailedError:
        """An error of our own, such as a ledger that can't be written, told as this completion's failure."""
        return self.failed(
            error.message,
            code=error.code,
            provider=None,
            retryable=error.retryable,
            retry_after_ms=error.retry_after_ms,
            limit=error.detail if isinstance(error, LimitError) else None,
        )

    def failed(
        self,
        message: str,
        *,
        code: str,
        provider: str | None,
        retryable: bool,
        retry_after_ms: int | None = None,
        content: str | None = None,
        limit: LimitDetail | None = None,
    ) -> CompletionFailedError:
        return CompletionFailedError(
            message,
            code=code,
            completion_id=self.id,
            attempts=tuple(booking.attempt_of(entry) for entry in self._entries),
            usage=booking.total_usage(self._entries),
            provider=provider,
            retryable=retryable,
            retry_after_ms=retry_after_ms,
            content=content,
            limit=limit,
        )


class AttemptScope:
    """One call to a vendor: noted before it is sent, booked whatever its end, its circuit told."""

    def __init__(self, run: Run, step: Step, opening: LedgerEntry) -> None:
        assert run.prices is not None  # noqa: S101  # no vendor is called before it is known what that costs
        self.step = step
        self.fold = Fold()
        self.first_token_ms: int | None = None
        self.held = False
        self._thinking_ms: int | None = None
        self._run = run
        self._entry = opening
        self._prices = run.prices
        self._dispatch = Dispatch()
        self._started = run.services.clock()

    def __enter__(self) -> Self:
        """Raises ServiceUnavailableError before any vendor is called, when the attempt can't be noted."""
        run = self._run
        current_dispatch.set(self._dispatch)
        try:
            run.services.ledger.begin(self._entry)
        except BaseException:  # whatever it is: this may be the circuit's probe, and its place must become free
            run.services.circuits.undecided(self.step.circuit, run.route)
            raise
        run.attempts_begun += 1
        return self

    def produced(self, event: StreamEvent) -> None:
        """A delta: from the first one on there is no second try."""
        if self.first_token_ms is None:
            self.first_token_ms = self._elapsed_ms()
            self._run.first_token_ms = self._run.elapsed_ms()
        if self._thinking_ms is None and not isinstance(event, ReasoningDelta):
            self._thinking_ms = self._elapsed_ms()

    def succeeded(self, answer: booking.Answer) -> None:
        latency_ms = self._elapsed_ms()
        self._run.services.circuits.succeeded(self.step.circuit)
        self.step.vendor.keys.worked(self.step.key)
        self._run.services.health.attempted(self.step.target.provider, latency_ms, failed=False)
        self._run.book(
            booking.succeeded(
                self._entry,
                answer,
                prices=self._prices,
                most_output=most_output(self._run.command, self.step.target),
                latency_ms=latency_ms,
                first_token_ms=self.first_token_ms,
            )
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run.upstream_s += self._run.services.clock() - self._started
        if error is None:
            return
        circuits = self._run.services.circuits
        if isinstance(error, ProviderError) and tells_of_illness(error):
            circuits.failed(self.step.circuit, self._run.route, rest_asked(error))
            self._run.services.health.attempted(self.step.target.provider, self._elapsed_ms(), failed=True)
        else:
            circuits.undecided(self.step.circuit, self._run.route)
        if isinstance(error, UnsendableRequestError):
            self._run.services.ledger.forget(self._entry)
        elif isinstance(error, ProviderError):
            fragment = self._fragment(left=isinstance(error, ProviderTimeoutError) and error.vendor_code is None)
            self._run.book(booking.failed(self._entry, error, fragment, prices=self._prices))
        else:
            self._book_interrupted(error)

    def _book_interrupted(self, error: BaseException) -> None:
        running = self._run.running
        code = "INTERNAL"  # a defect of ours: the vendor was called all the same
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            code = "DEADLINE_EXCEEDED" if running is not None and running.timed_out else ""
        self._run.book(
            booking.interrupted(
                self._entry,
                self._fragment(left=True),
                error_code=code or None,
                prices=self._prices,
                sent=not self._dispatch.waiting,
            )
        )

    def _fragment(self, *, left: bool) -> booking.Fragment:
        elapsed_ms = self._elapsed_ms()
        thinking_ms = elapsed_ms if self._thinking_ms is None else self._thinking_ms
        sight = Sight(self._run.streamed, elapsed_ms, thinking_ms, self.held, left)
        command, target = self._run.command, self.step.target
        read = read_tokens(command, target, self._run.input_size, left=left)
        written = written_tokens(command, target, self.fold, sight)
        return booking.Fragment(self.fold, read, written, elapsed_ms, self.first_token_ms)

    def _elapsed_ms(self) -> int:
        return round((self._run.services.clock() - self._started) * 1000)
