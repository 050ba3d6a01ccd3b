"""Several processes in one data folder: each has a log, and what any of them leaves is found."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from persistence.inflight import FILE_NAME, FileInflightLog, FolderInUseError, open_inflight_log
from persistence.inflight_slots import open_inflight_slot
from persistence.ports import StoreUnavailableError
from persistence.records import Outcome
from tests.persistence.entries import entry

ENTRIES = [entry(completion_id=f"cmp_{n}", outcome=Outcome.ABANDONED, estimated=True) for n in range(4)]


def begun_by(folder: Path, processes: int) -> None:
    """By so many at once, each one entry, all killed."""
    with ExitStack() as stack:
        for item in ENTRIES[:processes]:
            stack.enter_context(open_inflight_slot(folder, several=True)).begin(item)


def found(log: FileInflightLog) -> list[str]:
    return sorted(each.completion_id for each in log.abandoned())


def ids(count: int) -> list[str]:
    return [each.completion_id for each in ENTRIES[:count]]


def test_one_that_is_alone_has_the_folder_itself(tmp_path: Path) -> None:
    with open_inflight_slot(tmp_path, several=False):
        assert [each.name for each in tmp_path.iterdir() if each.suffix != ".lock"] == [FILE_NAME]
        with pytest.raises(FolderInUseError, match="is in use by another process"), ExitStack() as stack:
            stack.enter_context(open_inflight_slot(tmp_path, several=False))


def test_a_successor_finds_what_was_left_in_its_slot_and_in_those_that_nobody_holds(tmp_path: Path) -> None:
    begun_by(tmp_path, 3)
    with open_inflight_slot(tmp_path, several=True) as log:
        assert found(log) == ids(3)


def test_what_a_living_process_has_in_flight_is_its_own(tmp_path: Path) -> None:
    with open_inflight_slot(tmp_path, several=True) as first:
        first.begin(ENTRIES[0])
        with open_inflight_slot(tmp_path, several=True) as second:
            second.begin(ENTRIES[1])
            with open_inflight_slot(tmp_path, several=True) as third:
                assert found(third) == []
        with open_inflight_slot(tmp_path, several=True) as replaced:
            assert found(replaced) == ids(2)[1:]


@pytest.mark.parametrize("several", [False, True])
def test_fewer_processes_than_before_find_what_the_others_left(tmp_path: Path, several: bool) -> None:
    begun_by(tmp_path, 4)
    with open_inflight_slot(tmp_path, several=several) as log:
        assert found(log) == ids(4)
        log.end(*ENTRIES[:3])
    with open_inflight_slot(tmp_path, several=several) as log:
        assert found(log) == [ENTRIES[3].completion_id], "not found anew where it was"


async def test_what_was_spooled_is_taken_over_on_the_disk(tmp_path: Path) -> None:
    with open_inflight_slot(tmp_path, several=True), open_inflight_slot(tmp_path, several=True) as log:
        await log.keep([ENTRIES[0]])
    with open_inflight_slot(tmp_path, several=False) as log:
        assert found(log) == ids(1)
    with open_inflight_log(tmp_path) as log:
        assert found(log) == ids(1)


def test_a_kill_between_taking_over_and_ending_leaves_it_in_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_by(tmp_path, 2)
    with monkeypatch.context() as patched:
        patched.setattr(FileInflightLog, "end", _killed)
        with pytest.raises(asyncio.CancelledError), ExitStack() as stack:
            stack.enter_context(open_inflight_slot(tmp_path, several=True))
    with open_inflight_slot(tmp_path, several=True) as log:
        assert found(log) == ids(2)


def test_a_slot_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "process-1").write_text("not a folder")
    with (
        open_inflight_slot(tmp_path, several=True),
        pytest.raises(StoreUnavailableError, match="process-1"),
        ExitStack() as stack,
    ):
        stack.enter_context(open_inflight_slot(tmp_path, several=True))


def _killed(*_: object) -> None:
    raise asyncio.CancelledError
