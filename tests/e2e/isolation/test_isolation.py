"""No organisation learns of another's things by naming them, or does anything to them: in every place of the schema
where something can be named, with what another organisation really has."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.servers.mongo import migrated_database, shared_mongo
from tests.servers.postgres import new_database, shared_postgres

from ..documents import CANCEL, COMPLETE, STREAM
from ..processes import Server, Vendor, running_server, server_environment
from .organisations import STRANGERS_PROVIDER, Answer, Organisation, alike, made
from .places import ROOTS, Place, arguments, document, lists, node_types, outputs, places
from .references import (
    DEFAULTS,
    EVERYBODYS_LISTS,
    NO_REFERENCES,
    REFERENCES,
    TOLD,
    TOLD_TO_ALL,
    Hidden,
    Known,
    Reference,
    Sought,
    reference_at,
)

DEPTH = 3
CALLS = 5
ROUNDS = 4
TELLING_S = 0.025
"""A wait, a retry or a read of another's data would take more; the noise of a busy machine's median does now and then,
and so the calls are made again."""


@dataclass(frozen=True)
class Case:
    """`owned`: the attribute of `Organisation` that is named there."""

    place: Place
    reference: Reference
    owned: str

    def __str__(self) -> str:
        return f"{self.place}-{self.owned}"

    def request(self, asking: Organisation, named: str) -> tuple[str, dict[str, Any]]:
        batch = {"model": asking.full_model} | ({} if "inputs" in self.place.path else {"file": asking.batch_file})
        defaults = {
            **DEFAULTS,
            "UpdateApiKeyInput.id": asking.api_key,
            "Query.webhookDeliveries.webhookId": asking.webhook,
            "SubmitBatchInput": batch,
        }
        on, field = self.place.on, self.place.field
        given = arguments(on, field, self.place.path, named, defaults)
        return document(on, field, given, DEPTH), given

    def answer(self, asking: Organisation, named: str) -> Answer:
        return asking.answer(*self.request(asking, named), reference=named)


def cases() -> Iterator[Case]:
    for place in places():
        try:
            reference = reference_at(place)
        except KeyError:
            continue  # `test_every_place_is_known` tells
        if reference is not None:
            yield from (Case(place, reference, owned) for owned in reference.to)


CASES = list(cases())


@dataclass(frozen=True)
class World:
    """`owner` has what `stranger` names, who has things of its own, older ones."""

    server: Server
    client: httpx.Client
    owner: Organisation
    stranger: Organisation
    stands: list[Any]

    def one_who_asks(self, case: Case) -> Organisation:
        """Where a stranger may have the same name, it is to have none before."""
        if isinstance(case.reference, Hidden | Sought):
            return self.stranger
        return made(self.server, self.client, provider=STRANGERS_PROVIDER)

    def one_who_has(self, case: Case) -> Organisation:
        """Streams are kept for minutes alone, and so for a case of theirs there is a new one."""
        return made(self.server, self.client) if case.owned == "streamed" else self.owner

    def changed(self) -> bool:
        return all_of(self.owner) != self.stands


def all_of(organisation: Organisation) -> list[Any]:
    """Whatever the API tells it of its own, without links, which are new ones each time."""
    return [
        without_links(organisation.asked(document("Query", name, (), DEPTH + 2), {}))
        for name in lists()
        if name not in EVERYBODYS_LISTS
    ]


def without_links(told: Any) -> Any:
    if isinstance(told, dict):
        return None if told.get("__typename") == "FileLink" else {name: without_links(told[name]) for name in told}
    return [without_links(each) for each in told] if isinstance(told, list) else told


@pytest.fixture(scope="module")
def servers(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with its documents on MongoDB and its ledger on PostgreSQL."""
    ledger = shared_postgres()
    where = {
        "MONGODB_CONNECTION_URI": asyncio.run(migrated_database(shared_mongo())),
        "TIMESCALE_SERVICE_URL": ledger.url(asyncio.run(new_database(ledger))),
    }
    with running_server(server_environment(tmp_path_factory.mktemp("servers"), vendor, **where)) as server:
        yield server


@pytest.fixture(scope="module", params=["server", "servers"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    server: Server = request.getfixturevalue(request.param)
    with httpx.Client(timeout=60) as client:
        stranger = made(server, client, provider=STRANGERS_PROVIDER)
        owner = made(server, client)
        yield World(server, client, owner, stranger, all_of(owner))


def test_every_place_is_known() -> None:
    unknown = []
    for place in places():
        try:
            reference_at(place)
        except KeyError:
            unknown.append(f"{place}: enter {' or '.join(place.names)}")
    assert unknown == [], "in references.py: among REFERENCES if it can name what an organisation has, else why not"


def test_every_reference_can_be_asked_for() -> None:
    """Of places that are no root fields, cases can't be made yet."""
    assert [str(case) for case in CASES if case.place.on not in ROOTS] == []


def test_every_id_that_is_told_can_be_asked_for() -> None:
    assert set(outputs()) == TOLD.keys() | TOLD_TO_ALL.keys(), "enter it in TOLD, or in TOLD_TO_ALL with the reason"
    asked = {case.owned for case in CASES if isinstance(case.reference, Hidden)}
    assert set(TOLD.values()) <= asked, "no place asks for it"


def test_each_kind_of_node_has_its_case_there() -> None:
    nodes = {f"{kind}.id" for kind in node_types()} - TOLD_TO_ALL.keys()
    assert {TOLD[name] for name in nodes} == set(REFERENCES["Query.node.id"].to)


def test_no_entry_is_left_over() -> None:
    names = {name for place in places() for name in place.names}
    assert (REFERENCES.keys() | NO_REFERENCES.keys()) - names == set()
    assert REFERENCES.keys() & NO_REFERENCES.keys() == set()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_organisation_s_is_as_none(world: World, case: Case) -> None:
    theirs = getattr(world.one_who_has(case), case.owned)
    nobodys = alike(theirs)
    stranger = world.one_who_asks(case)
    found = case.answer(stranger, theirs)
    assert found == case.answer(stranger, nobodys)
    assert found.not_found is isinstance(case.reference, Hidden), found.body
    assert found.refused is False or found.not_found, found.body
    assert {each for each in world.owner.named() if each in found.whole} == set()
    assert case.place.on == "Query" or not world.changed()


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.reference, Hidden)], ids=str)
def test_nor_does_the_time_tell(world: World, case: Case) -> None:
    theirs = getattr(world.one_who_has(case), case.owned)
    nobodys = alike(theirs)
    told = [case.request(world.stranger, each) for each in (theirs, nobodys)]
    apart: list[float] = []
    for _ in range(ROUNDS):
        took: list[list[float]] = [[], []]
        for number in range(2 * CALLS):
            began = time.perf_counter()
            world.stranger.raw(*told[number % 2])
            took[number % 2].append(time.perf_counter() - began)
        apart.append(abs(statistics.median(took[0]) - statistics.median(took[1])))
        if apart[-1] < TELLING_S:
            return
    pytest.fail(f"seconds between the medians: {apart}")


@pytest.mark.parametrize("case", [case for case in CASES if not isinstance(case.reference, Known)], ids=str)
def test_its_owner_names_it_there(world: World, case: Case) -> None:
    """Else nothing was shown: to the owner it is another answer than to a stranger, and never NOT_FOUND."""
    owner = made(world.server, world.client) if case.place.on == "Mutation" else world.one_who_has(case)
    own = getattr(owner, case.owned)
    found = case.answer(owner, own)
    assert not found.not_found, found.body
    assert found != case.answer(world.one_who_asks(case), own)


def test_what_runs_is_as_none_too(world: World) -> None:
    """Named while it runs, by its id and by its key, which is free to others meanwhile."""
    key = f"key-{secrets.token_hex(6)}"
    asked = {"model": world.owner.full_model, "messages": [{"role": "USER", "content": "[[tokens=900]] [[pace=20]]"}]}
    with world.owner.stream(STREAM, {"input": {**asked, "idempotencyKey": key}}) as events:
        running = next(events)["completionStream"]["completionId"]
        for name, reference in (("id", running), ("idempotencyKey", key)):
            found = world.stranger.answer(CANCEL, {"by": {name: reference}}, reference)
            nobodys = alike(reference)
            assert found == world.stranger.answer(CANCEL, {"by": {name: nobodys}}, nobodys)
            assert found.not_found
        echo = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "hello"}], "idempotencyKey": key}
        assert world.stranger.asked(COMPLETE, {"input": echo})["complete"]["content"] == "You said: hello"
        assert next(events)["completionStream"]["__typename"] != "CompletionFinished"
        cancelled = world.owner.asked(CANCEL, {"by": {"idempotencyKey": key}})["cancelCompletion"]
        assert cancelled == {"completionId": running, "cancelled": True}
        *_, end = events
    assert end["completionStream"]["completion"]["finishReason"] == "CANCELLED"
