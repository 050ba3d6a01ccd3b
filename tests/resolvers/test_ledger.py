"""The ledger in use: group commit, failure, recovery."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from persistence.inflight import open_inflight_log
from persistence.migrations.sqlite import migrate
from persistence.ports import StoreUnavailableError
from persistence.records import CompletionFilter, LedgerEntry, Outcome
from persistence.usage_records import UsageSelection
from resolvers import ledger as module
from resolvers.errors import ServiceUnavailableError
from resolvers.ledger import Ledger, open_ledger
from tests.persistence.embedded import open_sqlite_ledger
from tests.persistence.entries import NOON, at, entry
from tests.persistence.prices import MemoryPrices


class Store:
    """A store that commits when it is let, and fails when it is told."""

    def __init__(self) -> None:
        self.commits: list[list[LedgerEntry]] = []
        self.tries: list[list[str]] = []
        self.failing = False
        self.refused: set[str] = set()
        self.free = asyncio.Event()
        self.free.set()
        self.entered = asyncio.Event()

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        self.tries.append([item.completion_id for item in entries])
        self.entered.set()
        await self.free.wait()
        if self.failing:
            raise StoreUnavailableError("disk full at /secret/path")
        if any(item.completion_id in self.refused for item in entries):
            raise ValueError("not an entry")
        self.commits.append(list(entries))

    async def completion(self, *_: object, **__: object) -> Sequence[LedgerEntry]:
        raise StoreUnavailableError("gone")

    completion_by_key = completions = usage = completion

    @property
    def committed(self) -> list[str]:
        return [item.completion_id for commit in self.commits for item in commit]


class Inflight:
    """Notes in memory; it fails when it is told."""

    def __init__(self) -> None:
        self.noted: dict[str, LedgerEntry] = {}
        self.left: list[LedgerEntry] = []
        self.kept: list[str] = []
        self.failing = False

    def begin(self, entry: LedgerEntry) -> None:
        if self.failing:
            raise StoreUnavailableError("no room")
        self.noted[entry.completion_id] = entry

    async def keep(self, entries: Sequence[LedgerEntry]) -> None:
        for each in entries:
            self.begin(each)
            self.kept.append(each.completion_id)

    def end(self, *entries: LedgerEntry) -> None:
        if self.failing:
            raise StoreUnavailableError("no room")
        for each in entries:
            self.noted.pop(each.completion_id, None)

    def abandoned(self) -> Sequence[LedgerEntry]:
        return self.left


def call(name: str) -> LedgerEntry:
    return entry(completion_id=name, outcome=Outcome.ABANDONED, estimated=True)


def answer(name: str) -> LedgerEntry:
    return entry(completion_id=name)


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
def inflight() -> Inflight:
    return Inflight()


@pytest.fixture
async def ledger(store: Store, inflight: Inflight) -> AsyncIterator[Ledger]:
    async with open_ledger(store, inflight) as ledger:
        yield ledger


async def refused(booked: asyncio.Future[None]) -> None:
    with pytest.raises(ServiceUnavailableError) as caught:
        await booked
    assert "secret" not in caught.value.message


async def test_noted_then_committed_then_forgotten(ledger: Ledger, store: Store, inflight: Inflight) -> None:
    ledger.begin(call("a"))
    assert inflight.noted == {"a": call("a")}
    await ledger.book(answer("a"))
    assert store.commits == [[answer("a")]]
    assert inflight.noted == {}


async def test_what_gathers_during_a_commit_is_one_commit(ledger: Ledger, store: Store, inflight: Inflight) -> None:
    names = [f"n{n}" for n in range(50)]
    store.free.clear()
    first = ledger.book(answer("first"))
    await store.entered.wait()
    for name in names:
        ledger.begin(call(name))
    rest = [ledger.book(answer(name)) for name in names]
    assert not first.done()
    store.free.set()
    await asyncio.gather(first, *rest)
    assert [[item.completion_id for item in commit] for commit in store.commits] == [["first"], names]
    assert inflight.noted == {}


async def test_leaving_commits_what_waits(store: Store, inflight: Inflight) -> None:
    async with open_ledger(store, inflight) as ledger:
        store.free.clear()
        ledger.book(answer("a"))
        await store.entered.wait()
        last = ledger.book(answer("b"))
        asyncio.get_running_loop().call_soon(store.free.set)
    assert store.committed == ["a", "b"]
    assert last.done()
    with pytest.raises(ServiceUnavailableError):
        ledger.begin(call("c"))
    await refused(ledger.book(answer("d")))
    assert inflight.noted == {"d": answer("d")}


async def test_nothing_to_commit_is_no_commit(store: Store, inflight: Inflight) -> None:
    async with open_ledger(store, inflight):
        pass
    assert store.tries == []


async def test_a_caller_that_goes_away_is_booked_all_the_same(ledger: Ledger, store: Store) -> None:
    store.free.clear()
    held = ledger.book(answer("a"))
    await store.entered.wait()
    waiting, queued = ledger.book(answer("b")), ledger.book(answer("c"))
    for future in (held, waiting):
        future.cancel()
    store.free.set()
    await queued
    assert store.committed == ["a", "b", "c"]


async def test_a_call_that_cannot_be_noted_is_refused(ledger: Ledger, inflight: Inflight) -> None:
    inflight.failing = True
    with pytest.raises(ServiceUnavailableError):
        ledger.begin(call("a"))
    inflight.failing = False
    ledger.begin(call("a"))


async def test_it_tells_while_calls_cannot_be_noted(ledger: Ledger, inflight: Inflight) -> None:
    assert ledger.can_note()
    inflight.failing = True
    with pytest.raises(ServiceUnavailableError):
        ledger.begin(call("a"))
    assert not ledger.can_note()
    inflight.failing = False
    assert ledger.can_note()
    assert inflight.noted == {}


async def test_a_note_that_cannot_be_ended_does_not_fail_the_answer(
    ledger: Ledger, store: Store, inflight: Inflight
) -> None:
    ledger.begin(call("a"))
    inflight.failing = True
    await ledger.book(answer("a"))
    await ledger.book(answer("b"))
    assert store.committed == ["a", "b"]
    assert ledger.available


async def test_a_call_that_was_never_sent_is_forgotten(ledger: Ledger, store: Store, inflight: Inflight) -> None:
    ledger.begin(call("a"))
    ledger.forget(call("a"))
    assert (inflight.noted, store.tries) == ({}, [])


async def test_past_the_bound_no_call_begins_but_all_are_booked(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    store.free.clear()
    ledger.book(answer("held"))
    await store.entered.wait()
    waiting = [ledger.book(answer(name)) for name in "ab"]
    with pytest.raises(ServiceUnavailableError) as caught:
        ledger.begin(call("c"))
    assert caught.value.retry_after_ms == 1000
    waiting.append(ledger.book(answer("d")))
    store.free.set()
    await asyncio.gather(*waiting)
    ledger.begin(call("c"))
    assert store.committed == ["held", "a", "b", "d"]


class TestOutage:
    """Where there is no queue."""

    @pytest.fixture
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "TRIAL_INTERVAL_S", 0.01)

    @pytest.fixture
    async def down(self, ledger: Ledger, store: Store) -> Ledger:
        ledger.begin(call("a"))
        store.failing = True
        await ledger.book(answer("a"))
        assert not ledger.available
        return ledger

    async def test_an_answered_call_is_spooled(self, down: Ledger, store: Store, inflight: Inflight) -> None:
        assert (inflight.noted, inflight.kept) == ({"a": answer("a")}, ["a"])
        assert store.commits == []

    async def test_no_call_begins_before_it_is_over(self, down: Ledger, store: Store, inflight: Inflight) -> None:
        store.failing = False
        with pytest.raises(ServiceUnavailableError) as caught:
            down.begin(call("b"))
        assert caught.value.retry_after_ms == 1000
        assert "b" not in inflight.noted

    async def test_it_ends_without_any_call(self, quick: None, down: Ledger, store: Store, inflight: Inflight) -> None:
        store.failing = False
        await available(down)
        assert (store.committed, inflight.noted) == (["a"], {})
        down.begin(call("b"))

    async def test_a_trial_that_fails_changes_nothing(
        self, quick: None, down: Ledger, store: Store, inflight: Inflight
    ) -> None:
        await until(lambda: store.tries.count([]) >= 3)
        assert not down.available
        assert inflight.noted == {"a": answer("a")}

    async def test_what_ends_meanwhile_is_spooled_and_committed_with_the_rest(
        self, quick: None, down: Ledger, store: Store, inflight: Inflight
    ) -> None:
        await down.book(answer("b"))
        assert inflight.kept == ["a", "b"]
        store.failing = False
        await available(down)
        assert store.committed == ["a", "b"]

    async def test_leaving_tries_once_more(self, store: Store, inflight: Inflight) -> None:
        async with open_ledger(store, inflight) as ledger:
            store.failing = True
            await ledger.book(answer("a"))
            store.failing = False
        assert (store.committed, inflight.noted) == (["a"], {})

    async def test_with_a_full_disk_the_first_note_stands_and_the_caller_is_told(
        self, ledger: Ledger, store: Store, inflight: Inflight
    ) -> None:
        ledger.begin(call("a"))
        store.failing = inflight.failing = True
        await refused(ledger.book(answer("a")))
        assert inflight.noted == {"a": call("a")}

    async def test_a_failure_that_nobody_awaits_is_silent(
        self, ledger: Ledger, store: Store, inflight: Inflight
    ) -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        store.failing = inflight.failing = True
        ledger.book(answer("a"))
        await refused(ledger.book(answer("b")))
        gc.collect()
        assert told == []


async def until(condition: Callable[[], object]) -> None:
    """For what a task of the ledger's does at its own pace."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def available(ledger: Ledger) -> None:
    await until(lambda: ledger.available)


async def test_an_entry_that_cannot_be_stored_fails_alone(ledger: Ledger, store: Store, inflight: Inflight) -> None:
    names = [f"n{n}" for n in range(9)]
    store.refused = {"n4"}
    for name in names:
        ledger.begin(call(name))
    results = await asyncio.gather(*(ledger.book(answer(name)) for name in names), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError if name == "n4" else type(None) for name in names]
    assert sorted(store.committed) == sorted(set(names) - {"n4"})
    assert set(inflight.noted) == {"n4"}  # as it was noted, it is for the next start
    assert ledger.available


async def test_what_an_earlier_process_left_is_booked_once(ledger: Ledger, store: Store, inflight: Inflight) -> None:
    inflight.left = [call("a"), answer("b")]
    inflight.noted = {item.completion_id: item for item in inflight.left}
    assert await ledger.recover(MemoryPrices()) == 2
    [[abandoned, known]] = store.commits
    assert (abandoned.outcome, abandoned.estimated, abandoned.input_tokens) == (Outcome.ABANDONED, True, 1200)
    assert known == answer("b")
    assert inflight.noted == {}


async def test_what_an_earlier_process_left_is_spooled_again_while_the_ledger_is_away(
    ledger: Ledger, store: Store, inflight: Inflight
) -> None:
    inflight.left = [call("a")]
    store.failing = True
    assert await ledger.recover(MemoryPrices()) == 1
    assert (inflight.kept, ledger.available) == (["a"], False)


READS: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.completion("acme", "a"),
    lambda ledger: ledger.completion_by_key("acme", "k"),
    lambda ledger: ledger.completions("acme", where=CompletionFilter(), limit=1),
    lambda ledger: ledger.usage("acme", UsageSelection([(NOON, at(1))])),
]


@pytest.mark.parametrize("read", READS)
async def test_reads_say_when_the_ledger_is_down(ledger: Ledger, read: Callable) -> None:
    with pytest.raises(ServiceUnavailableError, match="can't be read"):
        await read(ledger)


async def test_on_files_from_call_to_report(tmp_path: Path) -> None:
    """The whole of it on the embedded stores: a run that stops in mid-call, and the one after it."""
    path = tmp_path / "ledger.db"
    migrate(path)
    async with open_sqlite_ledger(path) as store:
        with open_inflight_log(tmp_path) as log:
            async with open_ledger(store, log) as ledger:
                ledger.begin(call("lost"))
                ledger.begin(call("done"))
                await ledger.book(replace(answer("done"), idempotency_key="k"))
        with open_inflight_log(tmp_path) as log:
            async with open_ledger(store, log) as ledger:
                assert await ledger.recover(MemoryPrices()) == 1
                assert await ledger.recover(MemoryPrices()) == 0
                [lost] = await ledger.completion("acme", "lost")
                assert (lost.outcome, lost.estimated) == (Outcome.ABANDONED, True)
                assert [item.completion_id for item in await ledger.completion_by_key("acme", "k")] == ["done"]
                assert len(await ledger.completions("acme", where=CompletionFilter(), limit=9)) == 2
                [cell] = await ledger.usage("acme", UsageSelection([(NOON, at(1))]))
                assert cell.sums.attempts == 2
        with open_inflight_log(tmp_path) as log:
            assert log.abandoned() == ()
