"""How the tables of batches write their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from ..batch_records import Batch, BatchMode, BatchState, Counts, Item, ItemError, ItemState, Submitter, Text, VendorRun
from ..reservation_records import allowance_of
from .times import EPOCH, MILLISECOND, milliseconds

_COUNTS = tuple(field.name for field in fields(Counts))
_TIMES = frozenset({"created_at", "started_at", "deadline", "ended_at", "due", "poll_at"})
_TEXTS = ("input", "result")

BATCH_COLUMNS = (*(field.name for field in fields(Batch) if field.name != "counts"), *_COUNTS)
ITEM_COLUMNS = (
    *("organisation", "batch", "place", "custom_id", "state", "due", "fence", "failures", "lost", "completion_id"),
    *("vendor_run", "error_code", "error_message", "cost", "unpriced", "ended_at"),
    *("input", "input_file", "result", "result_file"),
)
LEAN_COLUMNS = ITEM_COLUMNS[:-4]
"""Without texts."""
RUN_COLUMNS = tuple(field.name for field in fields(VendorRun))

Row = dict[str, Any]


def batch_row(batch: Batch) -> Row:
    row: Row = {field.name: getattr(batch, field.name) for field in fields(batch)}
    row |= asdict(row.pop("counts"))
    row["submitter"] = orjson.dumps(asdict(batch.submitter)).decode()
    row["labels"] = orjson.dumps(dict(batch.labels)).decode()
    row |= {"state": batch.state.value, "mode": batch.mode.value, "cost": str(batch.cost)}
    return _stamped(row)


def batch_of(row: Sequence[Any]) -> Batch:
    values: Row = _timed(dict(zip(BATCH_COLUMNS, row, strict=True)))
    values["counts"] = Counts(**{name: values.pop(name) for name in _COUNTS})
    listed = orjson.loads(values["submitter"])
    submitter: Row = {name: tuple(each) if isinstance(each, list) else each for name, each in listed.items()}
    values["submitter"] = Submitter(**submitter)
    values["labels"] = orjson.loads(values["labels"])
    values |= {"state": BatchState(values["state"]), "mode": BatchMode(values["mode"])}
    values["cost"] = Decimal(values["cost"])
    return Batch(**values)


def item_row(item: Item) -> Row:
    row: Row = {field.name: getattr(item, field.name) for field in fields(item)}
    row["place"] = row.pop("index")
    row["state"] = item.state.value
    row["cost"] = None if item.cost is None else str(item.cost)
    error = row.pop("error")
    row |= {"error_code": error and error.code, "error_message": error and error.message}
    for name in _TEXTS:
        kept = row.pop(name) or Text()
        row |= {name: kept.text, f"{name}_file": kept.file}
    return _stamped(row)


def item_of(row: Sequence[Any], *, lean: bool = False) -> Item:
    values: Row = _timed(dict(zip(LEAN_COLUMNS if lean else ITEM_COLUMNS, row, strict=True)))
    values["index"] = values.pop("place")
    values["state"] = ItemState(values["state"])
    values["cost"] = None if values["cost"] is None else Decimal(values["cost"])
    values["unpriced"] = bool(values["unpriced"])
    code, message = values.pop("error_code"), values.pop("error_message")
    values["error"] = None if code is None else ItemError(code, message)
    texts = {name: Text(values.pop(name, None), values.pop(f"{name}_file", None)) for name in _TEXTS}
    values["input"] = texts["input"]
    values["result"] = None if texts["result"] == Text() else texts["result"]
    return Item(**values)


def run_row(run: VendorRun) -> Row:
    row = _stamped({field.name: getattr(run, field.name) for field in fields(run)})
    return {**row, "reserved": orjson.dumps([asdict(each) for each in run.reserved]).decode()}


def run_of(row: Sequence[Any]) -> VendorRun:
    values: Row = _timed(dict(zip(RUN_COLUMNS, row, strict=True)))
    values["reserved"] = tuple(map(allowance_of, orjson.loads(values["reserved"])))
    return VendorRun(**{**values, **{name: bool(values[name]) for name in ("cancelled", "ended", "holds")}})


def _stamped(row: Row) -> Row:
    return {name: _stamp(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _stamp(time: datetime) -> int:
    if time.microsecond % 1000:
        raise ValueError("a batch's times must be whole milliseconds")
    return milliseconds(time)


def _timed(row: Row) -> Row:
    """With its times as such."""
    given = {name: row[name] for name in _TIMES & row.keys() if row[name] is not None}
    return {**row, **{name: EPOCH + stamp * MILLISECOND for name, stamp in given.items()}}
