"""Ledger entries for tests: one by hand, any by hypothesis."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st

from persistence.records import CostSource, LedgerEntry, Outcome

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def entry(**changes: Any) -> LedgerEntry:
    values: dict[str, Any] = {
        "time": NOON,
        "completion_id": f"cmp_{uuid4().hex}",
        "attempt": 1,
        "organisation": "acme",
        "principal": "key_1",
        "provider": "openai",
        "model": "gpt-4.1",
        "outcome": Outcome.SUCCEEDED,
        "input_tokens": 1200,
        "output_tokens": 80,
        "cost": Decimal("0.00304"),
        "cost_source": CostSource.PRICE_TABLE,
    }
    return LedgerEntry(**values | changes)


def at(milliseconds: int) -> datetime:
    return NOON + timedelta(milliseconds=milliseconds)


texts = st.text(max_size=20)
counts = st.integers(0, 2**63 - 1)
costs = st.decimals(-(10**12), 10**12, places=30) | st.decimals(0, 1, places=12) | st.just(Decimal("1E+3"))
times = st.integers(0, 253402300799999).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
labels = st.dictionaries(texts, texts, max_size=4)
ids = st.text(string.ascii_lowercase, min_size=1, max_size=12)

entries = st.builds(
    LedgerEntry,
    time=times,
    completion_id=ids.map(lambda text: f"cmp_{text}{uuid4().hex}"),
    attempt=st.integers(0, 20),
    organisation=texts,
    principal=texts,
    provider=texts,
    model=texts,
    outcome=st.sampled_from(Outcome),
    end_user=st.none() | texts,
    config=st.none() | texts,
    config_version=st.none() | counts,
    idempotency_key=st.none() | texts,
    input_tokens=counts,
    output_tokens=counts,
    cached_input_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
    cost=st.none() | costs,
    cost_source=st.sampled_from(CostSource),
    price_version=st.none() | texts,
    latency_ms=counts,
    time_to_first_token_ms=st.none() | counts,
    finish_reason=st.none() | texts,
    error_code=st.none() | texts,
    estimated=st.booleans(),
    cached=st.booleans(),
    streamed=st.booleans(),
    labels=labels,
)
