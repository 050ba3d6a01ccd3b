"""Whom items run for: who submitted them, with what he was permitted then, as far as his key still opens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import inf

from persistence.batch_records import Batch
from persistence.key_records import ApiKey
from persistence.ports import ApiKeyStore

from ..errors import ForbiddenError
from ..grants import limits_of
from ..permits import check_permitted
from ..principal import UNKNOWN, UNLIMITED, Limits, Origin, Principal, Scope, scopes_of
from ..types import CompleteCommand

FRESH_S = 5.0
MAX_KEYS = 1_000


@dataclass(frozen=True, slots=True)
class _Known:
    key: ApiKey | None
    stale_at: float


class Standing:
    """`clock` is monotonic, in seconds; `now` is aware UTC."""

    def __init__(self, keys: ApiKeyStore, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._clock = clock
        self._now = now
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    async def principal(self, batch: Batch, command: CompleteCommand) -> Principal:
        """Raises ForbiddenError where the key that the batch was submitted by, or the token's that it minted, is
        revoked, has expired or may no longer do that; StoreUnavailableError."""
        submitter = batch.submitter
        given = Principal(
            subject=submitter.subject,
            organisation=batch.organisation,
            scopes=frozenset({Scope.COMPLETIONS_WRITE.value}),
            expires_at=inf,
            limits=_limits(submitter.models, submitter.configs),
            key_id=submitter.key_id,
            origin=UNKNOWN if submitter.request_id is None else Origin(request_id=submitter.request_id),
        )
        if submitter.key_id is not None:
            await self._check(given, submitter.key_id, command)
        return given

    async def _check(self, given: Principal, key_id: str, command: CompleteCommand) -> None:
        key = await self._key(given.organisation, key_id)
        if key is None or not key.opens(self._now()):
            raise ForbiddenError("the API key that this batch was submitted by is revoked, or has expired")
        if Scope.BATCHES_WRITE.value not in scopes_of(key.grant.scopes, key.grant.roles):
            raise ForbiddenError("the API key that this batch was submitted by may no longer submit any")
        now = limits_of(key.grant)
        if now.configs is not None and command.config not in now.configs:
            raise ForbiddenError("the API key that this batch was submitted by may no longer use its config")
        check_permitted(
            Principal(given.subject, given.organisation, given.scopes, inf, _limits(now.models, now.configs)), command
        )

    async def _key(self, organisation: str, key_id: str) -> ApiKey | None:
        name = organisation, key_id
        known = self._known.get(name)
        if known is None or self._clock() >= known.stale_at:
            found = await self._keys.by_id(organisation, key_id)
            known = self._known[name] = _Known(found, self._clock() + FRESH_S)
            if len(self._known) > MAX_KEYS:
                self._known.popitem(last=False)
        return known.key


def _limits(models: tuple[str, ...] | None, configs: tuple[str, ...] | None) -> Limits:
    """Of networks nobody asks: the workers are in ours."""
    return UNLIMITED if models is None and configs is None else Limits(models, configs)
