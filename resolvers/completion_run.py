"""One completion on its way: what is asked of each vendor, and what its answer becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from providers.errors import ProviderBadResponseError
from providers.types import CompletionRequest, FinishReason, ProviderCompletion

from . import booking, structured
from .errors import CompletionFailedError
from .principal import Principal
from .routing import Vendor
from .run import Run, Services
from .types import CompleteCommand, Completion, Target


class CompletionRun(Run):
    command: CompleteCommand

    def __init__(
        self,
        services: Services,
        vendors: Mapping[str, Vendor],
        principal: Principal,
        command: CompleteCommand,
        *,
        streamed: bool,
    ) -> None:
        super().__init__(services, vendors, principal, command, booking.input_size(command), streamed=streamed)

    def request(self, target: Target) -> CompletionRequest:
        command = self.command
        return CompletionRequest(
            model=target.model,
            messages=command.messages,
            tools=command.tools,
            tool_choice=command.tool_choice,
            temperature=command.temperature,
            top_p=command.top_p,
            max_tokens=command.max_tokens,
            stop=command.stop,
            seed=command.seed,
            end_user=command.end_user,
            response_format=command.response_format,
            reasoning_effort=command.reasoning_effort,
            logprobs=command.logprobs,
            options=command.provider_options.get(target.provider, {}),
        )

    def answered(self, answer: ProviderCompletion) -> Completion:
        """Raises CompletionFailedError where the answer is not what `response_format` asks for."""
        self.answer = answer
        try:
            parsed = structured.parsed(self.command.response_format, answer)
        except structured.NotAsAskedError as error:
            raise self._not_as_asked(str(error), answer.content) from None
        target = self.told_by()
        return Completion(
            id=self.id,
            provider=target.provider,
            model=target.model,
            content=answer.content,
            parsed=parsed,
            reasoning=answer.reasoning,
            reasoning_blocks=answer.reasoning_blocks,
            tool_calls=answer.tool_calls,
            citations=answer.citations,
            logprobs=answer.logprobs,
            finish_reason=answer.finish_reason or FinishReason.OTHER,
            usage=booking.total_usage(self.entries),
            latency_ms=self.elapsed_ms(),
            time_to_first_token_ms=self.first_token_ms,
            attempts=tuple(booking.attempt_of(entry) for entry in self.entries),
            cached=False,
            created_at=self.created_at,
        )

    def cut_short(self) -> ProviderCompletion:
        """What a cancelled completion had produced."""
        partial = self.last.fold.completion() if self.last else ProviderCompletion()
        return replace(partial, finish_reason=FinishReason.CANCELLED, usage=None, model=None)

    def _not_as_asked(self, message: str, content: str | None) -> CompletionFailedError:
        return self.failed(
            message,
            code=ProviderBadResponseError.code,
            provider=self.told_by().provider,
            retryable=True,
            content=content,
        )
