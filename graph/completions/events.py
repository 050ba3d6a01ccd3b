"""What a stream of tokens is made of."""

from __future__ import annotations

import strawberry

from graph.limits import LimitReached
from resolvers import types as domain

from .types import Attempt, Completion, Usage


@strawberry.interface(description="One event of a stream. It ends with CompletionFinished or CompletionFailed.")
class CompletionEvent:
    completion_id: strawberry.ID = strawberry.field(description="The completion that the event belongs to.")
    sequence: int = strawberry.field(
        description="The last source event that this one covers. It rises strictly; merged deltas skip numbers."
    )


@strawberry.type(description="The route is chosen and the first vendor is being called.")
class CompletionStarted(CompletionEvent):
    provider: str = strawberry.field(description="The provider called first.")
    model: str = strawberry.field(description="The vendor's name of the model.")


@strawberry.type(description="More of the answer's text.")
class TextDelta(CompletionEvent):
    text: str = strawberry.field(description="To be appended to the text so far.")


@strawberry.type(description="More of the model's reasoning text.")
class ReasoningDelta(CompletionEvent):
    text: str = strawberry.field(description="To be appended to the reasoning so far.")
    signature: str | None = strawberry.field(
        description="Closes a block of reasoning that must come back in the next turn: see Completion.reasoningBlocks."
    )


@strawberry.type(description="More of one tool call.")
class ToolCallDelta(CompletionEvent):
    index: int = strawberry.field(description="Which of the answer's tool calls, from 0.")
    id: strawberry.ID | None = strawberry.field(description="The call's id; with its first fragment only.")
    name: str | None = strawberry.field(description="The tool's name; with its first fragment only.")
    arguments: str = strawberry.field(description="To be appended to the call's JSON text so far.")
    signature: str | None = strawberry.field(description="As in Completion.toolCalls; with its first fragment only.")


@strawberry.type(description="A fallback: the target before it failed, and nothing of it was shown.")
class ProviderSwitched(CompletionEvent):
    provider: str = strawberry.field(description="The provider called now.")
    model: str = strawberry.field(description="The vendor's name of the model called now.")
    error_code: str = strawberry.field(description="Why the target before was left.")


@strawberry.type(description="The end: the whole answer, booked.")
class CompletionFinished(CompletionEvent):
    completion: Completion = strawberry.field(description="The deltas put together, with usage and attempts.")


@strawberry.type(description="The end: no whole answer. What was produced is booked.")
class CompletionFailed(CompletionEvent):
    code: str = strawberry.field(description="The error's code, as in `extensions.code`.")
    message: str = strawberry.field(description="For people.")
    provider: str | None = strawberry.field(description="The provider that failed last, where one did.")
    retryable: bool = strawberry.field(description="True where the same call may succeed later.")
    retry_after_ms: int | None = strawberry.field(
        description="How long to wait, in milliseconds: what the vendor asked for, or until a limit has room."
    )
    limit: LimitReached | None = strawberry.field(
        description="For RATE_LIMITED and BUDGET_EXCEEDED of a limit that is set: which, and how it stood."
    )
    attempts: list[Attempt] = strawberry.field(description="Every call to a vendor, in order.")
    usage: Usage = strawberry.field(description="What the attempts cost all the same.")
    content: str | None = strawberry.field(
        description="The whole answer, where one came and was not what responseFormat asks for."
    )


EVENT_TYPES = (
    CompletionStarted,
    TextDelta,
    ReasoningDelta,
    ToolCallDelta,
    ProviderSwitched,
    CompletionFinished,
    CompletionFailed,
)


def event_of(event: domain.CompletionEvent) -> CompletionEvent:
    """The GraphQL event for one of the domain's. Text first: nearly every event is one."""
    completion_id = strawberry.ID(event.completion_id)
    sequence = event.sequence
    match event:
        case domain.TextProduced(text=text):
            return TextDelta(completion_id=completion_id, sequence=sequence, text=text)
        case domain.ReasoningProduced(text=text, signature=signature):
            return ReasoningDelta(completion_id=completion_id, sequence=sequence, text=text, signature=signature)
        case domain.ToolCallProduced(index=index, id=call_id, name=name, arguments=arguments, signature=signature):
            return ToolCallDelta(
                completion_id=completion_id,
                sequence=sequence,
                index=index,
                id=None if call_id is None else strawberry.ID(call_id),
                name=name,
                arguments=arguments,
                signature=signature,
            )
        case domain.CompletionStarted(provider=provider, model=model):
            return CompletionStarted(completion_id=completion_id, sequence=sequence, provider=provider, model=model)
        case domain.ProviderSwitched(provider=provider, model=model, error_code=code):
            return ProviderSwitched(
                completion_id=completion_id, sequence=sequence, provider=provider, model=model, error_code=code
            )
        case domain.CompletionFinished(completion=completion):
            return CompletionFinished(
                completion_id=completion_id, sequence=sequence, completion=Completion.of(completion)
            )
        case domain.CompletionFailed():
            return _failed(event)


def _failed(event: domain.CompletionFailed) -> CompletionFailed:
    return CompletionFailed(
        completion_id=strawberry.ID(event.completion_id),
        sequence=event.sequence,
        code=event.code,
        message=event.message,
        provider=event.provider,
        retryable=event.retryable,
        retry_after_ms=event.retry_after_ms,
        limit=None if event.limit is None else LimitReached.of(event.limit),
        attempts=[Attempt.of(attempt) for attempt in event.attempts],
        usage=Usage.of(event.usage),
        content=event.content,
    )
