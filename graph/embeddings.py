"""Embeddings: texts become vectors."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry.scalars import JSON

from graph.completions.inputs import LabelInput, labels_of, options_of
from graph.completions.types import Attempt, Usage
from graph.context import GraphInfo
from graph.inputs import planned
from graph.scalars import Vector
from graph.scopes import Guarded
from resolvers import embeddings
from resolvers import types as domain
from resolvers.principal import Scope
from resolvers.routing import parse_target

_INPUT = ("input",)


@planned
@strawberry.input(description="Texts to turn into vectors, all by one model: those of two can't be compared.")
class EmbedInput:
    model: str = strawberry.field(
        description='"provider/model", split at the first slash only: "openai/text-embedding-3-small".'
    )
    inputs: list[str] = strawberry.field(description="1 to 256 texts, none empty. Gemini takes 100 at once.")
    dimensions: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="How many numbers each vector has, where the model can say; absent, its own.",
    )
    timeout_ms: int | None = strawberry.field(
        default=strawberry.UNSET, description="One deadline, retries included: up to 300000; absent, 120000."
    )
    labels: list[LabelInput] | None = strawberry.field(default=strawberry.UNSET, description="To group by. Up to 20.")
    end_user: str | None = strawberry.field(
        default=strawberry.UNSET, description="Your own name of the person asking; handed to vendors that take one."
    )
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Your own name of this call, unique in the organisation, completions included: a second use is "
        "a CONFLICT.",
    )
    provider_options: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="An object keyed by provider; what stands under its name goes into that vendor's request as it is.",
    )

    def command(self) -> domain.EmbedCommand:
        """Raises BadUserInputError for what the schema's types can't rule out."""
        return domain.EmbedCommand(
            target=parse_target(self.model, path=(*_INPUT, "model")),
            inputs=tuple(self.inputs),
            dimensions=self.dimensions,
            timeout_ms=self.timeout_ms,
            labels=labels_of(self.labels, path=_INPUT),
            end_user=self.end_user,
            idempotency_key=self.idempotency_key,
            provider_options=options_of(self.provider_options, path=_INPUT),
        )


@strawberry.type(description="A vector for each text.")
class Embeddings:
    id: strawberry.ID = strawberry.field(description="Its id in the ledger, as a completion has one.")
    provider: str = strawberry.field(description="The provider that answered.")
    model: str = strawberry.field(description="The vendor's name of the model.")
    vectors: list[Vector] = strawberry.field(description="One for each text, in their order.")
    dimensions: int = strawberry.field(description="How many numbers the first vector has; as a rule all have as many.")
    usage: Usage = strawberry.field(description="Tokens and cost of all attempts.")
    latency_ms: int = strawberry.field(description="From the request to the answer, in milliseconds.")
    attempts: list[Attempt] = strawberry.field(description="Every call to the vendor, in order.")
    created_at: datetime = strawberry.field(description="When it was asked for.")

    @classmethod
    def of(cls, found: domain.Embeddings) -> Self:
        return cls(
            id=strawberry.ID(found.id),
            provider=found.provider,
            model=found.model,
            vectors=[Vector(vector) for vector in found.vectors],
            dimensions=len(found.vectors[0]),
            usage=Usage.of(found.usage),
            latency_ms=found.latency_ms,
            attempts=[Attempt.of(attempt) for attempt in found.attempts],
            created_at=found.created_at,
        )


Input = Annotated[EmbedInput, strawberry.argument(description="The texts, and the model.")]


@strawberry.type
class EmbeddingMutations:
    @strawberry.mutation(
        description="Turns texts into vectors, in one call to the vendor; retried and booked as a completion is. "
        "cancelCompletion ends it with CONFLICT.",
        extensions=[Guarded(Scope.COMPLETIONS_WRITE)],
    )
    async def embed(self, info: GraphInfo, input: Input) -> Embeddings | None:  # noqa: A002  # the argument's name
        context = info.context
        return Embeddings.of(await embeddings.embed(context.services, context.principal, input.command()))
