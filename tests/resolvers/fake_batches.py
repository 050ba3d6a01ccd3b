"""A vendor's batch API for tests of those who hand batches to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from providers.batching import BatchLine, BatchResult, BatchStatus, Sent
from providers.errors import ProviderError
from providers.types import CompletionRequest, FinishReason, ProviderCompletion, Usage

from .batch_stage import BatchStage


@dataclass
class FakeBatches:
    """A vendor's batches, done as soon as they are looked at. `named`: it keeps our names. `lost`: what comes in the
    place of the answer to the next ones, which it has by then; `refused`: in the place of the next ones. `working`:
    none of it is done yet; `cancelled` are those that are not answered; `deaf`: what comes of being told to stop;
    `broken`: of being looked at.
    `gate`: until it is set none is taken; so many are `coming`.
    `falters`: set behind the first result, and the next never comes; once."""

    named: bool = True
    lost: list[ProviderError | asyncio.Event] = field(default_factory=list)
    refused: list[ProviderError] = field(default_factory=list)
    sent: list[tuple[str, list[str]]] = field(default_factory=list)
    working: bool = False
    cancelled: set[str] = field(default_factory=set)
    deaf: list[ProviderError] = field(default_factory=list)
    broken: ProviderError | None = None
    falters: asyncio.Event | None = None
    looks: list[float] = field(default_factory=list)
    gate: asyncio.Event | None = None
    coming: int = 0

    @property
    def codec(self) -> Any:
        return SimpleNamespace(most_lines=100, most_bytes=10**6, keeps_names=self.named)

    def line(self, custom_id: str, request: CompletionRequest) -> BatchLine:
        return BatchLine(custom_id, "chat", request.model.encode())

    async def submit(self, lines: Sequence[BatchLine], name: str, **_: Any) -> BatchStatus:
        if self.refused:
            raise self.refused.pop(0)
        if self.gate is not None:
            self.coming += 1
            await self.gate.wait()
        self.sent.append((name, [line.custom_id for line in lines]))
        if self.lost:
            lost = self.lost.pop(0)
            if isinstance(lost, ProviderError):
                raise lost
            lost.set()
            await asyncio.Event().wait()
        return BatchStatus(str(len(self.sent)), ended=False)

    async def look(self, batch_id: str, **_: Any) -> BatchStatus:
        self.looks.append(asyncio.get_running_loop().time())
        if self.broken:
            raise self.broken
        return BatchStatus(batch_id, ended=not self.working or batch_id in self.cancelled)

    async def cancel(self, batch_id: str, **_: Any) -> None:
        if self.deaf:
            raise self.deaf.pop(0)
        self.cancelled.add(batch_id)

    async def find(self, sent: Sent, **_: Any) -> Sequence[BatchStatus]:
        every = [
            (name == sent.name if self.named else len(names) == sent.lines, str(number))
            for number, (name, names) in enumerate(self.sent, 1)
        ]
        return [await self.look(each) for may_be, each in every if may_be]

    async def results(self, status: BatchStatus, **_: Any) -> AsyncGenerator[BatchResult, None]:
        for custom_id in self.sent[int(status.id) - 1][1]:
            answer = ProviderCompletion("a", finish_reason=FinishReason.STOP, usage=Usage(3, 2))
            if self.falters is not None and self.falters.is_set():
                self.falters = None
                await asyncio.Event().wait()
            yield BatchResult(custom_id, None if status.id in self.cancelled else answer)
            if self.falters is not None:
                self.falters.set()


async def with_vendor(stage: BatchStage) -> FakeBatches:
    """OpenAI, as far as names go: batches are for vendors that are known to have them."""
    made, services = FakeBatches(), stage.scene.services
    stage.alpha.batches = made  # type: ignore[attr-defined]  # as a provider has them whose vendor does
    stage.scene.services = replace(services, vendors={**services.vendors, "openai": services.vendors["alpha"]})
    vendors: Any = await stage.batches.configs.vendors("acme")
    vendors["openai"] = vendors["alpha"]
    return made
