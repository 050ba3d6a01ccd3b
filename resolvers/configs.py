"""Configs: drafts, numbered versions that never change, and the one of them that completions get."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from uuid_utils import uuid7

from persistence.audit_records import Action
from persistence.config_records import Config, ConfigContent, ConfigCursor, ConfigFilter, ConfigOrder, ConfigVersion
from persistence.ports import ConfigStore, StoreConflictError, StoreUnavailableError

from .audit_fields import audit_of_config, content_fields
from .config_cache import ConfigCache
from .config_content import check_content, checked_text, command_of
from .config_diff import ConfigDiff, diff
from .errors import BadUserInputError, ConflictError, NotFoundError, ServiceUnavailableError
from .permits import check_config_permitted
from .principal import Principal
from .routing import Vendor
from .turns import Turns
from .types import CompleteCommand, ConfigBy, ConfigCall

MAX_PAGE = 100
MAX_OTHERS = 20  # writes of other processes that one without an expected revision gives way to
MAX_WORKS = 10_000
SMALL = 8 * 1024  # bytes: read within a tenth of a millisecond
ID_PREFIX = "cfg_"
SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

P = ParamSpec("P")
T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ConfigPage:
    """In the order that was asked for, each with its cursor; `more`: there are others behind."""

    configs: tuple[tuple[str, Config], ...]
    more: bool


@dataclass(frozen=True, slots=True)
class VersionPage:
    """Newest first, each with its cursor; `more`: there are older ones."""

    versions: tuple[tuple[str, ConfigVersion], ...]
    more: bool


VendorsOf = Callable[[str], Awaitable[Mapping[str, Vendor]]]
"""What an organisation's calls go to. Raises ServiceUnavailableError."""


@dataclass(frozen=True, slots=True)
class Configs:
    """The use cases, each within the principal's organisation. All raise ServiceUnavailableError; NotFoundError, the
    same for what does not exist and what another organisation has; and what they say themselves. `now` is aware UTC.

    A write that is based on `expected_revision` raises ConflictError when another came first; without it, it is based
    on what stands now, also where others write at the same time.
    """

    store: ConfigStore
    cache: ConfigCache
    vendors: VendorsOf
    now: Callable[[], datetime]
    turns: Turns = field(default_factory=Turns)
    small_turns: Turns = field(default_factory=partial(Turns, MAX_WORKS))
    one_at_work: asyncio.Lock = field(default_factory=asyncio.Lock)
    writing: WeakValueDictionary[tuple[str, ConfigBy], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def create(self, principal: Principal, slug: str, draft: ConfigContent) -> Config:
        """A first draft. Raises BadUserInputError for the slug or a draft too large, ConflictError for a slug that is
        taken."""
        if SLUG.fullmatch(slug) is None:
            raise BadUserInputError(
                f"a slug has lower-case letters, digits, '.', '_' and '-', up to 64, and begins with one of the first "
                f"two: {slug[:100]!r}",
                path=("input", "slug"),
            )
        text = await self._worked(principal.organisation, checked_text, draft)
        at = self._time()
        config = Config(ID_PREFIX + uuid7().hex, principal.organisation, slug, 1, text, at, at)
        audit = audit_of_config(principal, Action.CONFIG_CREATE, config.id, ({}, content_fields(draft)))
        with _told():
            await self.store.create(config, audit=audit)
        return config

    async def update_draft(
        self, principal: Principal, by: ConfigBy, draft: ConfigContent, *, expected_revision: int
    ) -> Config:
        """Raises BadUserInputError for a draft too large, ConflictError for a stale revision."""
        await self._worked(principal.organisation, checked_text, draft)

        async def saved(config: Config) -> Config | None:
            content = content_fields(await self.draft_of(config)), content_fields(draft)
            return await self.store.save_draft(
                config.organisation,
                config.id,
                draft,
                expected_revision=config.revision,
                at=self._time(),
                audit=audit_of_config(principal, Action.CONFIG_UPDATE, config.id, content),
            )

        return await self._change(principal, by, expected_revision, saved)

    async def publish(self, principal: Principal, by: ConfigBy, *, expected_revision: int | None = None) -> Config:
        """The draft becomes the next version, and that one the published. Raises BadUserInputError for what no
        completion could be made of, ConflictError as `update_draft` does."""

        async def published(config: Config) -> Config | None:
            await self.check(principal, await self.draft_of(config))
            return await self.store.publish_draft(
                config.organisation,
                config.id,
                expected_revision=config.revision,
                at=self._time(),
                by=principal.subject,
                audit=audit_of_config(principal, Action.CONFIG_PUBLISH, config.id),
            )

        return await self._change(principal, by, expected_revision, published)

    async def check(self, principal: Principal, content: ConfigContent) -> None:
        """Whether a draft like that can be published. Raises BadUserInputError, its path from `DRAFT` on."""
        await self._worked(principal.organisation, check_content, content, await self.vendors(principal.organisation))

    async def draft_of(self, config: Config) -> ConfigContent:
        if len(config.draft_text) <= SMALL:
            return config.draft
        return await self._worked(config.organisation, lambda: config.draft)

    async def content_of(self, version: ConfigVersion) -> ConfigContent:
        if len(version.text) <= SMALL:
            return version.content
        return await self._worked(version.organisation, lambda: version.content)

    async def rollback(
        self, principal: Principal, by: ConfigBy, number: int, *, expected_revision: int | None = None
    ) -> Config:
        """An older version becomes the published one again; the draft stays. Raises ConflictError as `update_draft`."""
        await self.version(principal, by, number)
        return await self._change(
            principal,
            by,
            expected_revision,
            lambda config: self.store.publish_version(
                config.organisation,
                config.id,
                number,
                expected_revision=config.revision,
                at=self._time(),
                audit=audit_of_config(principal, Action.CONFIG_ROLLBACK, config.id),
            ),
        )

    async def archive(self, principal: Principal, by: ConfigBy, *, expected_revision: int | None = None) -> Config:
        """No completion gets it from then on. Archiving twice is archiving once."""
        return await self._archive(principal, by, archived=True, expected_revision=expected_revision)

    async def unarchive(self, principal: Principal, by: ConfigBy, *, expected_revision: int | None = None) -> Config:
        return await self._archive(principal, by, archived=False, expected_revision=expected_revision)

    async def get(self, principal: Principal, by: ConfigBy) -> Config:
        with _told():
            if by.slug is not None:
                config = await self.store.by_slug(principal.organisation, by.slug)
            else:
                config = await self.store.by_id(principal.organisation, by.id or "")
        return _found(config)

    async def page(
        self,
        principal: Principal,
        *,
        first: int,
        after: str | None,
        where: ConfigFilter,
        order: ConfigOrder = ConfigOrder.UPDATED,
    ) -> ConfigPage:
        """Raises BadUserInputError for a page size beyond 1 to 100 or a cursor that this list did not make."""
        _check_first(first)
        cursor = None if after is None else _read_cursor(after, order)
        with _told():
            found = await self.store.page(
                principal.organisation, where=where, order=order, limit=first + 1, after=cursor
            )
        page = tuple((_write_cursor(config, order), config) for config in found[:first])
        return ConfigPage(page, more=len(found) > first)

    async def version(self, principal: Principal, by: ConfigBy, number: int) -> ConfigVersion:
        return await self.version_of(await self.get(principal, by), number)

    async def version_of(self, config: Config, number: int) -> ConfigVersion:
        with _told():
            version = await self.store.version(config.organisation, config.id, number)
        if version is None:
            raise NotFoundError(f"the config {config.slug!r} has no version {number}")
        return version

    async def versions(self, principal: Principal, by: ConfigBy, *, first: int, after: str | None) -> VersionPage:
        """Raises BadUserInputError as `page` does."""
        _check_first(first)
        before = None if after is None else _read_version_cursor(after)
        config = await self.get(principal, by)
        with _told():
            found = await self.store.versions(config.organisation, config.id, limit=first + 1, before=before)
        page = tuple((_encoded(f"v:{version.number}"), version) for version in found[:first])
        return VersionPage(page, more=len(found) > first)

    async def diff(self, principal: Principal, by: ConfigBy, before: int, after: int | None = None) -> ConfigDiff:
        """From one version to another; without `after`, to the draft. One after the other: raises as `Turns` does."""
        async with self.turns.turn(principal.organisation):
            config = await self.get(principal, by)
            old = (await self.version_of(config, before)).text
            if after is None:
                new, name = config.draft_text, "draft"
            else:
                new, name = (await self.version_of(config, after)).text, f"version {after}"
            async with self.one_at_work:
                return await asyncio.to_thread(diff, old, new, names=(f"version {before}", name))

    async def resolve(self, principal: Principal, call: ConfigCall) -> CompleteCommand:
        """The command that the call makes of the published version, or of the one it names. From the cache.

        Raises ForbiddenError, and BadUserInputError for a config that is archived or was never published and for wrong
        variables, its path from `input` on.
        """
        return command_of(await self.called(principal, call), call)

    async def called(self, principal: Principal, call: ConfigCall) -> ConfigVersion:
        """The version that `resolve` fills in. Raises as that does, but for the variables."""
        check_config_permitted(principal, call)
        ref = call.config
        path = ("input", "config")
        with _told():
            head = await self.cache.head(principal.organisation, ref.slug)
            if head is None:
                raise NotFoundError(f"no config named {ref.slug[:100]!r}")
            if head.archived:
                raise BadUserInputError(f"the config {ref.slug!r} is archived", path=(*path, "slug"))
            number = head.published if ref.version is None else ref.version
            if number is None:
                raise BadUserInputError(f"the config {ref.slug!r} was never published", path=(*path, "slug"))
            version = await self.cache.version(principal.organisation, head.id, number)
        if version is None:
            raise NotFoundError(f"the config {ref.slug!r} has no version {number}")
        return version

    async def _archive(
        self, principal: Principal, by: ConfigBy, *, archived: bool, expected_revision: int | None
    ) -> Config:
        async def write(config: Config) -> Config | None:
            if (config.archived_at is not None) is archived:
                return config
            at = self._time()
            action = Action.CONFIG_ARCHIVE if archived else Action.CONFIG_UNARCHIVE
            return await self.store.archive(
                config.organisation,
                config.id,
                at if archived else None,
                expected_revision=config.revision,
                at=at,
                audit=audit_of_config(principal, action, config.id),
            )

        return await self._change(principal, by, expected_revision, write)

    async def _change(
        self,
        principal: Principal,
        by: ConfigBy,
        expected_revision: int | None,
        write: Callable[[Config], Awaitable[Config | None]],
    ) -> Config:
        if expected_revision is not None:
            return await self._try(principal, by, expected_revision, write)
        key = principal.organisation, by
        if (lock := self.writing.get(key)) is None:
            lock = self.writing[key] = asyncio.Lock()
        async with lock:  # of this process's writes each finds what stands; other processes' are given way to
            for _ in range(MAX_OTHERS):
                with suppress(ConflictError):
                    return await self._try(principal, by, None, write)
            return await self._try(principal, by, None, write)

    async def _worked(self, organisation: str, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """On a thread, one at a time: what a large config takes is a long time for the loop."""
        async with self.small_turns.turn(organisation), self.one_at_work:
            return await asyncio.to_thread(work, *given, **named)

    async def _try(
        self,
        principal: Principal,
        by: ConfigBy,
        expected_revision: int | None,
        write: Callable[[Config], Awaitable[Config | None]],
    ) -> Config:
        config = await self.get(principal, by)
        _check_revision(config, expected_revision)
        return await self._written(config, write(config))

    async def _written(self, config: Config, writing: Awaitable[Config | None]) -> Config:
        try:
            with _told():
                return _found(await writing)
        finally:  # also where it failed or was cut short: it may have been written all the same
            self.cache.forget(config.organisation, config.slug)

    def _time(self) -> datetime:
        now = self.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors as the caller's."""
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the configs can't be reached at the moment") from error
    except StoreConflictError as error:
        raise ConflictError(str(error)) from error


def _found(config: Config | None) -> Config:
    if config is None:
        raise NotFoundError("no such config")
    return config


def _check_revision(config: Config, expected: int | None) -> None:
    if expected is not None and expected != config.revision:
        raise ConflictError(f"the config {config.slug!r} has revision {config.revision}, not {expected}")


def _check_first(first: int) -> None:
    if not 1 <= first <= MAX_PAGE:
        raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))


def _write_cursor(config: Config, order: ConfigOrder) -> str:
    if order is ConfigOrder.SLUG:
        return _encoded(f"s:{config.slug}")
    return _encoded(f"u:{(config.updated_at - _EPOCH) // _MILLISECOND}:{config.slug}")


def _read_cursor(text: str, order: ConfigOrder) -> ConfigCursor:
    """Of the same order alone: a place in one is none in the other."""
    if order is ConfigOrder.SLUG:
        return ConfigCursor(_decoded(text, r"s:([^:]+)")[1])
    found = _decoded(text, r"u:([0-9]{1,14}):([^:]+)")
    return ConfigCursor(found[2], _EPOCH + int(found[1]) * _MILLISECOND)


def _read_version_cursor(text: str) -> int:
    return int(_decoded(text, r"v:([0-9]{1,18})")[1])


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decoded(text: str, pattern: str) -> re.Match[str]:
    try:
        plain = base64.b64decode(text, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        plain = ""
    if (found := re.fullmatch(pattern, plain)) is None:
        raise BadUserInputError("not a cursor of this list", path=("after",))
    return found
