"""What the ledger says of past completions: one, a page, totals; always within the organisation."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.records import CompletionFilter, CostSource, Outcome
from resolvers import history
from resolvers.errors import BadUserInputError, NotFoundError, ServiceUnavailableError
from resolvers.history import MAX_PAGE, Page
from resolvers.ids import new_completion_id
from resolvers.ledger import Ledger, open_ledger
from resolvers.types import CompletionRef
from tests.persistence.entries import NOON, at, entry

from .scene import ACME, GLOBEX, MemoryInflight, MemoryStore

EVERYTHING = CompletionFilter()


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def ledger(store: MemoryStore) -> AsyncIterator[Ledger]:
    async with open_ledger(store, MemoryInflight()) as ledger:
        yield ledger


async def page(ledger: Ledger, first: int = 50, after: str | None = None) -> Page:
    return await history.completions(ledger, ACME, first=first, after=after, where=EVERYTHING)


async def test_one_completion_with_its_attempts(ledger: Ledger, store: MemoryStore) -> None:
    first = entry(
        completion_id="cmp_1",
        outcome=Outcome.FAILED,
        error_code="PROVIDER_TIMEOUT",
        estimated=True,
        latency_ms=100,
        labels={"b": "2", "a": "1"},
        config="support",
        config_version=7,
        price_version="2026-03",
        idempotency_key="k1",
        end_user="u1",
        streamed=True,
    )
    last = replace(
        first,
        attempt=2,
        provider="groq",
        model="llama",
        outcome=Outcome.SUCCEEDED,
        error_code=None,
        estimated=False,
        latency_ms=50,
        time_to_first_token_ms=20,
        finish_reason="stop",
        output_tokens=0,
        cost=None,
        cost_source=CostSource.UNKNOWN,
        price_version=None,
    )
    store.entries = [last, first]
    record = await history.completion(ledger, ACME, CompletionRef(id="cmp_1"))
    assert record == await history.completion(ledger, ACME, CompletionRef(idempotency_key="k1"))
    assert (record.id, record.created_at, record.principal, record.end_user) == ("cmp_1", NOON, "key_1", "u1")
    assert (record.provider, record.model, record.outcome) == ("groq", "llama", Outcome.SUCCEEDED)
    assert (record.error_code, record.finish_reason, record.time_to_first_token_ms) == (None, "stop", 20)
    assert (record.latency_ms, record.streamed, record.cached) == (150, True, False)
    assert (record.labels, record.idempotency_key) == ((("a", "1"), ("b", "2")), "k1")
    assert (record.organisation, record.config, record.config_version) == ("acme", "support", 7)
    assert [(each.number, each.provider, each.error_code, each.price_version) for each in record.attempts] == [
        (1, "openai", "PROVIDER_TIMEOUT", "2026-03"),
        (2, "groq", None, None),
    ]
    assert [
        (each.usage.output_tokens, each.usage.cost, each.usage.cost_source, each.usage.estimated)
        for each in record.attempts
    ] == [(80, Decimal("0.00304"), CostSource.PRICE_TABLE, True), (0, None, CostSource.UNKNOWN, False)]
    assert (record.usage.input_tokens, record.usage.cost, record.usage.estimated) == (2400, None, True)


async def test_a_cache_hit_has_no_attempts(ledger: Ledger, store: MemoryStore) -> None:
    store.entries = [entry(completion_id="cmp_1", attempt=0, cached=True, cost=Decimal(0))]
    record = await history.completion(ledger, ACME, CompletionRef(id="cmp_1"))
    assert (record.cached, record.attempts, record.usage.cost) == (True, (), 0)


async def test_what_another_organisation_has_is_not_found(ledger: Ledger, store: MemoryStore) -> None:
    store.entries = [entry(completion_id="cmp_1", idempotency_key="k1")]
    refused = []
    for ref in (CompletionRef(id="cmp_1"), CompletionRef(idempotency_key="k1"), CompletionRef(id="cmp_2")):
        with pytest.raises(NotFoundError) as caught:
            await history.completion(ledger, GLOBEX, ref)
        refused.append(caught.value.message)
    assert len(set(refused)) == 1, "not even the text tells the two apart"
    with pytest.raises(NotFoundError):
        await history.completion(ledger, ACME, CompletionRef())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 100])
async def test_pages_together_are_the_list(ledger: Ledger, store: MemoryStore, size: int) -> None:
    """Ten completions, some of them in the same millisecond."""
    store.entries = [entry(completion_id=f"cmp_{n:02}", time=at(n // 3)) for n in range(10)]
    store.entries += [replace(each, attempt=2) for each in store.entries[::2]]
    seen: list[str] = []
    cursor, more = None, True
    while more:
        part = await page(ledger, size, cursor)
        assert len(part.records) <= size
        seen += [record.id for _, record in part.records]
        cursor, more = part.records[-1][0], part.more
    assert seen == [f"cmp_{n:02}" for n in reversed(range(10))]


async def test_an_empty_page(ledger: Ledger) -> None:
    assert await page(ledger) == Page((), more=False)


async def test_the_filter_is_the_stores(ledger: Ledger, store: MemoryStore) -> None:
    where = CompletionFilter(provider="openai", label=("team", "search"))
    await history.completions(ledger, ACME, first=1, after=None, where=where)
    assert store.filters == [where]


@pytest.mark.parametrize("size", [-1, 0, MAX_PAGE + 1])
async def test_a_page_has_one_to_a_hundred(ledger: Ledger, size: int) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await page(ledger, size)
    assert caught.value.path == ("first",)
    assert (await page(ledger, MAX_PAGE)).records == ()


moments = st.integers(0, 253402300799999).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))


@given(moments, st.text(min_size=1))
def test_cursors_come_back_as_they_went(moment: datetime, completion_id: str) -> None:
    record = history.record_of([entry(time=moment, completion_id=completion_id)])
    cursor = history._read_cursor(history._write_cursor(record))
    assert (cursor.time, cursor.completion_id) == (moment, completion_id)


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        " ",
        "cmp_1",
        "ä",
        "\x00",
        "MTIz=",
        encoded(b"123"),
        encoded(b"123:"),
        encoded(b":cmp_1"),
        encoded(b"1.5:cmp_1"),
        encoded(b"nan:cmp_1"),
        encoded(b"999999999999999999:cmp_1"),
        encoded(b"-999999999999999999:cmp_1"),
        encoded(b"9" * 5000 + b":cmp_1"),
        encoded(b"1:\xff"),
    ],
)
async def test_a_cursor_that_this_api_did_not_make_is_refused(ledger: Ledger, cursor: str) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await page(ledger, after=cursor)
    assert caught.value.path == ("after",)


@given(st.text() | st.binary().map(encoded))
def test_whatever_is_sent_as_a_cursor_is_read_or_refused(text: str) -> None:
    try:
        cursor = history._read_cursor(text)
    except BadUserInputError:
        return
    assert cursor.time.tzinfo is UTC


async def test_a_ledger_that_cannot_be_read_says_so(ledger: Ledger, store: MemoryStore) -> None:
    store.down = True
    with pytest.raises(ServiceUnavailableError):
        await page(ledger)
    with pytest.raises(ServiceUnavailableError):
        await history.completion(ledger, ACME, CompletionRef(id="cmp_1"))


async def test_a_cost_that_is_not_known_stays_unknown(ledger: Ledger, store: MemoryStore) -> None:
    store.entries = [entry(completion_id="cmp_1", cost=None, cost_source=CostSource.UNKNOWN)]
    record = await history.completion(ledger, ACME, CompletionRef(id="cmp_1"))
    assert (record.usage.cost, record.usage.cost_source) == (None, CostSource.UNKNOWN)


def test_ids_carry_their_time_and_sort_by_it() -> None:
    before = datetime.now(UTC)
    made = [new_completion_id() for _ in range(1000)]
    after = datetime.now(UTC)
    ids = [completion_id for completion_id, _ in made]
    assert ids == sorted(set(ids))
    assert all(completion_id.startswith("cmp_") and len(completion_id) == 36 for completion_id in ids)
    millisecond = timedelta(milliseconds=1)
    assert all(before - millisecond < moment <= after and moment.microsecond % 1000 == 0 for _, moment in made)
    last_id, moment = made[-1]
    assert int(last_id[4:16], 16) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // millisecond
