"""Whoever presents an API key, and what he may do by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from math import inf

import structlog

from persistence.key_records import Grant, PresentedKey
from persistence.ports import ApiKeyStore, StoreUnavailableError

from .api_keys import KeyMaker
from .beside import beside
from .errors import ServiceUnavailableError, UnauthenticatedError
from .grants import limits_of
from .key_cache import KeyCache, Name
from .permits import lies_within
from .principal import Limits, Principal, Scope, scopes_of

_ASKING = frozenset({Scope.COMPLETIONS_WRITE, Scope.BATCHES_WRITE})

NOTED_EVERY_S = 30.0
MAX_NOTED = 10_000

log = structlog.get_logger("keys")


@dataclass(slots=True)
class KeyEntrance:
    """Keys → principals. Opened by `open_key_entrance`. `now` is aware UTC."""

    cache: KeyCache
    maker: KeyMaker
    store: ApiKeyStore
    now: Callable[[], datetime]
    _uses: dict[tuple[str, str], datetime] = field(default_factory=dict)

    async def principal(self, key: str, address: str | None) -> Principal:
        """`address`: the caller's, None where it has none. Raises UnauthenticatedError, and ServiceUnavailableError for
        a key that was not seen in the last minutes while the store can't be read."""
        digests = self.maker.digests(key)
        if not digests:
            raise UnauthenticatedError("that is no API key: it was cut off or changed on its way")
        found = await self._found(digests)
        now = self.now()
        presented = found.key
        if presented.revoked_at is not None:
            raise UnauthenticatedError("the API key is revoked")
        ends = min((each for each in (presented.expires_at, found.until) if each is not None), default=None)
        if ends is not None and ends <= now:
            raise UnauthenticatedError(
                "the API key has expired" if ends == presented.expires_at else "the API key was replaced by a new one"
            )
        limits = limits_of(presented.grant)
        if limits.networks is not None and not lies_in(address, limits.networks):
            raise UnauthenticatedError("the API key may not be used from this address")
        if len(self._uses) < MAX_NOTED:
            self._uses[presented.organisation, presented.id] = now
        return Principal(
            subject=presented.id,
            organisation=presented.organisation,
            scopes=_scopes(presented.grant.scopes, presented.grant.roles),
            expires_at=inf if ends is None else ends.timestamp(),
            limits=limits,
            key_id=presented.id,
        )

    async def check_maker(self, made: Principal, key_id: str) -> None:
        """Of a minted token, or a link, which opens nothing once the key that made it does not, or may no longer do all
        that it may. Raises as `principal`."""
        presented = (await self._found([(made.organisation, key_id)])).key
        if not presented.opens(self.now()):
            raise UnauthenticatedError("the API key that it was made by is revoked, or has expired")
        if not _may_still(presented.grant, made.scopes, made.limits):
            raise UnauthenticatedError("the API key that it was made by may no longer do all that it may: make another")

    async def _found(self, names: Sequence[Name]) -> PresentedKey:
        try:
            for name in names:
                found = self.cache.at_hand(name) or await self.cache.find(name)
                if found is not None:
                    return found
        except StoreUnavailableError as error:
            raise ServiceUnavailableError("the API keys can't be read at the moment") from error
        raise UnauthenticatedError("there is no such API key")

    async def note(self) -> None:
        """Writes down when keys were used, again and again."""
        while True:
            await asyncio.sleep(NOTED_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self.store.note_uses({name: _whole(at) for name, at in uses.items()})
        except StoreUnavailableError as error:
            log.warning("when keys were used is not noted", keys=len(uses), reason=str(error))
            self._uses = uses | self._uses


@asynccontextmanager
async def open_key_entrance(
    cache: KeyCache, maker: KeyMaker, store: ApiKeyStore, now: Callable[[], datetime]
) -> AsyncIterator[KeyEntrance]:
    entrance = KeyEntrance(cache, maker, store, now)
    async with beside("key-uses", entrance.note):
        yield entrance
    await entrance.flush()


def lies_in(address: str | None, networks: Sequence[str]) -> bool:
    """An IPv4 address that came over IPv6 is one."""
    try:
        found = ip_address(address or "")
    except ValueError:  # a peer without an address, as over a UNIX socket
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in ip_network(network) for network in networks)


@lru_cache(maxsize=1024)
def _scopes(scopes: tuple[str, ...], roles: tuple[str, ...]) -> frozenset[str]:
    return scopes_of(scopes, roles)


@lru_cache(maxsize=1024)
def _may_still(grant: Grant, scopes: frozenset[str], limits: Limits) -> bool:
    """Whether the grant allows all of these. Remembered: to compare networks takes a while."""
    allowed = limits_of(grant)
    if not scopes & _ASKING:  # a link names no models
        allowed = Limits(networks=allowed.networks)
    return scopes <= _scopes(grant.scopes, grant.roles) and lies_within(limits, allowed) is None


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
