"""Corrections of the ledger: the mutation. What they look like is with the completion's record."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import strawberry

from graph.completions.fields import record_of
from graph.completions.types import CompletionRecord
from graph.context import GraphInfo
from graph.inputs import planned
from graph.scalars import BigInt
from graph.scopes import Guarded
from resolvers import corrections
from resolvers.principal import Scope


@planned
@strawberry.input(
    description="What an attempt's figures should have been: whole figures, not what to add. What is absent stays as "
    "it stands. Where tokens are given, the attempt counts as measured, no longer as estimated."
)
class CorrectUsageInput:
    completion_id: strawberry.ID = strawberry.field(description="The completion.")
    attempt: int = strawberry.field(description="The number of its attempt, as in `attempts`.")
    note: str = strawberry.field(description="Why: for people, such as an invoice's number. Up to 1000 characters.")
    input_tokens: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="Everything the model read, cached tokens included."
    )
    output_tokens: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="Everything the model wrote, reasoning included."
    )
    cached_input_tokens: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="Input read from the vendor's prompt cache."
    )
    cache_write_tokens: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="Input written to the vendor's prompt cache."
    )
    reasoning_tokens: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="Output spent on reasoning."
    )
    cost: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="USD. It does not follow from the tokens: give it where they change it."
    )

    def command(self) -> corrections.CorrectCommand:
        return corrections.CorrectCommand(
            completion_id=self.completion_id,
            attempt=self.attempt,
            note=self.note,
            tokens=corrections.Tokens(
                self.input_tokens,
                self.output_tokens,
                self.cached_input_tokens,
                self.cache_write_tokens,
                self.reasoning_tokens,
            ),
            cost=self.cost,
        )


Input = Annotated[CorrectUsageInput, strawberry.argument(description="Which attempt, and what is right.")]


@strawberry.type
class CorrectionMutations:
    @strawberry.mutation(
        description="Corrects what was booked for an attempt, by an entry of its own beside the one that stands, which "
        "is never edited: usage reports count both. Repeated, it changes nothing more.",
        extensions=[Guarded(Scope.USAGE_WRITE)],
    )
    async def correct_usage(self, info: GraphInfo, input: Input) -> CompletionRecord | None:  # noqa: A002  # the argument's name
        context, services = info.context, info.context.services
        command, counted = input.command(), services.limits.count
        return record_of(await corrections.correct(services.ledger, context.audit, context.principal, command, counted))
