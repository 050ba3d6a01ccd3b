"""What an organisation has written: configs, price rules; and the news of others' writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Protocol

from ..change_records import Change
from ..config_records import Config, ConfigContent, ConfigCursor, ConfigFilter, ConfigOrder, ConfigVersion
from ..price_records import PriceFilter, PriceRule
from .audit import Audit


class ConfigStore(Protocol):
    """Configs and their versions. Every method raises StoreUnavailableError, and ValueError for what can't be stored.

    A write changes one config in one transaction and returns it as it is then, its revision one higher; None where the
    organisation has no such config (or version). It raises StoreConflictError unless `expected_revision` is the newest.
    What `audit` makes of it is committed with it.
    """

    async def create(self, config: Config, *, audit: Audit[Config]) -> None:
        """Raises StoreConflictError where the organisation has the slug, archived or not."""
        ...

    async def by_id(self, organisation: str, config_id: str) -> Config | None: ...

    async def by_slug(self, organisation: str, slug: str) -> Config | None: ...

    async def save_draft(
        self,
        organisation: str,
        config_id: str,
        draft: ConfigContent,
        *,
        expected_revision: int,
        at: datetime,
        audit: Audit[Config],
    ) -> Config | None: ...

    async def publish_draft(
        self, organisation: str, config_id: str, *, expected_revision: int, at: datetime, by: str, audit: Audit[Config]
    ) -> Config | None:
        """Makes the draft the next version, and that one the published."""
        ...

    async def publish_version(
        self,
        organisation: str,
        config_id: str,
        number: int,
        *,
        expected_revision: int,
        at: datetime,
        audit: Audit[Config],
    ) -> Config | None:
        """Makes an older version the published one again; no version is added."""
        ...

    async def archive(
        self,
        organisation: str,
        config_id: str,
        archived_at: datetime | None,
        *,
        expected_revision: int,
        at: datetime,
        audit: Audit[Config],
    ) -> Config | None:
        """Without `archived_at` it is taken back."""
        ...

    async def version(self, organisation: str, config_id: str, number: int) -> ConfigVersion | None: ...

    async def versions(
        self, organisation: str, config_id: str, *, limit: int, before: int | None = None
    ) -> Sequence[ConfigVersion]:
        """Newest first; `before`: with smaller numbers alone."""
        ...

    async def page(
        self,
        organisation: str,
        *,
        where: ConfigFilter,
        order: ConfigOrder,
        limit: int,
        after: ConfigCursor | None = None,
    ) -> Sequence[Config]:
        """A config that is not written meanwhile comes exactly once, one that is at most once."""
        ...


class PriceStore(Protocol):
    """Price rules. Every method raises StoreUnavailableError, and ValueError for what can't be stored. What `audit`
    makes of a write is committed with it."""

    async def add(self, rule: PriceRule, *, at_most: int, audit: Audit[PriceRule]) -> None:
        """Raises StoreConflictError where the organisation has `at_most` rules that have not ended by
        `rule.created_at`."""
        ...

    async def by_id(self, organisation: str, rule_id: str) -> PriceRule | None: ...

    async def end(
        self, organisation: str, rule_id: str, until: datetime, *, now: datetime, audit: Audit[PriceRule]
    ) -> PriceRule | None:
        """The rule with its new end; None where the organisation has no such rule. Raises StoreConflictError where it
        has ended by `now`."""
        ...

    async def unended(self, organisation: str, *, since: datetime) -> Sequence[PriceRule]:
        """All rules without an end, or with one after `since`, oldest first."""
        ...

    async def page(
        self, organisation: str, *, where: PriceFilter, limit: int, before: str | None = None
    ) -> Sequence[PriceRule]:
        """Newest first; `before`: with smaller ids alone."""
        ...


class ChangeFeed(Protocol):
    """What is written to configs and price rules, by whichever process, this one too."""

    def changes(self) -> AsyncGenerator[Change, None]:
        """Endless; nothing is left out, though something may come twice. Raises StoreUnavailableError; asked for once
        more, it goes on where it broke off."""
        ...
