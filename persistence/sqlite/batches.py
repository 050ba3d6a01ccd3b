"""The embedded batches: tables of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from ..batch_moves import Change, changes, moved
from ..batch_records import Batch, BatchFilter, BatchState, Item, ItemState, Move, VendorRun
from ..ports import Audit, Conflict, StoreConflictError
from .audit import add_event
from .batch_rows import (
    BATCH_COLUMNS,
    ITEM_COLUMNS,
    LEAN_COLUMNS,
    RUN_COLUMNS,
    batch_of,
    batch_row,
    item_of,
    item_row,
    run_of,
    run_row,
)
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

DISCARDED_AT_ONCE = 1_000
"""Items, in a transaction."""

# Built of the texts in this file and of the rows': values are bound.
_THE_BATCH = "organisation = :organisation AND id = :id"
_OF_THE_BATCH = "organisation = :organisation AND batch = :batch"
_BATCH = f"SELECT {', '.join(BATCH_COLUMNS)} FROM batches WHERE opened = 1 AND {_THE_BATCH}"  # noqa: S608
_BY_KEY = f"""
    SELECT {", ".join(BATCH_COLUMNS)} FROM batches
    WHERE organisation = :organisation AND idempotency_key = :key AND opened = 1
"""  # noqa: S608
_PUT_BATCH = f"""
    INSERT OR REPLACE INTO batches ({", ".join(BATCH_COLUMNS)}, opened)
    VALUES ({", ".join(f":{name}" for name in BATCH_COLUMNS)}, :opened)
"""  # noqa: S608
_UNENDED = "SELECT count(*) FROM batches WHERE organisation = :organisation AND ended_at IS NULL AND opened = 1"
_UNOPENED = "SELECT organisation, id FROM batches WHERE opened = 0 AND created_at < :before LIMIT :limit"
_ENDED = """
    SELECT organisation, id FROM batches WHERE ended_at < :before AND opened = 1 ORDER BY ended_at LIMIT :limit
"""
_CLOSE = f"UPDATE batches SET opened = 0 WHERE {_THE_BATCH} AND opened = 1 AND ended_at < :before"  # noqa: S608
_DISCARD_ITEMS = f"""
    DELETE FROM batch_items WHERE rowid IN (
        SELECT rowid FROM batch_items WHERE organisation = :organisation AND batch = :id
        AND EXISTS (SELECT 1 FROM batches WHERE {_THE_BATCH} AND opened = 0) LIMIT :step
    )
"""  # noqa: S608
_DISCARD_RUNS = f"""
    DELETE FROM batch_vendor_runs WHERE organisation = :organisation AND batch = :id
    AND EXISTS (SELECT 1 FROM batches WHERE {_THE_BATCH} AND opened = 0)
"""  # noqa: S608
_DISCARD = f"DELETE FROM batches WHERE {_THE_BATCH} AND opened = 0"  # noqa: S608
_PAGE = f"""
    SELECT {", ".join(BATCH_COLUMNS)} FROM batches
    WHERE organisation = :organisation AND opened = 1 AND (:before IS NULL OR id < :before) {{states}}
    ORDER BY id DESC LIMIT :limit
"""  # noqa: S608
_ACTIVE = f"""
    SELECT {", ".join(BATCH_COLUMNS)} FROM batches
    WHERE ended_at IS NULL AND opened = 1 AND (organisation, id) > (:organisation, :id)
    ORDER BY organisation, id LIMIT :limit
"""  # noqa: S608
_ITEM = f"SELECT {{columns}} FROM batch_items WHERE {_OF_THE_BATCH} AND place = :place"  # noqa: S608
_ITEMS = f"""
    SELECT {", ".join(ITEM_COLUMNS)} FROM batch_items
    WHERE {_OF_THE_BATCH} AND place > :after {{states}} ORDER BY place LIMIT :limit
"""  # noqa: S608
_DUE = f"""
    SELECT {", ".join(LEAN_COLUMNS)} FROM batch_items
    WHERE {_OF_THE_BATCH} AND due <= :now AND state = :state ORDER BY due, place LIMIT :limit
"""  # noqa: S608
_IN_RUN = f"""
    SELECT {", ".join(LEAN_COLUMNS)} FROM batch_items
    WHERE {_OF_THE_BATCH} AND state = 'running' AND vendor_run = :number ORDER BY place
"""  # noqa: S608
_PUT_ITEM = f"""
    INSERT INTO batch_items ({", ".join(ITEM_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in ITEM_COLUMNS)})
"""  # noqa: S608
_FIXED = ("organisation", "batch", "place", "custom_id")
_SET_ITEM = f"""
    UPDATE batch_items SET {", ".join(f"{name} = :{name}" for name in LEAN_COLUMNS if name not in _FIXED)}
    WHERE {_OF_THE_BATCH} AND place = :place
"""  # noqa: S608
_SET_RESULT = f"""
    UPDATE batch_items SET result = :result, result_file = :result_file WHERE {_OF_THE_BATCH} AND place = :place
"""  # noqa: S608
_LEAD = """
    INSERT INTO leaders VALUES (:name, :holder, :until) ON CONFLICT DO UPDATE
    SET holder = excluded.holder, until = excluded.until WHERE holder = excluded.holder OR until <= :now
"""
_RESIGN = "DELETE FROM leaders WHERE name = :name AND holder = :holder"
_ADD_RUN = f"""
    INSERT INTO batch_vendor_runs ({", ".join(RUN_COLUMNS)})
    VALUES ({", ".join(f":{name}" for name in RUN_COLUMNS)}) ON CONFLICT DO NOTHING
"""  # noqa: S608
_SAVE_RUN = f"""
    UPDATE batch_vendor_runs SET {", ".join(f"{name} = :{name}" for name in RUN_COLUMNS)}
    WHERE {_OF_THE_BATCH} AND number = :number AND NOT ended
"""  # noqa: S608
_RUNS = f"SELECT {', '.join(RUN_COLUMNS)} FROM batch_vendor_runs WHERE {_OF_THE_BATCH} ORDER BY number"  # noqa: S608
_UNENDED_RUNS = f"""
    SELECT {", ".join(RUN_COLUMNS)} FROM batch_vendor_runs WHERE organisation = :organisation AND NOT ended
"""  # noqa: S608


class SQLiteBatches:
    """`persistence.ports.BatchStore` in a few tables. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, batch: Batch) -> None:
        row = {**batch_row(batch), "opened": 0}
        await self._database.write(lambda connection: connection.execute(_PUT_BATCH, row))

    async def add(self, items: Sequence[Item]) -> None:
        rows = [item_row(item) for item in items]

        def add(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(_PUT_ITEM, rows)

        await self._database.write(add)

    async def open(self, batch: Batch, *, at_most: int, audit: Audit[Batch]) -> Batch:
        row = {**batch_row(batch), "opened": 1}
        asked: Parameters = {"organisation": batch.organisation, "key": batch.idempotency_key}

        def open_(connection: sqlite3.Connection) -> Batch:
            with transaction(connection):
                standing = connection.execute(_BY_KEY, asked).fetchone()
                if standing is not None:
                    return batch_of(standing)
                if connection.execute(_UNENDED, asked).fetchone()[0] >= at_most:
                    raise StoreConflictError(f"there are {at_most} batches that have not ended", on=Conflict.FULL)
                connection.execute(_PUT_BATCH, row)
                add_event(connection, audit(None, batch))
            return batch

        return await self._database.write(open_)

    async def discard(self, organisation: str, batch_id: str) -> None:
        asked: Parameters = {"organisation": organisation, "id": batch_id, "step": DISCARDED_AT_ONCE}

        def discard(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                if connection.execute(_DISCARD_ITEMS, asked).rowcount == DISCARDED_AT_ONCE:
                    return False
                for statement in (_DISCARD_RUNS, _DISCARD):
                    connection.execute(statement, asked)
                return True

        while not await self._database.write(discard):
            pass

    async def unopened(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        rows = await self._database.report(_UNOPENED, {"before": milliseconds(before), "limit": limit})
        return [(organisation, batch_id) for organisation, batch_id in rows]

    async def ended(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        rows = await self._database.report(_ENDED, {"before": milliseconds(before), "limit": limit})
        return [(organisation, batch_id) for organisation, batch_id in rows]

    async def close(self, organisation: str, batch_id: str, *, before: datetime) -> bool:
        asked: Parameters = {"organisation": organisation, "id": batch_id, "before": milliseconds(before)}
        return await self._database.write(lambda connection: connection.execute(_CLOSE, asked).rowcount > 0)

    async def by_id(self, organisation: str, batch_id: str) -> Batch | None:
        rows = await self._database.look_up(_BATCH, {"organisation": organisation, "id": batch_id})
        return batch_of(rows[0]) if rows else None

    async def by_key(self, organisation: str, idempotency_key: str) -> Batch | None:
        rows = await self._database.look_up(_BY_KEY, {"organisation": organisation, "key": idempotency_key})
        return batch_of(rows[0]) if rows else None

    async def page(
        self, organisation: str, *, where: BatchFilter, limit: int, before: str | None = None
    ) -> Sequence[Batch]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Parameters = {"organisation": organisation, "before": before, "limit": limit}
        rows = await self._database.report(_PAGE.format(states=_among(where.states)), asked)
        return [batch_of(row) for row in rows]

    async def active(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[Batch]:
        organisation, batch_id = after or ("", "")
        asked: Parameters = {"organisation": organisation, "id": batch_id, "limit": limit}
        return [batch_of(row) for row in await self._database.look_up(_ACTIVE, asked)]

    async def change(
        self,
        organisation: str,
        batch_id: str,
        *,
        expects: Sequence[BatchState],
        values: Mapping[str, Any],
        audit: Audit[Batch] | None = None,
    ) -> Batch | None:
        asked: Parameters = {"organisation": organisation, "id": batch_id}

        def change(connection: sqlite3.Connection) -> Batch | None:
            with transaction(connection):
                found = connection.execute(_BATCH, asked).fetchone()
                standing = None if found is None else batch_of(found)
                if standing is None or standing.state not in expects:
                    return None
                changed = replace(standing, **values)
                connection.execute(_PUT_BATCH, {**batch_row(changed), "opened": 1})
                if audit is not None:
                    add_event(connection, audit(standing, changed))
                return changed

        return await self._database.write(change)

    async def items(
        self,
        organisation: str,
        batch_id: str,
        *,
        states: Sequence[ItemState] = (),
        limit: int,
        after: int = -1,
    ) -> Sequence[Item]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Parameters = {"organisation": organisation, "batch": batch_id, "after": after, "limit": limit}
        return [item_of(row) for row in await self._database.report(_ITEMS.format(states=_among(states)), asked)]

    async def due(
        self, organisation: str, batch_id: str, *, states: Sequence[ItemState], now: datetime, limit: int
    ) -> Sequence[Item]:
        found: list[Item] = []
        for state in states:
            asked: Parameters = {
                "organisation": organisation,
                "batch": batch_id,
                "state": state.value,
                "now": (now - EPOCH) // MILLISECOND,
                "limit": limit,
            }
            found += [item_of(row, lean=True) for row in await self._database.look_up(_DUE, asked)]
        return sorted(found, key=lambda item: (item.due or EPOCH, item.index))[:limit]

    async def of_vendor_run(self, organisation: str, batch_id: str, number: int) -> Sequence[Item]:
        asked: Parameters = {"organisation": organisation, "batch": batch_id, "number": number}
        return [item_of(row, lean=True) for row in await self._database.report(_IN_RUN, asked)]

    async def move(self, moves: Sequence[Move]) -> Sequence[Item | None]:
        def move(connection: sqlite3.Connection) -> Sequence[Item | None]:
            with transaction(connection):
                pairs = [_moved(connection, each) for each in moves]
                for name, change in changes(pair for pair in pairs if pair is not None).items():
                    _add(connection, name, change)
                return [None if pair is None else pair[1] for pair in pairs]

        return await self._database.write(move) if moves else []

    async def mend(self, organisation: str, batch_id: str, *, before: datetime) -> int:
        return 0  # a move and its counts are one transaction

    async def lead(self, name: str, holder: str, *, now: datetime, until: datetime) -> bool:
        asked: Parameters = {
            "name": name,
            "holder": holder,
            "now": milliseconds(now),
            "until": milliseconds(until),
        }
        return await self._database.write(lambda connection: connection.execute(_LEAD, asked).rowcount > 0)

    async def resign(self, name: str, holder: str) -> None:
        asked: Parameters = {"name": name, "holder": holder}
        await self._database.write(lambda connection: connection.execute(_RESIGN, asked))

    async def add_vendor_run(self, run: VendorRun) -> bool:
        row = run_row(run)
        return await self._database.write(lambda connection: connection.execute(_ADD_RUN, row).rowcount > 0)

    async def save_vendor_run(self, run: VendorRun) -> None:
        row = run_row(run)
        await self._database.write(lambda connection: connection.execute(_SAVE_RUN, row))

    async def vendor_runs(self, organisation: str, batch_id: str) -> Sequence[VendorRun]:
        rows = await self._database.look_up(_RUNS, {"organisation": organisation, "batch": batch_id})
        return [run_of(row) for row in rows]

    async def unended_vendor_runs(self, organisation: str) -> Sequence[VendorRun]:
        return [run_of(row) for row in await self._database.look_up(_UNENDED_RUNS, {"organisation": organisation})]


def _among(states: Sequence[BatchState] | Sequence[ItemState]) -> str:
    """The values are this program's own."""
    return f"AND state IN ({', '.join(repr(state.value) for state in states)})" if states else ""


def _moved(connection: sqlite3.Connection, move: Move) -> tuple[Item, Item] | None:
    asked: Parameters = {"organisation": move.organisation, "batch": move.batch, "place": move.index}
    columns = ITEM_COLUMNS if move.claims else LEAN_COLUMNS
    found = connection.execute(_ITEM.format(columns=", ".join(columns)), asked).fetchone()
    before = None if found is None else item_of(found, lean=not move.claims)
    after = None if before is None else moved(before, move)
    if before is None or after is None:
        return None
    row = item_row(after)
    connection.execute(_SET_ITEM, row)
    if move.result is not None:
        connection.execute(_SET_RESULT, row)
    return before, after


def _add(connection: sqlite3.Connection, name: tuple[str, str], change: Change) -> None:
    asked: Parameters = {"organisation": name[0], "id": name[1]}
    batch = batch_of(connection.execute(_BATCH, asked).fetchone())
    counts = {each: count + change.counts[ItemState(each)] for each, count in asdict(batch.counts).items()}
    values = {**counts, "cost": str(batch.cost + change.cost), "unpriced": batch.unpriced + change.unpriced}
    changed = ", ".join(f"{each} = :{each}" for each in values)
    connection.execute(f"UPDATE batches SET {changed} WHERE {_THE_BATCH}", {**asked, **values})  # noqa: S608
