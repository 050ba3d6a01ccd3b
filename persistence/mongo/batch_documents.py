"""How the collections of batches write their records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from bson.decimal128 import Decimal128

from ..batch_records import Batch, BatchMode, BatchState, Counts, Item, ItemError, ItemState, Submitter, Text, VendorRun
from ..reservation_records import allowance_of
from .client import Document
from .times import stamp


def batch_name(organisation: str, batch_id: object) -> Document:
    return {"organisation": organisation, "id": batch_id}


def item_name(organisation: str, batch: str, index: object) -> Document:
    return {"organisation": organisation, "batch": batch, "index": index}


def run_name(organisation: str, batch: object, number: object) -> Document:
    return {"organisation": organisation, "batch": batch, "number": number}


def batch_document(batch: Batch) -> Document:
    """Labels are a list: their names may hold what a field's name may not."""
    values: dict[str, Any] = {name: plain(value) for name, value in asdict(batch).items()}
    name = batch_name(values.pop("organisation"), values.pop("id"))
    values["labels"] = [{"name": label, "value": value} for label, value in batch.labels.items()]
    return {"_id": name, **values}


def batch_of(found: Document) -> Batch:
    values = _values(found)
    for ours in ("opened", "counted"):
        values.pop(ours, None)
    values["counts"] = Counts(**values["counts"])
    given = values["submitter"].items()
    submitter: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in given}
    values["submitter"] = Submitter(**submitter)
    values["labels"] = {label["name"]: label["value"] for label in values["labels"]}
    return Batch(**{**values, "state": BatchState(values["state"]), "mode": BatchMode(values["mode"])})


def item_document(item: Item) -> Document:
    values: dict[str, Any] = {name: plain(value) for name, value in asdict(item).items()}
    name = item_name(values.pop("organisation"), values.pop("batch"), values.pop("index"))
    return {"_id": name, **values}


def item_of(found: Document) -> Item:
    values = _values(found)
    values.pop("mark", None)
    values["state"] = ItemState(values["state"])
    values["input"] = Text(**values.get("input") or {})
    values["result"] = None if values.get("result") is None else Text(**values["result"])
    values["error"] = None if values["error"] is None else ItemError(**values["error"])
    return Item(**values)


def run_document(run: VendorRun) -> Document:
    values: dict[str, Any] = {name: plain(value) for name, value in asdict(run).items()}
    return {"_id": run_name(values.pop("organisation"), values.pop("batch"), values.pop("number")), **values}


def run_of(found: Document) -> VendorRun:
    values = _values(found)
    return VendorRun(**{**values, "reserved": tuple(map(allowance_of, values.get("reserved", ())))})


def plain(value: object) -> object:
    """As the driver takes it."""
    match value:
        case datetime():
            return stamp(value)
        case Decimal():
            return money(value)
        case Enum():
            return value.value
        case tuple():
            return [plain(each) for each in value]
        case Mapping():
            return {name: plain(each) for name, each in value.items()}
    return value


def money(amount: Decimal) -> Decimal128:
    """Raises ValueError for more digits than there is room for."""
    try:
        return Decimal128(amount)
    except ArithmeticError:
        raise ValueError("an amount has at most 34 digits") from None


def _values(found: Document) -> dict[str, Any]:
    values = {**found.pop("_id"), **found}
    return {name: each.to_decimal() if isinstance(each, Decimal128) else each for name, each in values.items()}
