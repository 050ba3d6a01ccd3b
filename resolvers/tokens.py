"""Tokens that live shortly and may do little: for a browser, which can keep no key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from persistence.audit_records import Action
from persistence.key_records import Grant

from .audit import AuditLog, Subject, event
from .audit_fields import grant_fields
from .errors import BadUserInputError, ForbiddenError
from .grants import check_grant, check_within, limits_of
from .principal import Limits, Principal, Scope, scopes_of

MIN_LIFETIME_S = 60
MAX_LIFETIME_S = 3600


class TokenMaker(Protocol):
    def make(
        self,
        *,
        subject: str,
        organisation: str,
        scopes: Iterable[str],
        lifetime_s: float,
        limits: Limits,
        key_id: str | None,
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class MintedToken:
    token: str
    expires_at: datetime


async def mint_token(
    maker: TokenMaker,
    audit: AuditLog,
    principal: Principal,
    grant: Grant,
    *,
    lifetime_s: int,
    now: Callable[[], datetime],
) -> MintedToken:
    """Narrower than its maker, whose subject it bears, and with no right to make more. It outlives neither its maker's
    own end nor MAX_LIFETIME_S; it ends as its maker's key is revoked or narrowed, see `KeyEntrance.check_maker`. Raises
    BadUserInputError, ForbiddenError, and ServiceUnavailableError: none is handed out that the audit log has not."""
    if not MIN_LIFETIME_S <= lifetime_s <= MAX_LIFETIME_S:
        raise BadUserInputError(
            f"a token lives for {MIN_LIFETIME_S} to {MAX_LIFETIME_S} seconds, not {lifetime_s}",
            path=("input", "lifetimeSeconds"),
        )
    check_grant(grant)
    check_within(grant, principal)
    scopes = scopes_of(grant.scopes, grant.roles) - {Scope.TOKENS_MINT, Scope.KEYS_WRITE}
    if not scopes:
        raise ForbiddenError("a minted token makes neither tokens nor keys: give it another scope")
    begun = int(now().timestamp())
    lifetime_s = min(lifetime_s, int(min(principal.expires_at, begun + MAX_LIFETIME_S)) - begun)
    token = maker.make(
        subject=principal.subject,
        organisation=principal.organisation,
        scopes=sorted(scopes),
        lifetime_s=lifetime_s,
        limits=limits_of(grant),
        key_id=principal.key_id,
    )
    minted = MintedToken(token, datetime.fromtimestamp(begun, UTC) + timedelta(seconds=lifetime_s))
    given = {**grant_fields(grant), "scopes": sorted(scopes), "expiresAt": minted.expires_at}
    subject = Subject("token", principal.subject)
    await audit.note(event(principal, Action.TOKEN_MINT, subject, before=None, after=given))
    return minted
