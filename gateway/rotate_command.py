"""`ai-middleware rotate-keys`: what organisations have sealed comes under the present ENCRYPTION_KEY."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from persistence.ports import ProviderKeyStore, StoreUnavailableError, WebhookStore
from resolvers.provider_keys import SealedElsewhereError, Sealing

from .envelopes import WEBHOOK_SECRET, Envelopes
from .keys import deployment_keys
from .settings import Settings, SettingsError
from .stores import open_documents

PAGE = 200


@dataclass(frozen=True, slots=True)
class Rotated:
    """`resealed` of `seen`; `unreadable`: whose, and which of theirs, open with none of the deployment's keys."""

    seen: int
    resealed: int
    unreadable: tuple[tuple[str, str], ...]


def rotate(settings: Settings) -> tuple[Rotated, Rotated]:
    """Provider keys, and webhooks' secrets. Raises SettingsError."""
    masters = deployment_keys(settings).masters

    async def run() -> tuple[Rotated, Rotated]:
        async with AsyncExitStack() as stack:
            documents = await open_documents(settings, stack)
            keys = await reseal_all(documents.provider_keys, Envelopes(masters))
            return keys, await reseal_webhooks(documents.webhooks, Envelopes(masters, WEBHOOK_SECRET))

    try:
        return asyncio.run(run())
    except StoreUnavailableError as error:
        raise SettingsError(f"what is sealed can't be reached: {error}") from None


async def reseal_all(store: ProviderKeyStore, sealing: Sealing) -> Rotated:
    """One that is set meanwhile is sealed by the present key already. Safe to repeat. Raises StoreUnavailableError."""
    seen = resealed = 0
    unreadable: list[tuple[str, str]] = []
    after: tuple[str, str] | None = None
    while page := await store.every(limit=PAGE, after=after):
        for key in page:
            seen += 1
            try:
                fresh = sealing.resealed(key.sealed, organisation=key.organisation, name=key.provider)
            except SealedElsewhereError:
                unreadable.append((key.organisation, key.provider))
                continue
            resealed += fresh is not None and await store.reseal(key, fresh)
        after = page[-1].organisation, page[-1].provider
    return Rotated(seen, resealed, tuple(unreadable))


async def reseal_webhooks(store: WebhookStore, sealing: Sealing) -> Rotated:
    """As `reseal_all`: of each webhook its secret, and the one before."""
    seen = resealed = 0
    unreadable: list[tuple[str, str]] = []
    after: tuple[str, str] | None = None
    while page := await store.every(limit=PAGE, after=after):
        for webhook in page:
            seen += 1
            try:
                fresh, former = (
                    None if each is None else sealing.resealed(each, organisation=webhook.organisation, name=webhook.id)
                    for each in (webhook.sealed, webhook.former)
                )
            except SealedElsewhereError:
                unreadable.append((webhook.organisation, webhook.id))
                continue
            if fresh is not None or former is not None:
                resealed += await store.reseal(webhook, fresh or webhook.sealed, former or webhook.former)
        after = page[-1].organisation, page[-1].id
    return Rotated(seen, resealed, tuple(unreadable))
