"""Attempts along one route, under one deadline: what every call to a vendor shares."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from persistence.ports import StoreUnavailableError
from providers.errors import ProviderError

from .errors import ConflictError, DomainError, ServiceUnavailableError
from .price_book import UNKNOWN_RULES, PriceBook
from .routing import Step
from .run import AttemptScope, Run, Services
from .running import Running

Answer = TypeVar("Answer")


class Follower(Protocol):
    """Who is told where a run goes."""

    def started(self, provider: str, model: str) -> None: ...
    def switched(self, provider: str, model: str, error_code: str) -> None: ...


async def prepare(run: Run) -> None:
    """What has to be known before an attempt; in the usual case it is, or is not needed. Raises ConflictError for a key
    of an earlier completion, ServiceUnavailableError, and CompletionFailedError when the deadline comes first."""
    key = run.command.idempotency_key
    if run.prices is not None and key is None:
        return
    organisation = run.principal.organisation
    holder = None
    try:
        async with asyncio.timeout(run.time_left_s()):
            if run.prices is None:
                run.prices = await _book(run.services, organisation)
            if key is not None:
                holder = await _holder(run, organisation, key)
    except TimeoutError:
        raise run.deadline_exceeded() from None
    if holder is not None:
        raise ConflictError(f"idempotencyKey {key!r} was used for {holder}, which runs elsewhere or has ended")


async def _holder(run: Run, organisation: str, key: str) -> str | None:
    """Who has used the key before. While the ledger is away, what the processes remember between them has to do; where
    they remember nothing, a key can't be taken."""
    ledger, keys = run.services.ledger, run.services.keys
    if keys is not None:
        run.may_hold_shared_key = True
        with suppress(StoreUnavailableError):
            holder = await keys.claim(organisation, key, run.id)
            if holder is not None or not ledger.readable:
                return holder
            with suppress(ServiceUnavailableError):  # the ledger has gone just now
                return await ledger.key_holder(organisation, key)
            return None
    return await ledger.key_holder(organisation, key)


@contextmanager
def claimed(run: Run) -> Iterator[None]:
    """Holds the run's idempotency key, if it has one; afterwards the key is free where nothing was sent for it. Raises
    ConflictError as `RunningCompletions.claim`."""
    organisation, key, keys = run.principal.organisation, run.command.idempotency_key, run.services.keys
    with run.services.running.claim(organisation, key, run.id):
        try:
            yield
        finally:
            if run.may_hold_shared_key and not run.entries and keys is not None and key is not None:
                keys.release(organisation, key, run.id)


async def _book(services: Services, organisation: str) -> PriceBook:
    """A store of prices that is away holds no completion up: it is booked without a cost, rather than a wrong one."""
    try:
        return await services.prices.book(organisation)
    except ServiceUnavailableError:
        return UNKNOWN_RULES


async def within_deadline(run: Run, work: Callable[[], Awaitable[Answer]], cut_short: Callable[[], Answer]) -> Answer:
    """Runs the attempts under the one deadline; returns, or raises, when every entry is committed. What `cut_short`
    makes of it is the end of a cancelled run; one that the process's end interrupts is SERVICE_UNAVAILABLE."""
    deadline = asyncio.timeout(run.time_left_s())
    run.running = running = Running(run.id, deadline, streamed=run.streamed)
    run.services.running.add(run.principal.organisation, running)
    try:
        async with deadline:
            try:
                answer = await work()
            finally:
                running.ended = True
    except TimeoutError:
        await run.settled()
        if running.interrupted:
            raise run.interrupted() from None
        if running.cancelled:
            return cut_short()
        if not running.timed_out:
            raise
        raise run.deadline_exceeded() from None
    except Exception:  # whatever it is, it is told when the attempts it leaves behind are committed
        await run.settled()
        raise
    else:
        await run.settled()
        return answer
    finally:
        run.services.running.remove(run.principal.organisation, running)


async def try_targets(
    run: Run, call: Callable[[AttemptScope], Awaitable[Answer]], follower: Follower | None = None
) -> Answer:
    """Attempts along the route until one answers. Raises CompletionFailedError, and as `Limiter.reserve` and
    `Upstream.take`."""
    step = run.route.first()
    if step is None:
        raise run.blocked()
    if follower:
        follower.started(step.target.provider, step.target.model)
    while True:
        if step.delay_s:
            run.upstream_s += step.delay_s
            await asyncio.sleep(step.delay_s)
        await _place(run, step)
        try:
            async with run.reserving(step) as opening:
                with run.attempt(step, opening) as scope:
                    return await call(scope)
        except ProviderError as error:
            committed = run.last is not None and run.last.first_token_ms is not None
            following = None if committed else run.route.after(error, time_left_s=run.time_left_s())
            if following is None:
                raise run.failure(error) from error
            if following.target != step.target:
                run.services.observer.switched(step.target, following.target, error.code)
                if follower:
                    follower.switched(following.target.provider, following.target.model, error.code)
            step = following
        finally:
            run.services.upstream.leave(run.principal.organisation)


async def _place(run: Run, step: Step) -> None:
    """One among all calls to vendors. Raises ServiceUnavailableError; CompletionFailedError where attempts were made
    before."""
    try:
        await run.services.upstream.take(run.principal.organisation)
    except BaseException as error:  # whatever it is: this may be the circuit's probe, and its place must be free
        run.services.circuits.undecided(step.circuit, run.route)
        if isinstance(error, DomainError) and run.entries:
            raise run.refused(error) from error
        raise
