"""What the use cases ask of a store. Protocols only: no driver is reachable from here.

Every read takes the organisation: tenant scope is part of the store's own query.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from .change_records import Change
from .config_records import Config, ConfigContent, ConfigCursor, ConfigFilter, ConfigOrder, ConfigVersion
from .object_records import StoredObject
from .price_records import PriceFilter, PriceRule
from .queue_records import Job, QueueDepth
from .records import CompletionFilter, Cursor, LedgerEntry
from .shared_records import Demand, Replayed, Shortage
from .usage_records import UsageCell, UsageSelection


class StoreUnavailableError(Exception):
    """The store can't be reached or can't write, and the call may be repeated. Nothing of it was kept; or all of it,
    where the connection to a server broke as that answered."""


class Conflict(StrEnum):
    """What a write came too late for."""

    REVISION = "revision"
    SLUG = "slug"
    ENDED = "ended"
    FULL = "full"


class StoreConflictError(Exception):
    """Another write came first: the revision that was expected is no longer the newest, the slug is taken, the rule has
    ended, or there are as many as may be. Nothing was kept."""

    def __init__(self, message: str, *, on: Conflict) -> None:
        super().__init__(message)
        self.on = on


class LedgerStore(Protocol):
    """The append-only ledger of attempts. Every method raises StoreUnavailableError."""

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Commit all entries in one transaction, durably, before returning. An entry already there stays as it is.
        Without entries it tells whether any could be committed."""
        ...

    async def completion(self, organisation: str, completion_id: str) -> Sequence[LedgerEntry]:
        """One completion's entries by attempt; empty if there is none in that organisation."""
        ...

    async def completion_by_key(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        """The same by idempotency key; the newest completion, should the key have been used again."""
        ...

    async def completions(
        self, organisation: str, *, where: CompletionFilter, limit: int, after: Cursor | None = None
    ) -> Sequence[Sequence[LedgerEntry]]:
        """Completions, newest first, each with all its entries. A completion matches where any of its entries does;
        `where.outcome` is its last attempt's."""
        ...

    async def usage(self, organisation: str, asked: UsageSelection) -> Sequence[UsageCell]:
        """Sums over the selected entries, all of one moment, in any order. Cells without entries may be left out."""
        ...


class InflightLog(Protocol):
    """Attempts that were sent and are not yet in the ledger: what a killed process leaves for its successor.

    Survives the kill of the process, not the loss of power, unless an entry is kept. Calls are quick.
    """

    def begin(self, entry: LedgerEntry) -> None:
        """Note an attempt before it is sent, as the entry that would be booked if nothing more were heard of it.
        Raises StoreUnavailableError."""
        ...

    async def keep(self, entries: Sequence[LedgerEntry]) -> None:
        """The spool: entries of attempts that have ended, in the place of their notes; they survive the loss of power
        when this returns. Raises StoreUnavailableError: then the notes from before may still stand."""
        ...

    def end(self, *entries: LedgerEntry) -> None:
        """Forget attempts whose entries are committed. Each has the same key as the one given to `begin`."""
        ...

    def abandoned(self) -> Sequence[LedgerEntry]:
        """What an earlier process left: noted, never ended."""
        ...


class ConfigStore(Protocol):
    """Configs and their versions. Every method raises StoreUnavailableError, and ValueError for what can't be stored.

    A write changes one config in one transaction and returns it as it is then, its revision one higher; None where the
    organisation has no such config (or version). It raises StoreConflictError unless `expected_revision` is the newest.
    """

    async def create(self, config: Config) -> None:
        """Raises StoreConflictError where the organisation has the slug, archived or not."""
        ...

    async def by_id(self, organisation: str, config_id: str) -> Config | None: ...

    async def by_slug(self, organisation: str, slug: str) -> Config | None: ...

    async def save_draft(
        self, organisation: str, config_id: str, draft: ConfigContent, *, expected_revision: int, at: datetime
    ) -> Config | None: ...

    async def publish_draft(
        self, organisation: str, config_id: str, *, expected_revision: int, at: datetime, by: str
    ) -> Config | None:
        """Makes the draft the next version, and that one the published."""
        ...

    async def publish_version(
        self, organisation: str, config_id: str, number: int, *, expected_revision: int, at: datetime
    ) -> Config | None:
        """Makes an older version the published one again; no version is added."""
        ...

    async def archive(
        self, organisation: str, config_id: str, archived_at: datetime | None, *, expected_revision: int, at: datetime
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
    """Price rules. Every method raises StoreUnavailableError, and ValueError for what can't be stored."""

    async def add(self, rule: PriceRule, *, at_most: int) -> None:
        """Raises StoreConflictError where the organisation has `at_most` rules that have not ended by
        `rule.created_at`."""
        ...

    async def by_id(self, organisation: str, rule_id: str) -> PriceRule | None: ...

    async def end(self, organisation: str, rule_id: str, until: datetime, *, now: datetime) -> PriceRule | None:
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


class SharedValues(Protocol):
    """Small values that all processes see, each forgotten after its time. Every method raises StoreUnavailableError.

    A key belongs to an organisation, or to the operator (`organisation` None); so no two of them meet.
    """

    async def claim(self, organisation: str | None, key: str, value: str, *, seconds: float) -> str | None:
        """None where the value now stands there; else the one that does, which stays."""
        ...

    async def read(self, organisation: str | None, key: str) -> str | None: ...

    async def write(self, organisation: str | None, key: str, value: str, *, seconds: float) -> None: ...

    async def release(self, organisation: str | None, key: str, value: str) -> bool:
        """Forget it, if it is still that value; whether it was."""
        ...


class Events(Protocol):
    """Messages between processes, to whoever listens as they are sent, and to nobody later."""

    async def publish(self, channel: str, message: str) -> None:
        """Returns when it is on its way. Raises StoreUnavailableError."""
        ...

    def listen(self, channel: str) -> AbstractAsyncContextManager[AsyncGenerator[str, None]]:
        """From the entering on, what is sent to the channel. While the server is away nothing comes, and what was sent
        meanwhile is lost; then it goes on by itself. A listener that lags LISTENER_BACKLOG messages behind loses the
        oldest. Entering raises StoreUnavailableError."""
        ...


LISTENER_BACKLOG = 1_000


class Counters(Protocol):
    """Amounts that all processes count together. Every method raises StoreUnavailableError."""

    async def take(self, organisation: str, demands: Sequence[Demand]) -> Shortage | None:
        """All of them, and None; or nothing at all, and the first that can't be met. The organisation's are taken in
        one step, then the operator's: where those can't be, the organisation's are given back. Cancelled, or with
        StoreUnavailableError, some may stay taken until their time is over."""
        ...

    async def give(self, organisation: str, demands: Sequence[Demand], *, seconds_ago: float = 0.0) -> None:
        """Take back what was taken, never below nothing. What has begun anew since `seconds_ago`, when it was taken,
        stays as it is."""
        ...


class Replays(Protocol):
    """The events of streams, kept for whoever comes back for them. Every method raises StoreUnavailableError."""

    async def append(self, organisation: str, stream: str, events: Sequence[Replayed], *, seconds: float) -> None:
        """Each sequence is greater than those before; one that is not is left out, so that appending twice is
        appending once. The stream is forgotten `seconds` after the last append; of its events REPLAYED_AT_MOST
        or somewhat more are kept, the newest."""
        ...

    async def read(self, organisation: str, stream: str, *, after: int, limit: int) -> Sequence[Replayed] | None:
        """Those with greater sequences than `after` (-1: from the first), oldest first, as far as there are any now.
        None where there is no such stream, or no more, or where events after `after` have been forgotten."""
        ...


REPLAYED_AT_MOST = 10_000


class Delivery(Protocol):
    """A job in a worker's hands, which ends it in one of four ways. Each raises StoreUnavailableError: then the job
    comes again."""

    @property
    def job(self) -> Job: ...

    async def done(self) -> None: ...

    async def failed(self, reason: str) -> None:
        """It comes again when the delay of its failures is over (RETRY_DELAYS_S); after the last of them it is
        parked."""
        ...

    async def refused(self, reason: str) -> None:
        """It can never be done: it is parked at once."""
        ...

    async def put_back(self) -> None:
        """It comes again, to anybody, and this was no failure of its own."""
        ...


class JobQueue(Protocol):
    """Durable jobs, each given to one worker at a time, and again where that one dies. A job may come twice, so doing
    it twice is doing it once. Every method raises StoreUnavailableError."""

    async def publish(self, jobs: Sequence[Job]) -> None:
        """Returns when all are durable; with StoreUnavailableError some may be."""
        ...

    def work(self, *, prefetch: int) -> AbstractAsyncContextManager[AsyncGenerator[Sequence[Delivery], None]]:
        """Jobs, about the oldest first, each time as many as there are, at most `prefetch` in hand at once. What is in
        hand as it is left is put back. Entering, and the generator as the queue goes away, raise StoreUnavailableError:
        what was in hand then comes again."""
        ...

    async def parked(self, *, limit: int) -> Sequence[Job]:
        """The oldest first."""
        ...

    async def replay(self, job_id: str) -> bool:
        """Give a parked job to the workers once more, as new, its failures forgotten; whether there was such a one."""
        ...

    async def drop(self, job_id: str) -> bool:
        """Forget a parked job; whether there was such a one."""
        ...

    async def depth(self) -> QueueDepth: ...


class ObjectStore(Protocol):
    """Files by name, each an organisation's own. Names are of ASCII letters, digits and "-_./", without "..", at most
    200 characters; "/" stands between parts, and no file's name is another's folder (`a` and `a/b`). A `prefix` is
    such a folder, with "/" at its end, or empty. Every method raises StoreUnavailableError, and ValueError for such a
    name."""

    async def put(self, organisation: str, name: str, content: AsyncIterable[bytes]) -> int:
        """Its size in bytes. Visible as a whole, once this returns, in the place of an older one; never in part, and
        not at all where `content` raises or the call is cancelled before its end."""
        ...

    def get(self, organisation: str, name: str) -> AsyncGenerator[bytes, None]:
        """Raises FileNotFoundError. A reader has an hour, then it is StoreUnavailableError."""
        ...

    async def about(self, organisation: str, name: str) -> StoredObject | None: ...

    async def page(
        self, organisation: str, *, prefix: str = "", limit: int, after: str | None = None
    ) -> Sequence[StoredObject]:
        """By name; `after`: with greater names alone."""
        ...

    async def delete(self, organisation: str, name: str) -> None:
        """Nothing happens where there is none."""
        ...

    async def upload_link(self, organisation: str, name: str, *, seconds: float) -> str:
        """A URL that takes the file by PUT until then, from whoever has it, without any other credential. Relative to
        this server's own address where it takes the file itself. Azure wants the header `x-ms-blob-type: BlockBlob`
        with the file; of what size it is, only this server bounds. At most LINK_SECONDS_AT_MOST, else ValueError."""
        ...

    async def download_link(self, organisation: str, name: str, *, seconds: float) -> str:
        """A URL that gives the file by GET until then; the same is true of it."""
        ...

    async def forget_older(self, than: datetime, *, prefix: str = "") -> int:
        """Delete every organisation's files under `prefix` that were written before; how many. One that is written
        anew at that moment may go too."""
        ...


LINK_SECONDS_AT_MOST = 7 * 24 * 3600
"""As S3 has it: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html"""
