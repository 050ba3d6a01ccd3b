"""The ledger while its store is away, where there is a queue: entries wait there, and calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from persistence.ports import StoreUnavailableError
from persistence.queue_records import Job, QueueDepth
from persistence.records import LedgerEntry
from resolvers import ledger as module
from resolvers.errors import ServiceUnavailableError
from resolvers.ledger import Ledger, open_ledger
from resolvers.sinks import ENTRIES_A_JOB, entries_of, job_of
from tests.persistence.entries import entry
from tests.resolvers.test_ledger import Inflight, Store, answer, available, call, until


class Queue:
    """Of a queue what the ledger uses."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.failing = False

    async def publish(self, jobs: Sequence[Job]) -> None:
        if self.failing:
            raise StoreUnavailableError("no broker")
        self.jobs.extend(jobs)

    async def depth(self) -> QueueDepth:
        if self.failing:
            raise StoreUnavailableError("no broker")
        return QueueDepth(len(self.jobs), 0, 0)

    @property
    def entries(self) -> list[LedgerEntry]:
        return [each for job in self.jobs for each in entries_of(job)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIAL_INTERVAL_S", 0.01)
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def inflight() -> Inflight:
    return Inflight()


@pytest.fixture
async def ledger(store: Store, inflight: Inflight, queue: Queue) -> AsyncIterator[Ledger]:
    async with open_ledger(store, inflight, queue) as ledger:  # type: ignore[arg-type]
        yield ledger


async def test_with_both_there_the_store_takes_all(ledger: Ledger, store: Store, queue: Queue) -> None:
    await ledger.book(answer("a"))
    assert (store.committed, queue.jobs) == (["a"], [])


async def test_entries_wait_in_the_queue_and_calls_go_on(
    ledger: Ledger, store: Store, inflight: Inflight, queue: Queue
) -> None:
    store.failing = True
    ledger.begin(call("a"))
    await ledger.book(answer("a"))
    assert (ledger.available, ledger.readable) == (True, False)
    ledger.begin(call("b"))
    await ledger.book(answer("b"))
    assert queue.entries == [answer("a"), answer("b")]
    assert (inflight.noted, inflight.kept) == ({}, [])
    assert store.tries[:1] == [["a"]]
    assert ["b"] not in store.tries  # which is known to be away


async def test_the_store_is_used_again_when_it_is_back(ledger: Ledger, store: Store, queue: Queue) -> None:
    store.failing = True
    await ledger.book(answer("a"))
    store.failing = False
    await until(lambda: ledger.readable)
    await ledger.book(answer("b"))
    assert (queue.entries, store.committed) == ([answer("a")], ["b"])


async def test_a_key_is_known_while_its_entry_is_in_the_queue(
    ledger: Ledger, store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the store is back, and has not got the entry yet."""

    async def nothing(*_: object) -> Sequence[LedgerEntry]:
        return []

    monkeypatch.setattr(store, "completion_by_key", nothing)
    monkeypatch.setattr(module, "MAX_QUEUED_KEYS", 2)
    store.failing = True
    for number in range(3):
        await ledger.book(entry(completion_id=f"cmp_{number}", idempotency_key=f"k{number}"))
    store.failing = False
    await until(lambda: ledger.readable)
    assert [await ledger.key_holder("acme", f"k{number}") for number in range(3)] == [None, "cmp_1", "cmp_2"]
    assert await ledger.key_holder("globex", "k2") is None


async def test_a_look_up_that_is_in_vain_tells_that_the_store_is_away(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the next completions with keys need not wait for as long."""

    async def hangs(*_: object) -> Sequence[LedgerEntry]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(store, "completion_by_key", hangs)
    store.failing = True
    assert ledger.readable
    with pytest.raises(ServiceUnavailableError):
        await ledger.key_holder("acme", "k")
    assert not ledger.readable
    store.failing = False
    await until(lambda: ledger.readable)


async def test_the_writer_outlives_a_defect(
    ledger: Ledger, store: Store, queue: Queue, inflight: Inflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise KeyError("a defect")

    store.failing = queue.failing = True
    monkeypatch.setattr(inflight, "keep", breaks)
    booked = ledger.book(answer("a"))
    await until(lambda: not ledger.available)
    monkeypatch.undo()
    monkeypatch.setattr(module, "TRIAL_INTERVAL_S", 0.01)
    store.failing = queue.failing = False
    await booked
    assert store.committed == ["a"]


async def test_a_store_that_hangs_is_not_waited_for(ledger: Ledger, store: Store, queue: Queue) -> None:
    store.free.clear()
    async with asyncio.timeout(2):
        await ledger.book(answer("a"))
        await ledger.book(answer("b"))
    assert queue.entries == [answer("a"), answer("b")]
    store.free.set()


async def test_with_both_gone_what_was_answered_is_spooled_and_nothing_begins(
    ledger: Ledger, store: Store, inflight: Inflight, queue: Queue
) -> None:
    store.failing = queue.failing = True
    await ledger.book(answer("a"))
    assert (inflight.kept, ledger.available) == (["a"], False)
    with pytest.raises(ServiceUnavailableError):
        ledger.begin(call("b"))


@pytest.mark.parametrize("first", ["store", "queue"])
async def test_what_was_spooled_goes_to_whichever_is_back_first(
    ledger: Ledger, store: Store, inflight: Inflight, queue: Queue, first: str
) -> None:
    store.failing = queue.failing = True
    await ledger.book(answer("a"))
    if first == "store":
        store.failing = False
    else:
        queue.failing = False
    await available(ledger)
    assert (store.committed, queue.entries) == ((["a"], []) if first == "store" else ([], [answer("a")]))
    assert inflight.noted == {}


async def test_a_correction_waits_here_for_the_store(
    ledger: Ledger, store: Store, inflight: Inflight, queue: Queue
) -> None:
    words = entry(completion_id="c", attempt=-1, corrects=1, note="the vendor's invoice says so")
    store.failing = True
    await asyncio.gather(ledger.book(words), ledger.book(answer("a")))
    assert queue.entries == [answer("a")]
    assert "invoice" not in queue.jobs[0].body
    assert (inflight.kept, ledger.available) == (["c"], True)
    store.failing = False
    await until(lambda: store.committed == ["c"])
    assert inflight.noted == {}


async def test_many_entries_are_jobs_of_a_bounded_size(ledger: Ledger, store: Store, queue: Queue) -> None:
    store.failing = True
    names = [f"n{number}" for number in range(2 * ENTRIES_A_JOB + 1)]
    await ledger.book(answer("first"))
    await asyncio.gather(*(ledger.book(answer(name)) for name in names))
    assert [len(entries_of(job)) for job in queue.jobs] == [1, ENTRIES_A_JOB, ENTRIES_A_JOB, 1]
    assert [each.completion_id for each in queue.entries] == ["first", *names]


async def test_an_entry_that_no_job_can_hold_fails_alone(ledger: Ledger, store: Store, queue: Queue) -> None:
    store.failing = True
    await ledger.book(answer("a"))
    odd = entry(completion_id="odd", error_code="\ud800")
    results = await asyncio.gather(ledger.book(odd), ledger.book(answer("b")), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, type(None)]
    assert queue.entries == [answer("a"), answer("b")]


async def test_leaving_hands_what_waits_to_the_queue(store: Store, inflight: Inflight, queue: Queue) -> None:
    async with open_ledger(store, inflight, queue) as ledger:  # type: ignore[arg-type]
        store.failing = True
        last = ledger.book(answer("a"))
    assert last.done()
    assert (queue.entries, inflight.noted) == ([answer("a")], {})


def test_a_job_holds_entries_as_they_are() -> None:
    entries = [entry(completion_id="a"), entry(completion_id="b", labels={"team": "ä"})]
    assert entries_of(job_of(entries)) == entries


@pytest.mark.parametrize("body", ["", "{}", "[1]", '[{"time": "never"}]', "[{}]"])
def test_what_is_no_list_of_entries_is_refused(body: str) -> None:
    job = job_of([])
    with pytest.raises(ValueError):  # noqa: PT011  # each has its own text
        entries_of(Job(job.id, job.kind, body, job.created_at))
