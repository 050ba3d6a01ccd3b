"""A ledger entry as JSON: in the in-flight log, and in a job."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from .records import CostSource, LedgerEntry, Outcome


def encoded(entries: LedgerEntry | list[LedgerEntry]) -> bytes:
    """One line. Raises ValueError for what JSON can't hold."""
    try:
        return orjson.dumps(entries, default=_plain)
    except TypeError as error:  # orjson's class for what JSON can't hold, such as a lone surrogate
        raise ValueError(f"the entry can't be written as JSON: {error}") from error


def decoded(record: object) -> LedgerEntry:
    """Of parsed JSON. Raises ValueError for what is no entry."""
    if not isinstance(record, dict):
        raise ValueError("an entry is a JSON object")  # noqa: TRY004  # of a value, not of a program's mistake
    try:
        return _decoded(record)
    except (TypeError, KeyError, InvalidOperation) as error:
        raise ValueError(f"this is no entry: {type(error).__name__}") from error


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _decoded(record: Mapping[str, Any]) -> LedgerEntry:
    values = dict(record)
    cost, corrected_at = values.get("cost"), values.get("corrected_at")
    values["time"] = datetime.fromisoformat(values["time"])
    values["corrected_at"] = None if corrected_at is None else datetime.fromisoformat(corrected_at)
    values["cost"] = None if cost is None else Decimal(cost)
    values["outcome"] = Outcome(values["outcome"])
    values["cost_source"] = CostSource(values["cost_source"])
    return LedgerEntry(**values)
