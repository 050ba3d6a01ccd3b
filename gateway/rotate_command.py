"""`ai-middleware rotate-keys`: what organisations have sealed comes under the present ENCRYPTION_KEY."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from persistence.ports import ProviderKeyStore, StoreUnavailableError
from resolvers.provider_keys import SealedElsewhereError, Sealing

from .envelopes import Envelopes
from .keys import deployment_keys
from .settings import Settings, SettingsError
from .stores import open_documents

PAGE = 200


@dataclass(frozen=True, slots=True)
class Rotated:
    """`resealed` of `seen`; `unreadable`: whose keys open with none of the deployment's."""

    seen: int
    resealed: int
    unreadable: tuple[tuple[str, str], ...]


def rotate(settings: Settings) -> Rotated:
    """Raises SettingsError."""
    masters = deployment_keys(settings).masters

    async def run() -> Rotated:
        async with AsyncExitStack() as stack:
            documents = await open_documents(settings, stack)
            return await reseal_all(documents.provider_keys, Envelopes(masters))

    try:
        return asyncio.run(run())
    except StoreUnavailableError as error:
        raise SettingsError(f"the provider keys can't be reached: {error}") from None


async def reseal_all(store: ProviderKeyStore, sealing: Sealing) -> Rotated:
    """One that is set meanwhile is sealed by the present key already. Safe to repeat. Raises StoreUnavailableError."""
    seen = resealed = 0
    unreadable: list[tuple[str, str]] = []
    after: tuple[str, str] | None = None
    while page := await store.every(limit=PAGE, after=after):
        for key in page:
            seen += 1
            try:
                fresh = sealing.resealed(key.sealed, organisation=key.organisation, provider=key.provider)
            except SealedElsewhereError:
                unreadable.append((key.organisation, key.provider))
                continue
            resealed += fresh is not None and await store.reseal(key, fresh)
        after = page[-1].organisation, page[-1].provider
    return Rotated(seen, resealed, tuple(unreadable))
