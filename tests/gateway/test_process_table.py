"""What the processes of one server say of each other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import pytest

from gateway import process_table as module
from gateway.process_table import ProcessPlace, ProcessTable, State


def filled(*states: State) -> ProcessTable:
    table = ProcessTable(len(states))
    for row in range(len(states)):
        table.say(row, State.READY)
    for row, state in enumerate(states):
        (table.clear(row) if state is State.ABSENT else table.say(row, state))
    return table


def test_a_server_is_not_ready_before_all_have_started() -> None:
    table = ProcessTable(3)
    table.say(0, State.READY)
    assert not table.complete()
    assert table.others(0) == (["2 of 3 processes (not started)"], [])
    table.say(1, State.TROUBLED)
    table.say(2, State.READY)
    assert table.complete()
    assert table.others(0) == (["1 of 3 processes (ledger or in-flight log)"], [])
    assert table.others(1) == ([], []), "of itself each process tells in its own words"


def test_it_stays_ready_while_one_is_replaced() -> None:
    table = filled(State.READY, State.ABSENT, State.READY)
    assert table.others(0) == ([], ["1 of 3 processes (not started)"])


def test_one_that_says_nothing_any_more_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    table = filled(State.READY, State.READY)
    monkeypatch.setattr(module, "SILENT_AFTER_S", -1.0)
    assert table.others(1) == (["1 of 2 processes (no sign of life)"], [])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_one_process_says_the_others_read() -> None:
    table = ProcessTable(2)
    if (child := os.fork()) == 0:
        table.say(0, State.READY)
        table.say(1, State.TROUBLED)
        table.refuse("REDIS_URI: ü")
        table.end()
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    assert table.complete()
    assert table.ending()
    assert table.refusal() == "REDIS_URI: ü"
    assert table.others(0) == (["1 of 2 processes (ledger or in-flight log)"], [])


async def test_a_process_says_how_it_does_as_long_as_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.001)
    table = ProcessTable(2)
    troubles: list[str] = []

    def found() -> Sequence[str]:
        return troubles

    table.say(1, State.READY)
    async with ProcessPlace(table, 0).taken(found), asyncio.timeout(10):
        assert table.others(1) == ([], [])
        troubles.append("ledger")
        while table.others(1) == ([], []):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0)
        troubles.clear()
        while table.others(1) != ([], []):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)
