"""One event in the log for each completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from persistence.batch_records import Batch
from persistence.records import LedgerEntry
from providers.types import Message, ProviderCompletion, TextPart
from resolvers import booking
from resolvers.observing import CompletionEnd, Unobserved
from resolvers.types import CompleteCommand, EmbedCommand

MAX_TEXT = 16_384
"""Characters of one text that are logged, where texts are."""

log = structlog.get_logger("completions")


class CompletionLog(Unobserved):
    """`content`: what was asked and answered is logged too."""

    def __init__(self, *, content: bool) -> None:
        self._content = content

    def completed(self, end: CompletionEnd) -> None:
        fields: dict[str, Any] = {
            "operation": end.operation,
            "completion_id": end.id,
            "request_id": end.principal.origin.request_id,
            "organisation": end.principal.organisation,
            "principal": end.principal.subject,
            "provider": end.target.provider,
            "model": end.target.model,
            "outcome": end.outcome.value,
            "streamed": end.streamed,
            "attempts": len(end.entries),
            **_used(end.entries),
            "latency_ms": _ms(end.seconds),
            "upstream_ms": _ms(end.upstream_s),
            "time_to_first_token_ms": None if end.first_token_s is None else _ms(end.first_token_s),
        }
        if end.error_code is not None:
            fields["error_code"] = end.error_code
        if end.limit is not None:
            fields["limit"] = f"{end.limit.limited}: {end.limit.measure}"
        if end.command.config is not None:
            fields["config"] = end.command.config
            fields["config_version"] = end.command.config_version
        if self._content:
            fields |= _content_of(end)
        log.info("completion", **fields)

    def collected(self, entry: LedgerEntry, batch: Batch) -> None:
        """Its times are the vendor's own matter, and its texts are in the batch."""
        fields: dict[str, Any] = {
            "operation": "chat",
            "completion_id": entry.completion_id,
            "request_id": batch.submitter.request_id,
            "organisation": entry.organisation,
            "principal": entry.principal,
            "provider": entry.provider,
            "model": entry.model,
            "outcome": entry.outcome.value,
            "streamed": False,
            "attempts": 1,
            **_used([entry]),
        }
        if entry.error_code is not None:
            fields["error_code"] = entry.error_code
        log.info("completion", **fields)


def _used(entries: Sequence[LedgerEntry]) -> Mapping[str, Any]:
    usage = booking.total_usage(entries)
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "estimated": usage.estimated,
        "cost_usd": None if usage.cost is None else f"{usage.cost:f}",
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _content_of(end: CompletionEnd) -> Mapping[str, Any]:
    answer = end.answer if isinstance(end.answer, ProviderCompletion) else None
    return {"asked": _asked(end.command), "answered": None if answer is None else _cut(answer.content or "")}


def _asked(command: object) -> Sequence[Any]:
    if isinstance(command, CompleteCommand):
        return [{"role": message.role.value, "content": _text_of(message)} for message in command.messages]
    return [_cut(text) for text in command.inputs] if isinstance(command, EmbedCommand) else []


def _text_of(message: Message) -> str:
    """Of pictures and files no more than that there are any."""
    parts = (part.text if isinstance(part, TextPart) else "[media]" for part in message.parts)
    return _cut("\n".join(part for part in (message.content, *parts) if part))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
