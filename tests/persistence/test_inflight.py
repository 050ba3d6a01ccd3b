"""What a killed process leaves, and what it does not."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.inflight import FILE_NAME, FolderInUseError, open_inflight_log
from persistence.ports import StoreUnavailableError
from persistence.records import LedgerEntry, Outcome
from tests.persistence.entries import NOON, entries, entry
from tests.persistence.processes import kill_at_first_line, largest_file

ONE, TWO, THREE = (entry(completion_id=f"cmp_{n}", outcome=Outcome.ABANDONED, estimated=True) for n in (1, 2, 3))


def left_in(folder: Path) -> list[LedgerEntry]:
    with open_inflight_log(folder) as log:
        return list(log.abandoned())


def test_begun_and_never_ended_is_abandoned(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        for item in (ONE, TWO, THREE):
            log.begin(item)
        log.end(TWO)
        assert log.abandoned() == ()  # those of an earlier process only
    assert left_in(tmp_path) == [ONE, THREE]


def test_several_end_together(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        for item in (ONE, TWO, THREE):
            log.begin(item)
        log.end(ONE, ONE, THREE)
        log.end()
    assert left_in(tmp_path) == [TWO]


def test_abandoned_stays_until_it_is_ended(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
        log.begin(TWO)
    assert left_in(tmp_path) == [ONE, TWO]
    with open_inflight_log(tmp_path) as log:
        log.end(ONE)
        assert log.abandoned() == (TWO,)
    assert left_in(tmp_path) == [TWO]


def test_the_last_begin_of_a_key_stands(tmp_path: Path) -> None:
    final = replace(ONE, outcome=Outcome.SUCCEEDED, estimated=False, cost=Decimal("1E-9"), labels={"ü": "\n"})
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
        log.begin(replace(ONE, attempt=2))
        log.begin(final)
    assert left_in(tmp_path) == [final, replace(ONE, attempt=2)]


def test_ending_what_never_began_is_nothing(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        log.end(ONE)
    assert (tmp_path / FILE_NAME).read_bytes() == b""


@settings(max_examples=60, deadline=None)
@given(item=entries)
def test_every_entry_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, item: LedgerEntry) -> None:
    folder = tmp_path_factory.mktemp("log")
    with open_inflight_log(folder) as log:
        log.begin(item)
    assert left_in(folder) == [item]


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["begin", "end", "reopen"]), st.integers(0, 5)), max_size=40))
def test_any_run_leaves_what_is_open(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]) -> None:
    folder = tmp_path_factory.mktemp("log")
    live: dict[int, LedgerEntry] = {}
    runs: list[list[tuple[str, int]]] = [[]]
    for step in steps:
        runs.append([]) if step[0] == "reopen" else runs[-1].append(step)
    for run in runs:
        with open_inflight_log(folder, compact_at_bytes=1500) as log:
            assert _same(log.abandoned(), live)
            for number, (act, n) in enumerate(run):
                item = entry(completion_id=f"cmp_{n}", latency_ms=number)
                if act == "begin":
                    log.begin(item)
                    live[n] = item
                else:
                    log.end(item)
                    live.pop(n, None)
    assert _same(left_in(folder), live)


def _same(found: Iterable[LedgerEntry], live: Mapping[int, LedgerEntry]) -> bool:
    return sorted(found, key=lambda item: item.completion_id) == [live[n] for n in sorted(live)]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_no_entry(tmp_path: Path, cut: int) -> None:
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
        log.begin(TWO)
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[:-cut])
    assert left_in(tmp_path) == [ONE]
    with open_inflight_log(tmp_path) as log:
        log.begin(THREE)
    assert left_in(tmp_path) == [ONE, THREE]


def test_unreadable_lines_do_not_hide_the_others(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
    file = tmp_path / FILE_NAME
    file.write_bytes(b'\0\0\0\n{"time": 1}\n[1]\n7\n' + file.read_bytes() + b"[]\n")
    assert left_in(tmp_path) == [ONE]


def test_the_file_stays_small(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    with open_inflight_log(tmp_path, compact_at_bytes=10_000) as log:
        log.begin(ONE)
        for n in range(300):
            item = entry(completion_id=f"cmp_long_{n}")
            log.begin(item)
            log.end(item)
            assert file.stat().st_size < 12_000
        log.begin(TWO)
    assert left_in(tmp_path) == [ONE, TWO]


def test_many_live_entries_are_not_rewritten_each_time(tmp_path: Path) -> None:
    inodes = set()
    with open_inflight_log(tmp_path, compact_at_bytes=1000) as log:
        for n in range(100):
            log.begin(entry(completion_id=f"cmp_{n}"))
        for n in range(100):
            log.begin(item := entry(completion_id=f"cmp_other_{n}"))
            log.end(item)
            inodes.add((tmp_path / FILE_NAME).stat().st_ino)
    assert len(inodes) < 5
    assert len(left_in(tmp_path)) == 100


async def test_what_is_kept_is_on_the_disk_when_that_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    fsync = os.fsync

    def spy(file: int) -> None:
        fsync(file)
        synced.append((tmp_path / FILE_NAME).read_bytes())

    final = replace(ONE, outcome=Outcome.SUCCEEDED, estimated=False)
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
        monkeypatch.setattr(os, "fsync", spy)
        await log.keep([final, TWO])
        assert [b"cmp_1" in told and b"cmp_2" in told for told in synced] == [True]
    assert left_in(tmp_path) == [final, TWO]
    with open_inflight_log(tmp_path) as log:
        log.end(final, TWO)
    assert left_in(tmp_path) == []


async def test_what_is_kept_outlives_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that takes the old one's place is on the disk before it does."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with open_inflight_log(tmp_path, compact_at_bytes=1000) as log:
        await log.keep([ONE])
        begun = len(synced)
        for n in range(100):
            log.begin(item := entry(completion_id=f"cmp_other_{n}"))
            log.end(item)
        assert len(synced) > begun
    assert left_in(tmp_path) == [ONE]


async def test_a_disk_that_cannot_be_synced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_inflight_log(tmp_path) as log:
        monkeypatch.setattr(os, "fsync", fails)
        with pytest.raises(StoreUnavailableError, match=r"can't be written: Input/output error"):
            await log.keep([ONE])


async def test_a_lack_of_descriptors_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with open_inflight_log(tmp_path) as log:
        monkeypatch.setattr(os, "dup", fails)
        with pytest.raises(StoreUnavailableError, match="Too many open files"):
            await log.keep([ONE])
        monkeypatch.undo()
    assert left_in(tmp_path) == [ONE]


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    refused = pytest.raises(FolderInUseError, match=str(tmp_path))
    with open_inflight_log(tmp_path), refused, open_inflight_log(tmp_path):
        pass
    assert left_in(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="nowhere"), open_inflight_log(tmp_path / "nowhere"):
        pass


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_a_full_disk_refuses_whole_records(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
        with largest_file((tmp_path / FILE_NAME).stat().st_size + 100):  # the next record fits in part
            with pytest.raises(StoreUnavailableError, match=FILE_NAME):
                log.begin(TWO)
            with pytest.raises(StoreUnavailableError, match=FILE_NAME):
                log.begin(TWO)
        log.begin(THREE)
    assert left_in(tmp_path) == [ONE, THREE]


def test_what_ends_on_a_full_disk_has_ended(tmp_path: Path) -> None:
    """Or the next start would book an attempt as abandoned that is booked, or queued, already."""
    with open_inflight_log(tmp_path) as log:
        log.begin(ONE)
        log.begin(replace(ONE, output_tokens=7))  # a key that has two lines
        log.begin(TWO)
        log.begin(THREE)
        with largest_file((tmp_path / FILE_NAME).stat().st_size):
            log.end(ONE, TWO)
        log.begin(TWO)
        log.end(TWO)
    assert left_in(tmp_path) == [THREE]


def test_what_ends_on_a_full_disk_after_a_new_file(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path, compact_at_bytes=1) as log:
        for item in (ONE, TWO, THREE):
            log.begin(item)
        log.end(ONE)
        assert b"cmp_1" not in (tmp_path / FILE_NAME).read_bytes()
        with largest_file((tmp_path / FILE_NAME).stat().st_size):
            log.end(TWO)
    assert left_in(tmp_path) == [THREE]


def test_a_compaction_without_room_keeps_the_long_file(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path, compact_at_bytes=1000) as log:
        log.begin(ONE)
        log.begin(TWO)
        (tmp_path / FILE_NAME).with_suffix(".new").mkdir()  # whatever the reason
        log.end(TWO)
        log.begin(THREE)
    (tmp_path / FILE_NAME).with_suffix(".new").rmdir()
    assert left_in(tmp_path) == [ONE, THREE]


@pytest.mark.parametrize("wrong", [{"time": NOON.replace(tzinfo=None)}, {"model": "\ud800"}, {"input_tokens": 2**70}])
def test_an_entry_that_cannot_be_noted_is_refused(tmp_path: Path, wrong: dict) -> None:
    with open_inflight_log(tmp_path) as log:
        with pytest.raises(ValueError, match=r"\w"):
            log.begin(replace(ONE, **wrong))
        log.begin(TWO)
    assert left_in(tmp_path) == [TWO]


def test_any_mapping_serves_as_labels(tmp_path: Path) -> None:
    with open_inflight_log(tmp_path) as log:
        log.begin(replace(ONE, labels=MappingProxyType({"a": "b"})))
    assert left_in(tmp_path)[0].labels == {"a": "b"}


BEGIN_AND_HANG = """
import sys, time
from pathlib import Path
from persistence.inflight import open_inflight_log
from tests.persistence.entries import entry

with open_inflight_log(Path(sys.argv[1])) as log:
    log.begin(entry(completion_id="cmp_1"))
    log.begin(entry(completion_id="cmp_2"))
    log.end(entry(completion_id="cmp_1"))
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_what_it_had_in_flight(tmp_path: Path) -> None:
    assert kill_at_first_line(BEGIN_AND_HANG, tmp_path) == "begun"
    assert left_in(tmp_path) == [entry(completion_id="cmp_2")]
