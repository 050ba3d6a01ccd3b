"""What is done with batches: submitted, looked at, cancelled, begun anew."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from persistence.audit_records import Action
from persistence.batch_records import ENDED, Batch, BatchFilter, BatchState, Item, ItemState
from persistence.ports import BatchStore, ObjectStore

from ..audit import AuditLog, Subject, event
from ..audit_fields import BATCH_FILE, audit_of_batch
from ..checks import check_range
from ..configs import Configs
from ..errors import BadUserInputError, ConflictError, NotFoundError, ServiceUnavailableError
from ..ids import new_id
from ..prices import Prices
from ..principal import Principal
from ..query_costs import CostBuckets
from ..tracing import UNTRACED, Tracer
from ..types import Completion
from ..webhooks import Webhooks
from .asked import LIFETIME, BatchAsked
from .json_texts import Texts, completion_of, upload_name
from .progress import BatchProgress
from .submitting import ID_PREFIX, Rehearsal, Source, Submitting, submitter_of
from .telling import told

MAX_PAGE = 100
LINK_S = 3600.0
UPLOAD_PREFIX = "upl_"

_ID = re.compile(rf"{ID_PREFIX}[0-9a-f]{{32}}")
_INDEX = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Newest first; `more`: there are older ones."""

    batches: tuple[Batch, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ItemPage:
    """By index; `more`: there are others behind."""

    items: tuple[Item, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Link:
    """To a file; `name` is the file's. `url` is a secret until it expires: absolute, or relative to this API's
    address."""

    name: str
    url: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Batches:
    """The use cases, each within the principal's organisation. All raise ServiceUnavailableError; NotFoundError, the
    same for what does not exist and what another organisation has; and what they say themselves. `now` is aware UTC;
    `wake` tells this process's dispatcher that there is something to do. `refused`: why nothing is accepted here, as
    its operator is to read it; None where batches are. `buckets`: see `Submitting`; without them nobody pays."""

    store: BatchStore
    objects: ObjectStore
    configs: Configs
    prices: Prices
    webhooks: Webhooks
    progress: BatchProgress
    now: Callable[[], datetime]
    wake: Callable[[], None]
    refused: str | None = None
    tracer: Tracer = UNTRACED
    buckets: CostBuckets | None = None

    async def submit(self, principal: Principal, asked: BatchAsked, source: Source) -> Batch:
        """As `Submitting.submit`."""
        self._check_accepted()
        batch = await self._submitting().submit(principal, asked, source)
        self.wake()
        return batch

    async def rehearse(self, principal: Principal, asked: BatchAsked, source: Source) -> Rehearsal:
        """As `Submitting.rehearse`."""
        return await self._submitting().rehearse(principal, asked, source)

    async def upload(self, principal: Principal, audit: AuditLog, *, seconds: int | None = None) -> Link:
        """Where a file of lines is brought, for so long; LINK_S by default. No link is handed out that the audit log
        has not. Raises BadUserInputError."""
        self._check_accepted()
        check_range("seconds", seconds, 60, 86_400)
        name = upload_name(new_id(UPLOAD_PREFIX)[0])
        link = await self._link(self.objects.upload_link, principal, name, seconds or LINK_S)
        subject = Subject(BATCH_FILE, principal.organisation)
        asked = {"file": name, "expiresAt": link.expires_at}
        await audit.note(event(principal, Action.BATCH_UPLOAD, subject, before=None, after=asked))
        return link

    async def get(self, principal: Principal, batch_id: str) -> Batch:
        if _ID.fullmatch(batch_id) is None:
            raise NotFoundError("no such batch")
        with told():
            found = await self.store.by_id(principal.organisation, batch_id)
        if found is None:
            raise NotFoundError("no such batch")
        return found

    async def page(
        self, principal: Principal, *, first: int, after: str | None, states: tuple[BatchState, ...] = ()
    ) -> BatchPage:
        """Raises BadUserInputError for a page size beyond 1 to 100 or a cursor that this list did not make."""
        _check_first(first)
        if after is not None and _ID.fullmatch(after) is None:
            raise BadUserInputError("not a cursor of this list", path=("after",))
        with told():
            found = await self.store.page(
                principal.organisation, where=BatchFilter(states), limit=first + 1, before=after
            )
        return BatchPage(tuple(found[:first]), more=len(found) > first)

    async def items(
        self, batch: Batch, *, first: int, after: str | None, states: tuple[ItemState, ...] = ()
    ) -> ItemPage:
        """Of a batch that the principal was given. Raises BadUserInputError as `page` does."""
        _check_first(first)
        if after is not None and _INDEX.fullmatch(after) is None:
            raise BadUserInputError("not a cursor of this list", path=("after",))
        behind = -1 if after is None else int(after)
        with told():
            found = await self.store.items(batch.organisation, batch.id, states=states, limit=first + 1, after=behind)
        return ItemPage(tuple(found[:first]), more=len(found) > first)

    async def answer(self, item: Item) -> Completion | None:
        """What an item was answered; None where it has no answer."""
        if item.result is None:
            return None
        with told():
            try:
                return completion_of(await Texts(self.objects).read(item.organisation, item.result))
            except FileNotFoundError:
                raise ServiceUnavailableError("the answer's file is not there") from None

    async def results(self, principal: Principal, batch: Batch) -> Link | None:
        """The file of its results; None until it has ended."""
        if batch.result_file is None:
            return None
        return await self._link(self.objects.download_link, principal, batch.result_file, LINK_S)

    async def cancel(self, principal: Principal, batch_id: str) -> Batch:
        """What waits is not begun, what runs is stopped. One that has ended stays as it is."""
        audit = audit_of_batch(principal, Action.BATCH_CANCEL, batch_id)
        with told():
            changed = await self.store.change(
                principal.organisation,
                batch_id,
                expects=(BatchState.RUNNING, BatchState.RETRYING, BatchState.RETRYING_ALL),
                values={"state": BatchState.CANCELLING},
                audit=audit,
            )
        self.wake()
        return changed or await self.get(principal, batch_id)

    async def retry(self, principal: Principal, batch_id: str, *, only_failed: bool) -> Batch:
        """Those that failed, or else those that were cancelled too, run anew, now for the principal; what succeeded
        stays. Raises ConflictError for one that has not ended, BadUserInputError where there is nothing to do."""
        standing = await self.get(principal, batch_id)
        if standing.state not in ENDED:
            raise ConflictError("the batch has not ended: cancel it first, or wait")
        counts = standing.counts
        if not counts.failed and (only_failed or not counts.cancelled):
            raise BadUserInputError("none of its items is to be tried anew", path=("input", "id"))
        now = self.now()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        values = {
            "state": BatchState.RETRYING if only_failed else BatchState.RETRYING_ALL,
            "submitter": submitter_of(principal, self.tracer),
            "started_at": now,
            "deadline": now + LIFETIME,
            "run": standing.run + 1,
            "ended_before": counts.succeeded + (counts.cancelled if only_failed else 0),
            "ended_at": None,
            "result_file": None,
        }
        audit = audit_of_batch(principal, Action.BATCH_RETRY, batch_id)
        with told():
            changed = await self.store.change(
                principal.organisation, batch_id, expects=(standing.state,), values=values, audit=audit
            )
        if changed is None:
            raise ConflictError("the batch is being tried anew already")
        self.wake()
        return changed

    def estimated_end(self, batch: Batch) -> datetime | None:
        """At the pace of this run until now; None where that can't be told."""
        ended = batch.counts.total - batch.counts.open - batch.ended_before
        if ended < 1 or not batch.counts.open or batch.state is not BatchState.RUNNING:
            return None
        now = self.now()
        left = (now - batch.started_at) / ended * batch.counts.open
        return min(now + left, batch.deadline or now + left)

    def _check_accepted(self) -> None:
        if self.refused is not None:
            raise ServiceUnavailableError(self.refused)

    async def _link(self, make: Callable[..., Awaitable[str]], principal: Principal, name: str, seconds: float) -> Link:
        expires_at = self.now() + timedelta(seconds=seconds)
        with told():
            return Link(name, await make(principal.organisation, name, seconds=seconds), expires_at)

    def _submitting(self) -> Submitting:
        return Submitting(
            self.store,
            self.objects,
            self.configs,
            self.prices,
            self.webhooks,
            self.now,
            self.buckets,
            self.tracer,
        )


def _check_first(first: int) -> None:
    if not 1 <= first <= MAX_PAGE:
        raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))
