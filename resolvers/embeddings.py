"""Embeddings: texts become vectors. Checked, attempted, booked and told as a completion is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.types import EmbeddingRequest, ProviderEmbeddings

from . import booking
from .attempts import claimed, prepare, try_targets, within_deadline
from .checks import check_call, check_range
from .errors import BadUserInputError
from .observing import observed
from .permits import check_permitted
from .principal import Principal
from .routing import Vendor
from .run import AttemptScope, Run, Services
from .types import EmbedCommand, Embeddings

MAX_INPUTS = 256
MAX_DIMENSIONS = 16_384


async def embed(services: Services, principal: Principal, command: EmbedCommand) -> Embeddings:
    """A vector for each text, booked before it is returned.

    Raises CompletionFailedError, BadUserInputError, ConflictError or ServiceUnavailableError. When its task is
    cancelled the upstream connection closes, and what is known of the attempt is booked.
    """
    vendors = await services.vendors_of(principal)
    _check(command, vendors)
    check_permitted(principal, command)
    run = _EmbedRun(services, vendors, principal, command)
    with observed(run), claimed(run):
        await prepare(run)
        answer = await within_deadline(run, lambda: try_targets(run, lambda scope: _call(run, scope)), run.cut_short)
        return run.embeddings(answer)


def _check(command: EmbedCommand, vendors: Mapping[str, Vendor]) -> None:
    check_call(command, command.provider_options, vendors)
    _check_inputs(command.inputs)
    check_range("dimensions", command.dimensions, 1, MAX_DIMENSIONS)


def _check_inputs(inputs: Sequence[str]) -> None:
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise BadUserInputError(f"1 to {MAX_INPUTS} inputs, not {len(inputs)}", path=("input", "inputs"))
    if "" in inputs:
        raise BadUserInputError("an empty text has no vector", path=("input", "inputs", inputs.index("")))


class _EmbedRun(Run):
    command: EmbedCommand
    operation = "embeddings"

    def __init__(
        self, services: Services, vendors: Mapping[str, Vendor], principal: Principal, command: EmbedCommand
    ) -> None:
        size = sum(len(text.encode()) for text in command.inputs)
        super().__init__(services, vendors, principal, command, size, streamed=False)

    def request(self) -> EmbeddingRequest:
        command = self.command
        return EmbeddingRequest(
            model=command.target.model,
            inputs=command.inputs,
            dimensions=command.dimensions,
            end_user=command.end_user,
            options=command.provider_options.get(command.target.provider, {}),
        )

    def embeddings(self, answer: ProviderEmbeddings) -> Embeddings:
        self.answer = answer
        return Embeddings(
            id=self.id,
            provider=self.command.target.provider,
            model=self.command.target.model,
            vectors=answer.vectors,
            usage=booking.total_usage(self.entries),
            latency_ms=self.elapsed_ms(),
            attempts=tuple(booking.attempt_of(entry) for entry in self.entries),
            created_at=self.created_at,
        )

    def cut_short(self) -> ProviderEmbeddings:
        """Half of the vectors are of no use to anybody. Raises CompletionFailedError."""
        provider = self.command.target.provider
        raise self.failed("cancelCompletion ended it", code="CONFLICT", provider=provider, retryable=False)


async def _call(run: _EmbedRun, scope: AttemptScope) -> ProviderEmbeddings:
    vendor = scope.step.vendor
    answer = await vendor.provider.embed(
        run.request(), credentials=scope.step.key.credentials, transport=run.services.transport
    )
    scope.succeeded(answer)
    return answer
