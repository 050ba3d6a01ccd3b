"""Organisations' own keys at providers: calls go by them, and never by this deployment's."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from persistence.audit_records import Action
from persistence.ports import ProviderKeyStore, StoreUnavailableError
from persistence.provider_key_records import StoredProviderKey
from providers.ports import ModelProvider
from providers.types import Credentials

from .audit_fields import audit_of_provider_key
from .cache_counts import CacheCounts
from .errors import BadUserInputError, NotFoundError, ServiceUnavailableError
from .key_pool import KeyPool, ProviderKey
from .principal import Principal
from .routing import Vendor

FRESH_S = 5.0  # for so long another process's write may go unseen, where nobody tells of it
USABLE_S = 300.0  # while the store can't be read
TRIAL_INTERVAL_S = 5.0
MAX_ORGANISATIONS = 10_000
MIN_KEY_LENGTH, MAX_KEY_LENGTH = 8, 1000
HINT_CHARACTERS = 4

_FORM = re.compile(rf"[!-~]{{{MIN_KEY_LENGTH},{MAX_KEY_LENGTH}}}")

log = structlog.get_logger("provider keys")


OwnVendors = Mapping[str, Vendor | None]
"""By provider. None where there is a key that doesn't open: then nobody is called, rather than by another key."""


class SealedElsewhereError(Exception):
    """What is sealed doesn't open: by none of this deployment's keys, or it was changed or moved."""


class Sealing(Protocol):
    """Of one kind of secrets, each with its `name` within an organisation: for another's name, or as another kind, what
    is sealed doesn't open. Every method but `seal` raises SealedElsewhereError."""

    def seal(self, text: str, *, organisation: str, name: str) -> str: ...

    def open(self, sealed: str, *, organisation: str, name: str) -> str: ...

    def resealed(self, sealed: str, *, organisation: str, name: str) -> str | None:
        """The same under the present master key; None where it is."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """Monotonic seconds."""

    own: OwnVendors
    read_at: float
    stale_at: float


@dataclass
class ProviderKeys:
    """The use cases, and what an organisation calls by keys of its own. `keyed`: what can be called once there is a
    key, made of that. `clock` is monotonic, in seconds; `now` is aware UTC.

    All use cases raise ServiceUnavailableError, and what they say themselves.
    """

    store: ProviderKeyStore
    sealing: Sealing
    keyed: Mapping[str, Callable[[str], tuple[ModelProvider, Credentials]]]
    clock: Callable[[], float]
    now: Callable[[], datetime]
    counts: CacheCounts = field(default_factory=CacheCounts)
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict)
    _writes: int = 0

    async def put(self, principal: Principal, provider: str, key: str) -> StoredProviderKey:
        """Sealed, and never readable again. Raises BadUserInputError."""
        if provider not in self.keyed:
            raise BadUserInputError(
                f"{provider[:100]!r} is none of {', '.join(sorted(self.keyed))}", path=("input", "provider")
            )
        key = key.strip()
        if (
            not (2 * HINT_CHARACTERS <= len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable())
            or " " in key
        ):
            raise BadUserInputError(
                f"a key has {2 * HINT_CHARACTERS} to {MAX_KEY_LENGTH} visible ASCII characters", path=("input", "key")
            )
        now = self.now()
        stored = StoredProviderKey(
            organisation=principal.organisation,
            provider=provider,
            sealed=self.sealing.seal(key, organisation=principal.organisation, name=provider),
            hint=key[-HINT_CHARACTERS:],
            created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            created_by=principal.subject,
        )
        audit = audit_of_provider_key(principal, Action.PROVIDER_KEY_SET, provider)
        with self._written(principal.organisation), _told():
            await self.store.put(stored, audit=audit)
        return stored

    async def delete(self, principal: Principal, provider: str) -> None:
        """From then on calls go by this deployment's key, if it has one. Raises NotFoundError."""
        audit = audit_of_provider_key(principal, Action.PROVIDER_KEY_DELETE, provider)
        with self._written(principal.organisation), _told():
            if not await self.store.delete(principal.organisation, provider, audit=audit):
                raise NotFoundError("there is no such key")

    async def listed(self, principal: Principal) -> Sequence[StoredProviderKey]:
        with _told():
            return await self.store.of(principal.organisation)

    async def vendors(self, organisation: str, deployment: Mapping[str, Vendor]) -> Mapping[str, Vendor]:
        """What the organisation's calls go to, `deployment` being what this one can call by itself. Raises
        ServiceUnavailableError."""
        known = self._known.get(organisation)
        if known is not None and self.clock() < known.stale_at:
            self.counts.hits += 1
            own = known.own
        else:
            own = await self.own(organisation)
        if not own:
            return deployment
        return {name: vendor for name, vendor in {**deployment, **own}.items() if vendor is not None}

    async def own(self, organisation: str) -> OwnVendors:
        """One caller reads; the others have what was known meanwhile. While the store can't be read, what was known in
        the last minutes; of an organisation that none is known of, none. Raises ServiceUnavailableError for one with
        keys of its own that are not known any more."""
        known, now = self._known.get(organisation), self.clock()
        if known is not None and now < known.stale_at:
            return known.own
        self.counts.misses += 1
        if known is not None and now < known.read_at + USABLE_S:
            self._keep(organisation, _Known(known.own, known.read_at, now + TRIAL_INTERVAL_S))
        try:
            return await self._read(organisation)
        except StoreUnavailableError as error:
            return self._without_store(organisation, known, error)
        except asyncio.CancelledError:
            self.outdate(organisation)  # the next caller reads
            raise

    def outdate(self, organisation: str) -> None:
        """Its keys have been written, by whatever process."""
        self._writes += 1
        if (known := self._known.get(organisation)) is not None:
            self._known[organisation] = _Known(known.own, known.read_at, self.clock())

    def outdate_all(self) -> None:
        for organisation in list(self._known):
            self.outdate(organisation)
        self._writes += 1

    def _without_store(self, organisation: str, known: _Known | None, error: StoreUnavailableError) -> OwnVendors:
        now = self.clock()
        if known is not None and known.own and now >= known.read_at + USABLE_S:
            raise ServiceUnavailableError("your organisation's provider keys can't be read at the moment") from error
        if known is None:
            self._keep(organisation, _Known({}, now - USABLE_S, now + TRIAL_INTERVAL_S))
        return {} if known is None else known.own

    async def _read(self, organisation: str) -> OwnVendors:
        writes = self._writes
        found = await self.store.of(organisation)
        own = {each.provider: self._vendor(each) for each in found if each.provider in self.keyed}
        now = self.clock()
        self._keep(organisation, _Known(own, now, now + FRESH_S if writes == self._writes else now))
        return own

    def _vendor(self, stored: StoredProviderKey) -> Vendor | None:
        """By a key that circuits know as the organisation's alone."""
        try:
            key = self.sealing.open(stored.sealed, organisation=stored.organisation, name=stored.provider)
        except SealedElsewhereError:
            log.exception("a provider key doesn't open", organisation=stored.organisation, provider=stored.provider)
            return None
        provider, credentials = self.keyed[stored.provider](key)
        return Vendor(provider, KeyPool([ProviderKey(f"own:{stored.organisation}", credentials)]))

    @contextmanager
    def _written(self, organisation: str) -> Iterator[None]:
        """Whatever becomes of the write, what this process remembers is read anew."""
        try:
            yield
        finally:
            self.outdate(organisation)

    def _keep(self, organisation: str, known: _Known) -> None:
        self._known[organisation] = known
        self._known.move_to_end(organisation)
        if len(self._known) > MAX_ORGANISATIONS:
            self._known.popitem(last=False)


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors as the caller's."""
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the provider keys can't be reached at the moment") from error
