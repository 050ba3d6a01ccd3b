"""How a batch comes to be: every line checked, its items durable, and only then its id told."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial

import orjson

from persistence.audit_records import Action
from persistence.batch_records import Batch, BatchMode, BatchState, Counts, Item, Submitter
from persistence.ports import BatchStore, ObjectStore, StoreUnavailableError

from ..audit_fields import audit_of_batch
from ..booking import input_size
from ..bounds import has_media, most_cost, most_input, most_output
from ..configs import Configs
from ..errors import BadUserInputError, ConflictError, NotFoundError
from ..ids import new_id
from ..prices import Prices
from ..principal import Principal
from ..query_costs import CostBuckets, Meter, caller_of
from ..tracing import UNTRACED, Tracer
from ..types import CompleteCommand
from ..webhooks import Webhooks
from .asked import (
    BatchAsked,
    Given,
    ItemAsked,
    Problem,
    check_asked,
    check_deadline,
    check_line,
    end_of,
    lines_of,
    listed,
)
from .forgetting import discard
from .json_texts import Texts, command_text, input_name
from .reading import Reader, ReadLine, refusal
from .telling import told

ID_PREFIX = "bat_"
MAX_UNENDED = 100
"""Batches of one organisation that have not ended."""
AT_ONCE = 500
AT_ONCE_BYTES = 4 * 1024 * 1024
MAX_PROBLEMS = 100
"""As many are told of; all are counted."""

Source = Sequence[Given] | Callable[[bytes], ItemAsked]
"""The inputs themselves, or how a line of the file is read. That raises BadUserInputError, its path from `input` on."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a batch would be. `most_cost` in USD: an upper bound for one attempt at each of its items, as far as a price
    and a bound are known; `unpriced` items have none. `problems` are the first of so many as `wrong`."""

    items: int
    most_cost: Decimal
    unpriced: int
    problems: tuple[Problem, ...]
    wrong: int


@dataclass(frozen=True, slots=True)
class Submitting:
    """The use cases. Both raise BadUserInputError, NotFoundError, ForbiddenError and ServiceUnavailableError. `now` is
    aware UTC; `buckets` are what callers pay from for what is read."""

    store: BatchStore
    objects: ObjectStore
    configs: Configs
    prices: Prices
    webhooks: Webhooks
    now: Callable[[], datetime]
    buckets: CostBuckets | None
    tracer: Tracer = UNTRACED

    async def submit(self, principal: Principal, asked: BatchAsked, source: Source) -> Batch:
        """Durable when it returns. By an idempotency key that was used for the same, what came of that; raises
        ConflictError where it was used for something else, or where too many batches have not ended."""
        check_asked(asked)
        with told():
            standing = await self._standing(principal, asked)
            if standing is not None:
                return await self._again(standing, principal, asked, source)
            now = _whole(self.now())
            check_deadline(asked, now)
            batch = _begun(submitter_of(principal, self.tracer), principal.organisation, asked, now)
            await self._check_webhook(principal, asked)
            await self.store.begin(batch)
            try:
                filled = await self._filled(batch, principal, asked, source)
                audit = audit_of_batch(principal, Action.BATCH_SUBMIT, batch.id)
                opened = await self.store.open(filled, at_most=MAX_UNENDED, audit=audit)
            except BaseException:  # whatever it is, nobody will ever open it
                with suppress(StoreUnavailableError):  # then it is swept up later
                    await discard(self.store, self.objects, batch.organisation, batch.id)
                raise
            if opened.id != batch.id:
                await discard(self.store, self.objects, batch.organisation, batch.id)
            return _same(opened, opened.digest, filled.digest)

    async def rehearse(self, principal: Principal, asked: BatchAsked, source: Source) -> Rehearsal:
        """Every line is checked, and nothing accepted."""
        now = self.now()
        check_asked(asked)
        check_deadline(asked, now)
        await self._check_webhook(principal, asked)
        pricing = _Pricing(asked.mode is BatchMode.PROVIDER, now)
        with told():
            book = await self.prices.book(principal.organisation)
            meter = self._meter(principal)
            async with aclosing(self._lines(principal, asked, source, new_id(ID_PREFIX)[0], meter)) as lines:
                async for line in lines:
                    if isinstance(line, Problem):
                        pricing.problem(line)
                    else:
                        with meter.working():
                            pricing.add(line.command, partial(most_cost, book))
        return pricing.rehearsal()

    async def _check_webhook(self, principal: Principal, asked: BatchAsked) -> None:
        if asked.webhook is not None and not (await self.webhooks.get(principal, asked.webhook)).enabled:
            raise BadUserInputError(f"the webhook {asked.webhook} is disabled", path=("input", "webhook"))

    async def _standing(self, principal: Principal, asked: BatchAsked) -> Batch | None:
        if asked.idempotency_key is None:
            return None
        return await self.store.by_key(principal.organisation, asked.idempotency_key)

    async def _filled(self, batch: Batch, principal: Principal, asked: BatchAsked, source: Source) -> Batch:
        """With all its items. Raises BadUserInputError for the first line that is wrong."""
        meter = self._meter(principal)
        filling = _Filling(self.store, Texts(self.objects), batch, asked, meter)
        async with aclosing(self._lines(principal, asked, source, batch.id, meter)) as lines:
            async for line in lines:
                if isinstance(line, Problem):
                    raise refusal(line, file=asked.file is not None)
                await filling.take(line)
        await filling.flush()
        return replace(
            batch,
            counts=Counts(waiting=filling.count),
            digest=filling.digest.hexdigest(),
            idempotency_key=asked.idempotency_key,
        )

    async def _again(self, standing: Batch, principal: Principal, asked: BatchAsked, source: Source) -> Batch:
        """Uploads are forgotten sooner than batches: then the rest of the call tells."""
        try:
            digest = await self._digest(principal, asked, source)
        except NotFoundError:
            return _same(standing, standing.call_digest, _call_digest(asked))
        return _same(standing, standing.digest, digest)

    async def _digest(self, principal: Principal, asked: BatchAsked, source: Source) -> str:
        digest, meter = _digest_of(asked), self._meter(principal)
        try:
            async with aclosing(self._given(principal, asked, source, meter)) as given:
                async for each in given:
                    await meter.turn()
                    with meter.working():
                        digest.update(each.raw + b"\n")
        finally:
            meter.pay()
        return digest.hexdigest()

    async def _lines(
        self, principal: Principal, asked: BatchAsked, source: Source, batch_id: str, meter: Meter
    ) -> AsyncGenerator[ReadLine | Problem, None]:
        vendors = await self.configs.vendors(principal.organisation)
        reader = Reader(self.configs, vendors, principal, asked, batch_id, meter)
        try:
            given = self._given(principal, asked, source, meter)
            async with aclosing(given), aclosing(reader.read(given)) as lines:
                async for line in lines:
                    yield line
        finally:
            meter.pay()

    def _meter(self, principal: Principal) -> Meter:
        return Meter(self.buckets, caller_of(principal))

    async def _given(
        self, principal: Principal, asked: BatchAsked, source: Source, meter: Meter
    ) -> AsyncGenerator[Given, None]:
        if not callable(source):
            async with aclosing(listed(source)) as given:
                async for each in given:
                    yield each
            return
        number = 0
        try:
            chunks = self.objects.get(principal.organisation, asked.file or "")
            async with aclosing(chunks), aclosing(lines_of(chunks, meter)) as lines:
                async for line in lines:
                    number += 1
                    check_line(line, number)
                    if line.strip():
                        yield Given(line, partial(source, line), number)
        except (FileNotFoundError, ValueError):
            raise NotFoundError("there is no such file: upload it first") from None


class _Filling:
    """Puts items into the store, many at once."""

    def __init__(self, store: BatchStore, texts: Texts, batch: Batch, asked: BatchAsked, meter: Meter) -> None:
        self.count = 0
        self.digest = _digest_of(asked)
        self._store = store
        self._texts = texts
        self._batch = batch
        self._meter = meter
        self._items: list[Item] = []
        self._size = 0

    async def take(self, line: ReadLine) -> None:
        with self._meter.working():
            text, index = command_text(line.command), self.count
            self.digest.update(line.raw + b"\n")
        organisation, batch = self._batch.organisation, self._batch.id
        kept = await self._texts.keep(organisation, input_name(batch, index), text)
        self._items.append(Item(organisation, batch, index, kept, line.custom_id, due=self._batch.created_at))
        self.count += 1
        self._size += len(text)
        if len(self._items) >= AT_ONCE or self._size >= AT_ONCE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        if self._items:
            items, self._items, self._size = self._items, [], 0
            await self._store.add(items)


class _Pricing:
    """Sums up what a batch may come to."""

    def __init__(self, batched: bool, now: datetime) -> None:
        self._batched = batched
        self._now = now
        self._items = self._unpriced = self._wrong = 0
        self._cost = Decimal(0)
        self._problems: list[Problem] = []

    def problem(self, problem: Problem) -> None:
        self._items += 1
        self._wrong += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem)

    def add(self, command: CompleteCommand, most: Callable[..., Decimal | None]) -> None:
        """The dearest of its targets."""
        self._items += 1
        size, media = input_size(command), has_media(command)
        costs: list[Decimal | None] = []
        for target in (command.target, *command.fallbacks):
            out = most_output(command, target)
            tokens = None if out is None else (most_input(command, size, target), out)
            costs.append(
                None if tokens is None else most(target, tokens, self._now, media=media, batched=self._batched)
            )
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            self._unpriced += 1
        else:
            self._cost += max(known)

    def rehearsal(self) -> Rehearsal:
        return Rehearsal(self._items, self._cost, self._unpriced, tuple(self._problems), self._wrong)


def submitter_of(principal: Principal, tracer: Tracer) -> Submitter:
    """With the operation that runs."""
    limits, request_id = principal.limits, principal.origin.request_id or None
    return Submitter(principal.subject, principal.key_id, limits.models, limits.configs, request_id, tracer.current())


def _begun(submitter: Submitter, organisation: str, asked: BatchAsked, now: datetime) -> Batch:
    return Batch(
        id=new_id(ID_PREFIX)[0],
        organisation=organisation,
        state=BatchState.RUNNING,
        mode=asked.mode,
        priority=asked.priority,
        submitter=submitter,
        digest="",
        call_digest=_call_digest(asked),
        created_at=now,
        started_at=now,
        concurrency=asked.concurrency,
        deadline=end_of(asked, now),
        webhook=asked.webhook,
        labels=asked.labels,
    )


def _same(batch: Batch, kept: str, asked: str) -> Batch:
    if kept != asked:
        raise ConflictError(f"the idempotencyKey was used for {batch.id}, which was asked for with something else")
    return batch


def _digest_of(asked: BatchAsked) -> hashlib._Hash:
    """Of everything but where the lines are."""
    bounds = (asked.mode, asked.priority, asked.concurrency, asked.deadline)
    told = (*bounds, asked.webhook, dict(asked.labels), asked.defaults)
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS) + b"\n")


def _call_digest(asked: BatchAsked) -> str:
    """With the name of the file, in place of its lines."""
    digest = _digest_of(asked)
    digest.update((asked.file or "").encode())
    return digest.hexdigest()


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
