"""Moves of items on MongoDB, without a transaction: one that is open as its process is killed would keep everybody from
the batch for a minute, until the server gives it up.

Each item is moved by itself, with a mark that names the writer and its turn; then the batch's counts are changed, once
for a turn; then the marks go. Marks that stay were left by a process that died in between: whoever finds them counts
what they stand for, if nobody has. An item with a mark is not moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

from pymongo import UpdateOne

from ..batch_moves import Change, changes, moved
from ..batch_records import Item, ItemState, Move
from .batch_documents import batch_name, item_document, item_name, item_of, money, plain
from .client import Database, Document, Mongo
from .times import stamp

LEAN: Document = {"input": 0, "result": 0}
_FIXED = ("_id", "custom_id", "input")

Name = tuple[str, str, int]
"""Organisation, batch and index."""


class MongoMoves:
    """One writer, whose turns follow each other. Raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._turns = asyncio.Lock()
        self._writer = uuid4().hex
        self._turn = 0

    async def move(self, moves: Sequence[Move], now: datetime) -> Sequence[Item | None]:
        """As `BatchStore.move`, each item for itself. Where it raises, some may have been moved."""
        async with self._turns:
            self._turn += 1
            mark = {"writer": self._writer, "turn": self._turn, "at": stamp(now)}
            try:
                return await self._mongo.write(lambda database: _move(database, moves, mark))
            except BaseException:  # whatever it is: what is marked was not counted, and a later turn would hide that
                self._writer, self._turn = uuid4().hex, 0
                raise

    async def mend(self, organisation: str, batch: str, before: datetime) -> int:
        """How many items had been left with a mark since before then."""
        left = {"_id.organisation": organisation, "_id.batch": batch, "mark.at": {"$lt": stamp(before)}}
        found = await self._mongo.report(
            lambda database: database.batch_items.find(left, LEAN).hint("marks").to_list(None)
        )
        turns: dict[tuple[str, int], list[Document]] = {}
        for each in found:
            turns.setdefault((each["mark"]["writer"], each["mark"]["turn"]), []).append(each)
        for (writer, turn), items in turns.items():
            await self._mongo.write(partial(_count, marked=items, writer=writer, turn=turn))
        return len(found)


async def _move(database: Database, moves: Sequence[Move], mark: Document) -> Sequence[Item | None]:
    names = [item_name(each.organisation, each.batch, each.index) for each in moves]
    projection = None if any(each.claims for each in moves) else LEAN
    found = await database.batch_items.find({"_id": {"$in": names}}, projection).to_list(None)
    standing = {_name(each["_id"]): each for each in found if "mark" not in each}
    updates = [update for each in moves if (update := _update(standing, each, mark)) is not None]
    if not updates:
        return [None] * len(moves)
    await database.batch_items.bulk_write(updates, ordered=False)
    mine = {"_id": {"$in": names}, "mark.writer": mark["writer"], "mark.turn": mark["turn"]}
    done = await database.batch_items.find(mine, projection).to_list(None)
    items = {_name(each["_id"]): item_of(dict(each)) for each in done}
    await _count(database, done, mark["writer"], mark["turn"])
    return [items.get((each.organisation, each.batch, each.index)) for each in moves]


def _update(standing: Mapping[Name, Document], move: Move, mark: Document) -> UpdateOne | None:
    """Only where it is as it was read."""
    found = standing.get((move.organisation, move.batch, move.index))
    before = None if found is None else item_of(dict(found))
    after = None if before is None else moved(before, move)
    if found is None or before is None or after is None:
        return None
    fixed = _FIXED if move.result is not None else (*_FIXED, "result")
    changed = {name: plain(value) for name, value in item_document(after).items() if name not in fixed}
    changed["mark"] = mark | {
        "state": before.state.value,
        "cost": money((after.cost or Decimal(0)) - (before.cost or Decimal(0))),
        "unpriced": after.unpriced - before.unpriced,
    }
    unchanged = {name: found[name] for name in ("_id", "state", "fence", "due")}
    return UpdateOne({**unchanged, "mark": None}, {"$set": changed})


async def _count(database: Database, marked: Sequence[Document], writer: str, turn: int) -> None:
    """What items with the mark of one turn come to, once; then they have none."""
    for name, change in changes(map(_pair, marked)).items():
        uncounted = {"_id": batch_name(*name), f"counted.{writer}": {"$not": {"$gte": turn}}}
        await database.batches.update_one(uncounted, {"$inc": _amounts(change), "$set": {f"counted.{writer}": turn}})
    names = [each["_id"] for each in marked]
    mine = {"_id": {"$in": names}, "mark.writer": writer, "mark.turn": turn}
    await database.batch_items.update_many(mine, {"$unset": {"mark": ""}})


def _pair(marked: Document) -> tuple[Item, Item]:
    """As far as counts go, before and after."""
    mark = marked["mark"]
    after = replace(item_of(dict(marked)), cost=mark["cost"].to_decimal(), unpriced=mark["unpriced"])
    return replace(after, state=ItemState(mark["state"]), cost=Decimal(0), unpriced=False), after


def _amounts(change: Change) -> Mapping[str, Any]:
    added = {f"counts.{state.value}": count for state, count in change.counts.items() if count}
    return {**added, "cost": money(change.cost), "unpriced": change.unpriced}


def _name(name: Document) -> Name:
    return name["organisation"], name["batch"], name["index"]
