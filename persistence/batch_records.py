"""Batches and their items as they are stored. Money is Decimal USD; times are aware UTC, in whole milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from .reservation_records import Allowance


class BatchMode(StrEnum):
    """LIVE: our workers make each call. PROVIDER: the vendor's own batch API does the work."""

    LIVE = "live"
    PROVIDER = "provider"


class BatchState(StrEnum):
    """CANCELLING and RETRYING: its items are being moved to where they belong, by whoever dispatches. RETRYING_ALL:
    those too that were cancelled."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    RETRYING = "retrying"
    RETRYING_ALL = "retrying_all"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


ENDED = (BatchState.COMPLETED, BatchState.CANCELLED)


class ItemState(StrEnum):
    """WAITING: for its turn, or until it is due. QUEUED: a ticket for it is in the queue. RUNNING: somebody has claimed
    it. Of the rest none is ever left but for a retry of its batch."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (ItemState.WAITING, ItemState.QUEUED, ItemState.RUNNING)
OVER = (ItemState.SUCCEEDED, ItemState.FAILED, ItemState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items are in each state. The fields are the states' names."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def open(self) -> int:
        return self.waiting + self.queued + self.running

    @property
    def total(self) -> int:
        return self.open + self.succeeded + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who a batch's items run for, and what he was permitted as he submitted it: see `resolvers.principal.Limits`.
    `request_id` and `trace`, a W3C `traceparent`, are of the operation that he did it by; None where that is not known.
    """

    subject: str
    key_id: str | None = None
    models: tuple[str, ...] | None = None
    configs: tuple[str, ...] | None = None
    request_id: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Many completions under one id, which sorts by time. `counts` and `cost` are kept up with each move of an item;
    `cost` is the sum of what is known, `unpriced` how many ended items have a part without a known cost. `concurrency`:
    so many of its items are queued or running at once at most, None for any number. `digest`: of all that was
    submitted, so that an idempotency key used for something else is told; `call_digest`: of that without the lines of
    its file, which does not last as long. `webhook`: the id of the one that is told of its end; None for all that want
    to know. `run` counts from 1; each retry is one more. `ended_before`: how many of its items had ended as that began.
    `result_file` is the name of the file of results, None until it has ended."""

    id: str
    organisation: str
    state: BatchState
    mode: BatchMode
    priority: int
    submitter: Submitter
    digest: str
    created_at: datetime
    started_at: datetime
    concurrency: int | None = None
    deadline: datetime | None = None
    webhook: str | None = None
    call_digest: str = ""
    idempotency_key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    counts: Counts = Counts()
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    run: int = 1
    ended_before: int = 0
    ended_at: datetime | None = None
    result_file: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """JSON text: itself, or, where it is a large one, the name of the file that holds it."""

    text: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an item has no answer, as its reader is told."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Item:
    """One completion of a batch, `index` counting from 0. `due`: it may be queued then (WAITING), or whoever has it has
    lost it by then (QUEUED, RUNNING); None once it has ended. `fence` counts its claims: who holds an older one may
    change nothing. `failures` are attempts that ended badly, `lost` those whose worker was never heard of again.
    `vendor_run`: the number of the vendor's batch that it is in. `cost` is of all its attempts, as far as it is known.
    """

    organisation: str
    batch: str
    index: int
    input: Text
    custom_id: str | None = None
    state: ItemState = ItemState.WAITING
    due: datetime | None = None
    fence: int = 0
    failures: int = 0
    lost: int = 0
    completion_id: str | None = None
    vendor_run: int | None = None
    result: Text | None = None
    error: ItemError | None = None
    cost: Decimal | None = None
    unpriced: bool = False
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Compare and set of one item: where it is in a state of `expects`, and has that `fence` (None: any), it comes to
    be in the state `to`. `claims`: under the next fence; `revokes` too, and nobody holds it. `resets`: its failures and
    its error are forgotten. `failures`, `lost` and `cost` are added; other values are set where they are not None, but
    `due`, which always is."""

    organisation: str
    batch: str
    index: int
    expects: tuple[ItemState, ...]
    to: ItemState
    fence: int | None = None
    due: datetime | None = None
    claims: bool = False
    revokes: bool = False
    resets: bool = False
    failures: int = 0
    lost: int = 0
    completion_id: str | None = None
    vendor_run: int | None = None
    result: Text | None = None
    error: ItemError | None = None
    cost: Decimal | None = None
    unpriced: bool = False
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VendorRun:
    """A part of a batch that was given to the vendor as a batch of its own. `vendor_id` is the vendor's name of it,
    None until it has answered; `key_id` the key that it was given by. `cancelled`: the vendor was told to stop.
    `ended`: its results are collected. `reserved`: what it is to hold of budgets until then; `holds`: it has got it."""

    organisation: str
    batch: str
    number: int
    provider: str
    model: str
    key_id: str
    created_at: datetime
    vendor_id: str | None = None
    polls: int = 0
    poll_at: datetime | None = None
    cancelled: bool = False
    ended: bool = False
    reserved: tuple[Allowance, ...] = ()
    holds: bool = False


@dataclass(frozen=True, slots=True)
class BatchFilter:
    """`states`: in one of them; empty: in any."""

    states: tuple[BatchState, ...] = ()
