"""Completions: one answer, or a stream of it. Check → route → attempt → book → answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing

from persistence.ports import StoreUnavailableError
from providers.types import Finished, ProviderCompletion, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta

from .attempts import claimed, prepare, try_targets, within_deadline
from .checks import check_command
from .completion_run import CompletionRun
from .errors import CompletionFailedError, DomainError, NotFoundError, ServiceUnavailableError
from .mailbox import Mailbox
from .message_checks import check_addresses
from .observing import observed
from .permits import check_permitted
from .principal import Principal
from .run import AttemptScope, Services
from .siblings import Cancelled, Siblings
from .types import (
    CompleteCommand,
    Completion,
    CompletionEvent,
    CompletionFailed,
    CompletionFinished,
    CompletionRef,
    CompletionStarted,
    ProviderSwitched,
    ReasoningProduced,
    TextProduced,
    ToolCallProduced,
)


async def complete(
    services: Services, principal: Principal, command: CompleteCommand, *, background: bool = False
) -> Completion:
    """One whole answer, booked before it is returned. `background`: somebody has time; it leaves room for others.

    Raises CompletionFailedError, BadUserInputError, ConflictError or ServiceUnavailableError. When its task is
    cancelled the upstream connection closes, and what is known of the attempt is booked.
    """
    run = await _start(services, principal, command, streamed=False)
    run.background = background
    with observed(run), claimed(run):
        await prepare(run)
        answer = await within_deadline(run, lambda: try_targets(run, lambda scope: _call(run, scope)), run.cut_short)
        return run.answered(answer)


async def stream(
    services: Services, principal: Principal, command: CompleteCommand, *, detached: bool = False
) -> AsyncGenerator[CompletionEvent, None]:
    """The same as events: exactly one CompletionFinished or CompletionFailed at the end. They are kept for a while, for
    `resuming.resume`.

    Errors found before anything is sent are raised; later ones become CompletionFailed. Closing the generator closes
    the upstream connection, and what was produced is booked; a `detached` stream goes on instead.
    """
    run = await _start(services, principal, command, streamed=True)
    with ExitStack() as claim:
        with observed(run):
            claim.enter_context(claimed(run))
            await prepare(run)
        mailbox = Mailbox()
        writer = asyncio.create_task(_write(_Emitter(run, mailbox)))
        release = claim.pop_all().close
        if detached:
            services.recordings.end_with_key(principal, writer)
        writer.add_done_callback(lambda _: release())  # a reader cancelled twice is gone before its writer has booked
    try:
        async with aclosing(mailbox.events()) as events:
            async for event in events:
                yield event
        await writer
    finally:
        mailbox.abandon()
        if not (detached and services.recordings.adopt(principal.organisation, writer)):
            writer.cancel()
            await asyncio.wait([writer])


async def cancel(services: Services, principal: Principal, ref: CompletionRef) -> tuple[str, bool]:
    """Stops a running completion of the organisation, in whichever process it runs: (its id, True), or (its id, False)
    where it had already ended.

    Raises NotFoundError where the organisation has no such completion, ServiceUnavailableError where other processes
    can't be asked.
    """
    if (running := services.running.find(principal.organisation, ref)) is not None:
        return running.completion_id, running.cancel()
    if services.siblings is not None and (found := await _cancelled_elsewhere(services.siblings, principal, ref)):
        return found.completion_id, found.cancelled
    if ref.idempotency_key is not None:
        completion_id = await services.ledger.key_holder(principal.organisation, ref.idempotency_key)
    else:
        entries = await services.ledger.completion(principal.organisation, ref.id or "")
        completion_id = entries[0].completion_id if entries else None
    if completion_id is None:
        raise NotFoundError("no such completion")
    return completion_id, False


async def _cancelled_elsewhere(siblings: Siblings, principal: Principal, ref: CompletionRef) -> Cancelled | None:
    try:
        return await siblings.cancel(principal.organisation, ref)
    except StoreUnavailableError as error:
        raise ServiceUnavailableError(
            "it does not run in the process that was asked, and the others can't be reached at the moment"
        ) from error


async def _start(
    services: Services, principal: Principal, command: CompleteCommand, *, streamed: bool
) -> CompletionRun:
    vendors = await services.vendors_of(principal)
    check_command(command, vendors)
    check_addresses(command.messages, services.webhooks.outbound)
    check_permitted(principal, command)
    return CompletionRun(services, vendors, principal, command, streamed=streamed)


async def _call(run: CompletionRun, scope: AttemptScope) -> ProviderCompletion:
    vendor = scope.step.vendor
    answer = await vendor.provider.complete(
        run.request(scope.step.target), credentials=scope.step.key.credentials, transport=run.services.transport
    )
    scope.succeeded(answer)
    return answer


class _Emitter:
    """Numbers the source events of one stream, and hands them to its reader and to its recording."""

    def __init__(self, run: CompletionRun, mailbox: Mailbox) -> None:
        self.run = run
        self.mailbox = mailbox
        self.recording = run.services.recordings.recording(run.principal.organisation, run.principal.subject, run.id)
        self._sequence = 0

    def next(self) -> int:
        self._sequence += 1
        return self._sequence

    def put(self, event: CompletionEvent) -> None:
        self.mailbox.put(event)
        self.recording.put(event)

    def started(self, provider: str, model: str) -> None:
        self.put(CompletionStarted(self.run.id, self.next(), provider, model))

    def switched(self, provider: str, model: str, error_code: str) -> None:
        self.put(ProviderSwitched(self.run.id, self.next(), provider, model, error_code))

    def delta(self, event: StreamEvent) -> None:
        sequence = self.next()
        if isinstance(event, TextDelta):
            self.put(TextProduced(self.run.id, sequence, event.text))
        elif isinstance(event, ReasoningDelta):
            self.put(ReasoningProduced(self.run.id, sequence, event.text, event.signature))
        elif isinstance(event, ToolCallDelta):
            tool = event.index, event.id, event.name, event.arguments, event.signature
            self.put(ToolCallProduced(self.run.id, sequence, *tool))

    def ended(self, event: CompletionEvent) -> None:
        self.mailbox.put(event)
        self.recording.end(event)

    def left(self) -> None:
        """Its reader has gone, and it ends: whoever comes back is told what there was."""
        try:
            end = self.finished(self.run.cut_short())
        except CompletionFailedError as error:
            end = self.failed(error)
        self.recording.end_when(self.run.commits, end)

    def close(self) -> None:
        self.mailbox.close()
        self.recording.close()

    def finished(self, answer: ProviderCompletion) -> CompletionEvent:
        """Raises CompletionFailedError."""
        completion = self.run.answered(answer)
        return CompletionFinished(self.run.id, self.next(), completion)

    def failed(self, error: CompletionFailedError) -> CompletionEvent:
        return CompletionFailed(
            completion_id=self.run.id,
            sequence=self.next(),
            code=error.code,
            message=error.message,
            provider=error.provider,
            retryable=error.retryable,
            retry_after_ms=error.retry_after_ms,
            attempts=error.attempts,
            usage=error.usage,
            content=error.content,
            limit=error.limit,
        )


async def _write(emitter: _Emitter) -> None:
    """The writer's side of a stream. Its task is owned, and awaited, by `stream`; without a reader, by Recordings."""
    run = emitter.run
    try:
        with observed(run):
            answer = await within_deadline(
                run, lambda: try_targets(run, lambda scope: _relay(emitter, scope), emitter), run.cut_short
            )
            end = emitter.finished(answer)
        emitter.ended(end)
    except CompletionFailedError as error:
        emitter.ended(emitter.failed(error))
    except DomainError as error:
        emitter.ended(emitter.failed(run.refused(error)))
    except asyncio.CancelledError:
        emitter.left()
        raise
    finally:
        emitter.close()


async def _relay(emitter: _Emitter, scope: AttemptScope) -> ProviderCompletion:
    vendor = scope.step.vendor
    upstream = vendor.provider.stream(
        emitter.run.request(scope.step.target),
        credentials=scope.step.key.credentials,
        transport=emitter.run.services.transport,
    )
    async with aclosing(upstream):
        async for events in upstream:
            for event in events:
                scope.fold.add(event)
                if not isinstance(event, Finished):
                    scope.produced(event)
                emitter.delta(event)
            if emitter.mailbox.full:
                scope.held = True
                await emitter.mailbox.room()
    answer = scope.fold.completion()
    scope.succeeded(answer)
    return answer
