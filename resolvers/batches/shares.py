"""Whose turn it is: who has the least under way comes next, and within an organisation the batch of higher priority.
Pure."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

from persistence.batch_records import Batch

Name = tuple[str, str]
"""Organisation and id."""


def shares(
    batches: Sequence[Batch], given: Mapping[Name, int], room: int, exhausted: Collection[Name]
) -> Mapping[Name, int]:
    """How many items each batch may queue now, `room` in all. `given`: what it got already, since its counts were read;
    `exhausted` ones have no more that are due."""
    ordered = sorted(batches, key=lambda batch: (batch.organisation, -batch.priority, batch.id))
    heap: list[tuple[int, str]] = []
    wants: dict[str, list[tuple[Name, int]]] = {}
    for organisation, own in groupby(ordered, key=lambda batch: batch.organisation):
        mine = list(own)
        under_way = sum(batch.counts.queued + batch.counts.running + given.get(name(batch), 0) for batch in mine)
        wants[organisation] = [
            (name(batch), want)
            for batch in reversed(mine)
            if name(batch) not in exhausted and (want := _wants(batch, given.get(name(batch), 0))) > 0
        ]
        heap.append((under_way, organisation))
    heapq.heapify(heap)
    found: dict[Name, int] = {}
    while room > 0 and heap:
        under_way, organisation = heapq.heappop(heap)
        if not wants[organisation]:
            continue
        batch, want = wants[organisation].pop()
        found[batch] = found.get(batch, 0) + 1
        room -= 1
        if want > 1:
            wants[organisation].append((batch, want - 1))
        heapq.heappush(heap, (under_way + 1, organisation))
    return found


def _wants(batch: Batch, given: int) -> int:
    waiting = batch.counts.waiting - given
    if batch.concurrency is None:
        return waiting
    return min(waiting, batch.concurrency - batch.counts.queued - batch.counts.running - given)


def name(batch: Batch) -> Name:
    return batch.organisation, batch.id
