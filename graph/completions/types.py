"""What completions answer with."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Self

import strawberry
from strawberry.scalars import JSON

from graph.cost import Cost
from graph.node import Node
from graph.scalars import BigInt
from providers import types as provider_types
from resolvers import history
from resolvers import types as domain


@strawberry.enum(description="Why the model stopped.")
class FinishReason(Enum):
    STOP = strawberry.enum_value("stop", description="It was done, or met one of the stop texts.")
    LENGTH = strawberry.enum_value("length", description="It reached maxTokens or the model's own limit.")
    TOOL_CALLS = strawberry.enum_value("tool_calls", description="It waits for the results of its tool calls.")
    CONTENT_FILTER = strawberry.enum_value("content_filter", description="The vendor's filter, or the model, refused.")
    CANCELLED = strawberry.enum_value("cancelled", description="cancelCompletion ended it; the content is partial.")
    OTHER = strawberry.enum_value("other", description="A reason that this API has no word for.")


@strawberry.enum(description="How an attempt ended, or a completion, which ends as its last attempt does.")
class Outcome(Enum):
    SUCCEEDED = strawberry.enum_value("succeeded", description="The vendor answered.")
    FAILED = strawberry.enum_value("failed", description="An error; errorCode says which.")
    CANCELLED = strawberry.enum_value("cancelled", description="The caller cancelled it or went away.")
    ABANDONED = strawberry.enum_value(
        "abandoned", description="The server process died meanwhile; booked, estimated, at the next start."
    )


@strawberry.enum(description="Where a cost comes from.")
class CostSource(Enum):
    PROVIDER = strawberry.enum_value("provider", description="The vendor stated what it charged.")
    PRICE_TABLE = strawberry.enum_value("price_table", description="Tokens times the published prices.")
    ORGANISATION = strawberry.enum_value(
        "organisation",
        description="Tokens times the organisation's own prices, or the published ones less its discount.",
    )
    CORRECTION = strawberry.enum_value("correction", description="The figure of whoever corrected it (correctUsage).")
    UNKNOWN = strawberry.enum_value("unknown", description="The model has no known price: the cost is null, not 0.")
    NOT_BILLED = strawberry.enum_value("not_billed", description="The vendor answered with errors, which cost nothing.")


@strawberry.type(description="Tokens by kind, and what they cost.")
class Usage:
    input_tokens: BigInt = strawberry.field(description="Everything the model read, cached tokens included.")
    output_tokens: BigInt = strawberry.field(description="Everything the model wrote, reasoning included.")
    cached_input_tokens: BigInt = strawberry.field(description="Of the input: read from the vendor's prompt cache.")
    cache_write_tokens: BigInt = strawberry.field(description="Of the input: written to the vendor's prompt cache.")
    reasoning_tokens: BigInt = strawberry.field(description="Of the output: spent on reasoning, where the vendor says.")
    cost: Decimal | None = strawberry.field(description="In USD, exact; null where no price is known.")
    cost_source: CostSource = strawberry.field(description="Where the cost comes from.")
    estimated: bool = strawberry.field(description="True where tokens are our estimate and not the vendor's count.")

    @classmethod
    def of(cls, usage: domain.TokenUsage) -> Self:
        return cls(
            input_tokens=BigInt(usage.input_tokens),
            output_tokens=BigInt(usage.output_tokens),
            cached_input_tokens=BigInt(usage.cached_input_tokens),
            cache_write_tokens=BigInt(usage.cache_write_tokens),
            reasoning_tokens=BigInt(usage.reasoning_tokens),
            cost=usage.cost,
            cost_source=CostSource(usage.cost_source.value),
            estimated=usage.estimated,
        )


@strawberry.type(description="One call to a vendor on the way to an answer.")
class Attempt:
    number: int = strawberry.field(description="Counts from 1, over retries and fallbacks.")
    provider: str = strawberry.field(description="The provider that was called.")
    model: str = strawberry.field(description="The vendor's name of the model.")
    outcome: Outcome = strawberry.field(description="How it ended.")
    error_code: str | None = strawberry.field(description="The code of its error; null where it answered.")
    latency_ms: int = strawberry.field(description="From sending to the end, in milliseconds.")
    time_to_first_token_ms: int | None = strawberry.field(
        description="From sending to the first delta of a stream, in milliseconds; null where none came."
    )
    usage: Usage = strawberry.field(description="Tokens and cost of this attempt alone.")
    price_version: str | None = strawberry.field(
        description="What its cost is by: the edition of the price table, the id of the organisation's price rule, or, "
        "under a discount, both with a + between them; null where neither was asked."
    )

    @classmethod
    def of(cls, attempt: domain.Attempt) -> Self:
        return cls(
            number=attempt.number,
            provider=attempt.provider,
            model=attempt.model,
            outcome=Outcome(attempt.outcome.value),
            error_code=attempt.error_code,
            latency_ms=attempt.latency_ms,
            time_to_first_token_ms=attempt.time_to_first_token_ms,
            usage=Usage.of(attempt.usage),
            price_version=attempt.price_version,
        )


@strawberry.type(description="A call of a tool that the model asks for.")
class ToolCall:
    id: strawberry.ID = strawberry.field(description="Names the call; its result is sent back with this toolCallId.")
    name: str = strawberry.field(description="The tool to call.")
    arguments: str = strawberry.field(description="JSON text, as the model wrote it: check it before use.")
    signature: str | None = strawberry.field(
        description="The vendor's, opaque: where there is one it must come back with the call in the next turn."
    )

    @classmethod
    def of(cls, call: provider_types.ToolCall) -> Self:
        return cls(id=strawberry.ID(call.id), name=call.name, arguments=call.arguments, signature=call.signature)


@strawberry.type(description="Reasoning that must come back in the next turn, as it is: MessageInput.reasoning.")
class ReasoningBlock:
    text: str = strawberry.field(description="What the vendor shows of it; may be empty.")
    signature: str = strawberry.field(description="The vendor's, opaque.")


@strawberry.type(description="What a passage of the answer rests on; null is what the vendor does not say.")
class Citation:
    url: str | None = strawberry.field(description="Where the source is.")
    title: str | None = strawberry.field(description="The source's title.")
    quote: str | None = strawberry.field(description="The passage of the source.")
    start: int | None = strawberry.field(description="Where the passage begins in `content`, in characters.")
    end: int | None = strawberry.field(description="Where it ends.")


@strawberry.type(description="A token that might have stood here.")
class LikelyToken:
    token: str = strawberry.field(description="Its text.")
    logprob: float = strawberry.field(description="The natural logarithm of its probability.")


@strawberry.type(description="A token of the answer.")
class TokenLogprob:
    token: str = strawberry.field(description="Its text.")
    logprob: float = strawberry.field(description="The natural logarithm of its probability.")
    likeliest: list[LikelyToken] = strawberry.field(
        description="The likeliest at its place, as many as were asked for."
    )

    @classmethod
    def of(cls, token: provider_types.TokenLogprob) -> Self:
        likeliest = [LikelyToken(token=text, logprob=logprob) for text, logprob in token.likeliest]
        return cls(token=token.token, logprob=token.logprob, likeliest=likeliest)


@strawberry.type(description="A model's whole answer.", directives=[Cost(weight=5)])
class Completion:
    id: strawberry.ID = strawberry.field(description="Sorts by time.")
    model: str = strawberry.field(description="The vendor's name of the model that answered.")
    provider: str = strawberry.field(description="The provider that answered.")
    content: str | None = strawberry.field(description="The text; null where the model only calls tools.")
    parsed: JSON | None = strawberry.field(
        description="The content's JSON, checked against responseFormat; null where none was asked for, or "
        "finishReason is not STOP."
    )
    reasoning: str | None = strawberry.field(description="The model's reasoning text, where the vendor shows it.")
    reasoning_blocks: list[ReasoningBlock] = strawberry.field(
        description="Reasoning that the vendor wants back in the next turn; empty where it wants none."
    )
    tool_calls: list[ToolCall] = strawberry.field(description="The calls that the model asks for, in its order.")
    citations: list[Citation] = strawberry.field(description="What the answer rests on, where the vendor says.")
    logprobs: list[TokenLogprob] | None = strawberry.field(description="Token by token; null where not asked for.")
    finish_reason: FinishReason = strawberry.field(description="Why the model stopped.")
    usage: Usage = strawberry.field(description="Tokens and cost, all attempts together.")
    latency_ms: int = strawberry.field(description="From the request to the whole answer, in milliseconds.")
    time_to_first_token_ms: int | None = strawberry.field(
        description="From the request to the first delta of a stream, in milliseconds; null where not streamed."
    )
    attempts: list[Attempt] = strawberry.field(description="Every call to a vendor, in order: retries and fallbacks.")
    cached: bool = strawberry.field(description="True where the answer came from the cache and no vendor was called.")
    created_at: datetime = strawberry.field(description="When the completion was asked for, UTC.")

    @classmethod
    def of(cls, completion: domain.Completion) -> Self:
        return cls(
            id=strawberry.ID(completion.id),
            model=completion.model,
            provider=completion.provider,
            content=completion.content,
            parsed=completion.parsed,
            reasoning=completion.reasoning,
            reasoning_blocks=[
                ReasoningBlock(text=each.text, signature=each.signature) for each in completion.reasoning_blocks
            ],
            citations=[
                Citation(url=each.url, title=each.title, quote=each.quote, start=each.start, end=each.end)
                for each in completion.citations
            ],
            logprobs=[TokenLogprob.of(each) for each in completion.logprobs] or None,
            tool_calls=[ToolCall.of(call) for call in completion.tool_calls],
            finish_reason=FinishReason(completion.finish_reason.value),
            usage=Usage.of(completion.usage),
            latency_ms=completion.latency_ms,
            time_to_first_token_ms=completion.time_to_first_token_ms,
            attempts=[Attempt.of(attempt) for attempt in completion.attempts],
            cached=completion.cached,
            created_at=completion.created_at,
        )


@strawberry.type(description="What cancelCompletion did.")
class CancelCompletionPayload:
    completion_id: strawberry.ID = strawberry.field(description="The completion that was named.")
    cancelled: bool = strawberry.field(description="False where it had already ended by itself.")


@strawberry.type(description="A label of one's own, to find and group completions by.")
class Label:
    name: str = strawberry.field(description="The label's name.")
    value: str = strawberry.field(description="Its value.")


@strawberry.type(description="A correction: what was added to an attempt's figures, or taken from them where negative.")
class Correction:
    number: int = strawberry.field(description="Counts from 1 in the completion.")
    attempt: int = strawberry.field(description="The attempt whose figures it corrects.")
    input_tokens: BigInt = strawberry.field(description="Added to the input.")
    output_tokens: BigInt = strawberry.field(description="Added to the output.")
    cached_input_tokens: BigInt = strawberry.field(description="Added to the input read from a cache.")
    cache_write_tokens: BigInt = strawberry.field(description="Added to the input written to a cache.")
    reasoning_tokens: BigInt = strawberry.field(description="Added to the output spent on reasoning.")
    cost: Decimal | None = strawberry.field(description="USD added; null where the cost was left as it stood.")
    note: str = strawberry.field(description="Why it was made.")
    by: str = strawberry.field(description="The subject of the token that made it.")
    at: datetime = strawberry.field(description="When it was made, UTC.")

    @classmethod
    def of(cls, correction: history.Correction) -> Self:
        return cls(
            number=correction.number,
            attempt=correction.attempt,
            input_tokens=BigInt(correction.input_tokens),
            output_tokens=BigInt(correction.output_tokens),
            cached_input_tokens=BigInt(correction.cached_input_tokens),
            cache_write_tokens=BigInt(correction.cache_write_tokens),
            reasoning_tokens=BigInt(correction.reasoning_tokens),
            cost=correction.cost,
            note=correction.note,
            by=correction.by,
            at=correction.at,
        )


@strawberry.type(description="A past completion as the ledger has it. Texts are not stored.")
class CompletionRecord(Node):
    id: strawberry.ID = strawberry.field(description="Sorts by time.")
    created_at: datetime = strawberry.field(description="When it was asked for, UTC.")
    provider: str = strawberry.field(description="The provider of the last attempt.")
    model: str = strawberry.field(description="The vendor's name of the model of the last attempt.")
    outcome: Outcome = strawberry.field(description="How it ended.")
    error_code: str | None = strawberry.field(description="The code of its error; null where it succeeded.")
    finish_reason: FinishReason | None = strawberry.field(description="Why the model stopped; null where it failed.")
    usage: Usage = strawberry.field(description="Tokens and cost, all attempts together.")
    latency_ms: int = strawberry.field(description="The time spent at vendors, in milliseconds, all attempts together.")
    time_to_first_token_ms: int | None = strawberry.field(
        description="Of the last attempt, in milliseconds; null where not streamed."
    )
    streamed: bool = strawberry.field(description="True for completionStream.")
    cached: bool = strawberry.field(description="True where no vendor was called.")
    organisation: str = strawberry.field(description="Whose it is: the organisation of the token that asked.")
    principal: str = strawberry.field(description="The subject of the token that asked.")
    end_user: str | None = strawberry.field(description="The caller's own name of the person it asked for.")
    idempotency_key: str | None = strawberry.field(description="The caller's own name of this completion.")
    config: str | None = strawberry.field(description="The config that it was asked for with; null where none was.")
    config_version: int | None = strawberry.field(description="Which version of the config; null where none was named.")
    labels: list[Label] = strawberry.field(description="As they were given.")
    attempts: list[Attempt] = strawberry.field(description="Every call to a vendor, in order, as it was booked.")
    corrections: list[Correction] = strawberry.field(
        description="What was corrected since, in order; `usage` has it in its sums."
    )


@strawberry.type(description="A completion and its place in the list.")
class CompletionRecordEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: CompletionRecord = strawberry.field(description="The completion.")


@strawberry.type(description="Where a page ends (Relay).")
class PageInfo:
    has_next_page: bool = strawberry.field(description="True where more come behind this page.")
    has_previous_page: bool = strawberry.field(description="True where the page was asked for with `after`.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first edge; null for an empty page.")
    end_cursor: str | None = strawberry.field(description="Cursor of the last edge; null for an empty page.")


@strawberry.type(description="A page of completions, newest first (Relay).")
class CompletionRecordConnection:
    edges: list[CompletionRecordEdge] = strawberry.field(description="The page.")
    nodes: list[CompletionRecord] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")
