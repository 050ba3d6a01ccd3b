"""API keys: credentials of servers, made and taken back by their organisation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Protocol

from uuid_utils import uuid7

from persistence.audit_records import Action
from persistence.key_records import ApiKey, ApiKeyFilter, Grant
from persistence.ports import ApiKeyStore, StoreConflictError, StoreUnavailableError

from .audit_fields import audit_of_key
from .errors import BadUserInputError, ConflictError, ForbiddenError, NotFoundError, ServiceUnavailableError
from .grants import check_grant, check_within
from .key_cache import KeyCache
from .principal import Principal

ID_PREFIX = "key_"
MAX_PAGE = 100
MAX_KEYS = 1000
"""Of one organisation, those that are revoked or have expired not counted."""
MAX_NAME_LENGTH = 100
MAX_OVERLAP_S = 7 * 24 * 3600
MAX_LIFETIME_DAYS = 3650

_ID = re.compile(rf"{ID_PREFIX}[0-9a-f]{{32}}")


class KeyMaker(Protocol):
    """The form of keys, and their keyed hashes."""

    def make(self) -> tuple[str, str]:
        """A fresh key, and its hint."""
        ...

    def digests(self, key: str) -> Sequence[str]:
        """By each of the deployment's secrets, the present one first; none for what has not the form of a key."""
        ...


@dataclass(frozen=True, slots=True)
class NewKey:
    name: str
    grant: Grant
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What is not None is changed. `endless`: it shall not expire."""

    name: str | None = None
    grant: Grant | None = None
    expires_at: datetime | None = None
    endless: bool = False


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Newest first; `more`: there are older ones."""

    keys: tuple[ApiKey, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The use cases, each within the principal's organisation. All raise ServiceUnavailableError; NotFoundError, the
    same for what does not exist and what another organisation has; and what they say themselves. `now` is aware UTC.

    Nobody gives, changes or rotates a key that may do more than himself: ForbiddenError. Nor does a key give, prolong
    or rotate one that opens for longer than itself.
    """

    store: ApiKeyStore
    cache: KeyCache
    maker: KeyMaker
    now: Callable[[], datetime]

    async def create(self, principal: Principal, asked: NewKey) -> tuple[str, ApiKey]:
        """The key itself, which is told here and never again. Raises BadUserInputError, and ConflictError where the
        organisation has MAX_KEYS."""
        _check_name(asked.name)
        check_grant(asked.grant)
        check_within(asked.grant, principal)
        now = self._time()
        end = _end(now, asked.expires_at)
        _check_end(end, principal)
        secret, hint = self.maker.make()
        key = ApiKey(
            id=ID_PREFIX + uuid7().hex,
            organisation=principal.organisation,
            name=asked.name,
            hint=hint,
            grant=asked.grant,
            revision=1,
            created_at=now,
            created_by=principal.subject,
            updated_at=now,
            expires_at=end,
        )
        audit = audit_of_key(principal, Action.API_KEY_CREATE, key.id)
        with _told():
            await self.store.create(key, self.maker.digests(secret)[0], at_most=MAX_KEYS, audit=audit)
        return secret, key

    async def change(
        self, principal: Principal, key_id: str, change: KeyChange, *, expected_revision: int | None = None
    ) -> ApiKey:
        """Raises BadUserInputError; ConflictError for another revision, and for a key that is revoked."""
        standing = await self.get(principal, key_id)
        check_within(standing.grant, principal)
        now = self._time()
        changed = replace(
            standing,
            name=standing.name if change.name is None else change.name,
            grant=standing.grant if change.grant is None else change.grant,
            expires_at=None if change.endless else _end(now, change.expires_at) or standing.expires_at,
            updated_at=now,
        )
        _check_name(changed.name)
        if changed.expires_at != standing.expires_at:
            _check_end(changed.expires_at, principal)
        if change.grant is not None:
            check_grant(change.grant)
            check_within(change.grant, principal)
        expected = standing.revision if expected_revision is None else expected_revision
        audit = audit_of_key(principal, Action.API_KEY_UPDATE, key_id)
        with self._written(standing), _told():
            return _found(await self.store.save(changed, expected_revision=expected, audit=audit))

    async def rotate(self, principal: Principal, key_id: str, *, overlap_s: int) -> tuple[str, ApiKey]:
        """A new key in the place of the old one, which serves for `overlap_s` more. Told here and never again. Raises
        BadUserInputError, and ConflictError for a key that is revoked."""
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise BadUserInputError(
                f"the overlap is 0 to {MAX_OVERLAP_S} seconds, not {overlap_s}", path=("input", "overlapSeconds")
            )
        standing = await self.get(principal, key_id)
        check_within(standing.grant, principal)
        _check_end(standing.expires_at, principal)
        secret, hint = self.maker.make()
        now = self._time()
        until = now + timedelta(seconds=overlap_s)
        audit = audit_of_key(principal, Action.API_KEY_ROTATE, key_id)
        digest = self.maker.digests(secret)[0]
        with self._written(standing), _told():
            rotated = await self.store.rotate(
                principal.organisation, key_id, digest, hint=hint, until=until, at=now, audit=audit
            )
        return secret, _found(rotated)

    async def revoke(self, principal: Principal, key_id: str) -> ApiKey:
        """For good, and at once. One that is revoked stays as it is."""
        standing = await self.get(principal, key_id)
        with self._written(standing), _told():
            revoked = await self.store.revoke(
                principal.organisation,
                key_id,
                at=self._time(),
                by=principal.subject,
                audit=audit_of_key(principal, Action.API_KEY_REVOKE, key_id),
            )
        return _found(revoked)

    async def get(self, principal: Principal, key_id: str) -> ApiKey:
        if _ID.fullmatch(key_id) is None:
            raise NotFoundError("no such API key")
        with _told():
            return _found(await self.store.by_id(principal.organisation, key_id))

    async def page(self, principal: Principal, *, first: int, after: str | None, active: bool) -> KeyPage:
        """`active`: without those that are revoked or have expired. Raises BadUserInputError for a page size beyond 1
        to 100 or a cursor that this list did not make."""
        if not 1 <= first <= MAX_PAGE:
            raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))
        if after is not None and _ID.fullmatch(after) is None:
            raise BadUserInputError("not a cursor of this list", path=("after",))
        where = ApiKeyFilter(opens_at=self._time() if active else None)
        with _told():
            found = await self.store.page(principal.organisation, where=where, limit=first + 1, before=after)
        return KeyPage(tuple(found[:first]), more=len(found) > first)

    @contextmanager
    def _written(self, key: ApiKey) -> Iterator[None]:
        """Whatever becomes of the write, what this process remembers of the key is read anew."""
        try:
            yield
        finally:
            self.cache.outdate(key.organisation, key.id)

    def _time(self) -> datetime:
        now = self.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors as the caller's."""
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the API keys can't be reached at the moment") from error
    except StoreConflictError as error:
        raise ConflictError(str(error)) from error


def _found(key: ApiKey | None) -> ApiKey:
    if key is None:
        raise NotFoundError("no such API key")
    return key


def _check_name(name: str) -> None:
    if not 1 <= len(name.strip()) <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise BadUserInputError(f"a key's name has 1 to {MAX_NAME_LENGTH} printable characters", path=("input", "name"))


def _check_end(end: datetime | None, principal: Principal) -> None:
    """Raises ForbiddenError. One that was replaced ends with its overlap: who has it by theft must not outlast that."""
    if principal.key_id is not None and principal.expires_at < (inf if end is None else end.timestamp()):
        raise ForbiddenError("your own key ends before that one would: give it an earlier end")


def _end(now: datetime, given: datetime | None) -> datetime | None:
    if given is None:
        return None
    path = ("input", "expiresAt")
    try:
        end = given.astimezone(UTC)
    except OverflowError:  # an offset takes it out of the calendar
        raise BadUserInputError("the calendar has no such time", path=path) from None
    if not now < end <= now + timedelta(days=MAX_LIFETIME_DAYS):
        raise BadUserInputError(f"a key ends within {MAX_LIFETIME_DAYS} days from now, or never", path=path)
    return end.replace(microsecond=end.microsecond // 1000 * 1000)
