"""Whom items run for: who submitted them, with what he was permitted then, as far as his key still opens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import inf

from persistence.batch_records import Batch

from ..errors import ForbiddenError
from ..grants import limits_of
from ..key_cache import KeyCache
from ..permits import check_permitted
from ..principal import UNKNOWN, UNLIMITED, Limits, Origin, Principal, Scope, scopes_of
from ..types import CompleteCommand


@dataclass(frozen=True, slots=True)
class Standing:
    """`keys`: as they are at hand for who presents them, so that one that is revoked ends here as soon. `now` is aware
    UTC."""

    keys: KeyCache
    now: Callable[[], datetime]

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
        name = given.organisation, key_id
        found = self.keys.at_hand(name) or await self.keys.find(name)
        if found is None or not found.key.opens(self.now()):
            raise ForbiddenError("the API key that this batch was submitted by is revoked, or has expired")
        grant = found.key.grant
        if Scope.BATCHES_WRITE.value not in scopes_of(grant.scopes, grant.roles):
            raise ForbiddenError("the API key that this batch was submitted by may no longer submit any")
        now = limits_of(grant)
        if now.configs is not None and command.config not in now.configs:
            raise ForbiddenError("the API key that this batch was submitted by may no longer use its config")
        check_permitted(
            Principal(given.subject, given.organisation, given.scopes, inf, _limits(now.models, now.configs)), command
        )


def _limits(models: tuple[str, ...] | None, configs: tuple[str, ...] | None) -> Limits:
    """Of networks nobody asks: the workers are in ours."""
    return UNLIMITED if models is None and configs is None else Limits(models, configs)
