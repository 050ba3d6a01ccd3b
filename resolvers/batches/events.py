"""The end of a batch, told to whoever has asked for it: a signed event, kept and tried again as any is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from persistence.batch_records import Batch

from ..webhook_events import EventType
from ..webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class WebhookEvents:
    """Implements `finishing.BatchEvents`."""

    webhooks: Webhooks

    async def ended(self, batch: Batch) -> None:
        counts = {**asdict(batch.counts), "total": batch.counts.total}
        data = {
            "id": batch.id,
            "state": batch.state.name,
            "run": batch.run,
            "counts": counts,
            "cost": format(batch.cost, "f"),
            "labels": dict(batch.labels),
            "createdAt": batch.created_at.isoformat(),
            "endedAt": None if batch.ended_at is None else batch.ended_at.isoformat(),
        }
        name, only = f"{batch.id}/{batch.run}", batch.webhook
        await self.webhooks.emit(batch.organisation, EventType.BATCH_COMPLETED, data, id=name, only=only)
