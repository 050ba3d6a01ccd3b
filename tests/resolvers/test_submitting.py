"""What becomes a batch, and what is refused by its line and field."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, cast

import pytest

from persistence.batch_records import BatchMode, Counts
from persistence.config_records import Config, ConfigVersion, encoded
from persistence.ports import ConfigStore
from providers.types import Message, Role
from resolvers import config_content, query_costs
from resolvers.batches import submitting
from resolvers.batches.asked import MAX_LINE_BYTES, MAX_LISTED, BatchAsked, Given, ItemAsked, lines_of
from resolvers.batches.cases import Batches
from resolvers.batches.json_texts import INLINE_BYTES, input_name
from resolvers.config_cache import ConfigCache
from resolvers.errors import (
    BadUserInputError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ServiceUnavailableError,
)
from resolvers.principal import Limits
from resolvers.query_costs import CostBuckets, Meter, caller_of
from resolvers.templates import rendered
from resolvers.types import ConfigCall, ConfigRef, Target

from .batch_stage import BatchStage, given, inputs, open_batch_stage
from .config_stage import CALL, CONTENT
from .scene import ACME, BETA, GLOBEX, command


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


def read(line: bytes) -> ItemAsked:
    """A test's lines: what is asked, or `!field` for what can't be read."""
    text = line.decode()
    if text.startswith("!"):
        raise BadUserInputError("is none", path=("input", *text[1:].split(".")))
    return ItemAsked(command(messages=(Message(Role.USER, text),)), custom_id=f"id-{text}"[:300])


async def refused(stage: BatchStage, source: Any, **asked: Any) -> tuple[tuple[Any, ...], str]:
    with pytest.raises(BadUserInputError) as caught:
        await stage.batches.submit(ACME, BatchAsked(**asked), source)
    assert (stage.store.batches, stage.store.begun, stage.store.kept) == ({}, {}, {}), "nothing is left of it"
    return tuple(caught.value.path), caught.value.message


async def test_a_file_is_read_line_by_line(stage: BatchStage) -> None:
    content = b"\n".join(f"n{number}".encode() for number in range(1200)) + b"\n\n"
    stage.objects.files["acme", "batches/uploads/x.jsonl"] = content
    batch = await stage.batches.submit(ACME, BatchAsked(file="batches/uploads/x.jsonl"), read)
    assert batch.counts == Counts(waiting=1200)
    items = stage.items(batch)
    assert [item.custom_id for item in items] == [f"id-n{number}" for number in range(1200)]
    assert all("batch" in (item.input.text or "") for item in items)


@pytest.mark.parametrize(
    ("line", "path", "told"),
    [
        (b"!messages.0.role", (3, "messages", "0", "role"), "line 3, messages.0.role: is none"),
        (b"x" * 299, (3, "customId"), "line 3, customId: customId has 1 to 256 characters"),
    ],
)
async def test_a_bad_line_names_its_number_and_field(
    stage: BatchStage, line: bytes, path: tuple[Any, ...], told: str
) -> None:
    stage.objects.files["acme", "f"] = b"\n".join([b"a", b"", line, b"!later"])
    assert await refused(stage, read, file="f") == (("input", "file", *path), told)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"target": Target("nobody", "x")}, ("inputs", 1, "model")),
        ({"temperature": 3.0}, ("inputs", 1, "temperature")),
        ({"idempotency_key": "k"}, ("inputs", 1, "idempotencyKey")),
        ({"messages": ()}, ("inputs", 1, "messages")),
        ({"labels": {str(n): "" for n in range(20)}}, ("inputs", 1, "labels")),
    ],
)
async def test_a_bad_input_names_its_index_and_field(
    stage: BatchStage, asked: dict[str, Any], path: tuple[Any, ...]
) -> None:
    assert (await refused(stage, [given(), given(**asked)]))[0] == ("input", *path)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"priority": 10}, "priority"),
        ({"idempotency_key": ""}, "idempotencyKey"),
        ({"labels": {"batch": "x"}}, "labels"),
        ({"labels": {str(n): "" for n in range(20)}}, "labels"),
    ],
)
async def test_what_is_wrong_with_all_of_it(stage: BatchStage, asked: dict[str, Any], field: str) -> None:
    assert (await refused(stage, inputs(1), **asked))[0] == ("input", field)


async def test_blank_lines_are_bounded_too(stage: BatchStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for a thousand million of them in a file."""
    monkeypatch.setattr("resolvers.batches.asked.MAX_LINES", 5)
    stage.objects.files["acme", "f"] = b"a" + b"\n" * 4
    assert (await stage.batches.submit(ACME, BatchAsked(file="f"), read)).counts == Counts(waiting=1)
    stage.store.batches, stage.store.begun, stage.store.kept = {}, {}, {}
    stage.objects.files["acme", "f"] = b"a" + b"\n" * 5
    path, told = await refused(stage, read, file="f")
    assert (path, told) == (("input", "file"), "a file has at most 5 lines, with blank ones")


@pytest.mark.parametrize("last", [b"", b"!later"], ids=["accepted", "refused"])
@pytest.mark.parametrize("rehearsed", [False, True])
async def test_who_has_lines_read_pays_for_it(
    stage: BatchStage, monkeypatch: pytest.MonkeyPatch, last: bytes, rehearsed: bool
) -> None:
    """Also as they are only rehearsed, and as often as one likes."""
    ticks, batches = count(), paid(stage)
    monkeypatch.setattr(query_costs, "thread_time", lambda: next(ticks) / 100)  # each piece of work takes 10 ms
    stage.objects.files["acme", "f"] = b"a\nb\nc\n" + last
    with suppress(BadUserInputError):
        await (batches.rehearse if rehearsed else batches.submit)(ACME, BatchAsked(file="f"), read)
    assert points(batches) == 100 * (1 + 3 * 3 + (1 if last else 0))


async def test_who_has_a_file_read_that_was_submitted_before_pays_too(
    stage: BatchStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ticks = BatchAsked(file="f", idempotency_key="k"), count()
    stage.objects.files["acme", "f"] = b"a\nb\nc\n"
    batch, batches = await stage.batches.submit(ACME, asked, read), paid(stage)
    monkeypatch.setattr(query_costs, "thread_time", lambda: next(ticks) / 100)
    assert await batches.submit(ACME, asked, read) == batch
    assert points(batches) == 100 * (1 + 3)


@pytest.mark.parametrize("rehearsed", [False, True])
async def test_who_has_templates_filled_in_pays_for_it(
    stage: BatchStage, monkeypatch: pytest.MonkeyPatch, rehearsed: bool
) -> None:
    """A line of 60 bytes may have a megabyte written."""
    seconds = 0.0

    def slow(*given: Any, **named: Any) -> str:
        nonlocal seconds
        seconds += 0.01
        return rendered(*given, **named)

    monkeypatch.setattr(config_content, "rendered", slow)
    monkeypatch.setattr(query_costs, "thread_time", lambda: seconds)
    cache = ConfigCache(cast("ConfigStore", Greeting()), asyncio.get_running_loop().time)
    batches = replace(paid(stage), configs=replace(stage.batches.configs, cache=cache))
    asked = [Given(b"", lambda: ItemAsked(CALL))] * 5
    await (batches.rehearse if rehearsed else batches.submit)(ACME, BatchAsked(), asked)
    assert points(batches) == 5 * 2 * 100


class Greeting:
    """A store of one config."""

    async def by_slug(self, organisation: str, slug: str) -> Config:
        at = datetime(2026, 3, 1, tzinfo=UTC)
        return Config("cfg_1", organisation, slug, 1, encoded(CONTENT), at, at, published=1)

    async def version(self, organisation: str, config_id: str, number: int) -> ConfigVersion:
        return ConfigVersion(organisation, config_id, number, encoded(CONTENT), datetime(2026, 3, 1, tzinfo=UTC), "")


def paid(stage: BatchStage) -> Batches:
    """By buckets in which next to nothing comes back."""
    return replace(stage.batches, buckets=CostBuckets(10_000, 1, asyncio.get_running_loop().time))


def points(batches: Batches) -> int:
    assert batches.buckets is not None
    return 10_000 - batches.buckets.throttle(caller_of(ACME)).currently_available


@pytest.mark.parametrize("name", ["nowhere", "../etc"])
async def test_a_file_that_is_not_there(stage: BatchStage, name: str) -> None:
    with pytest.raises(NotFoundError, match="upload it first"):
        await stage.batches.submit(ACME, BatchAsked(file=name), read)
    assert stage.store.begun == {}


async def test_the_deadline_lies_ahead_and_there_is_one(stage: BatchStage) -> None:
    now = stage.batches.now()
    for wrong in (now, now + timedelta(days=31)):
        assert (await refused(stage, inputs(1), deadline=wrong))[0] == ("input", "deadline")
    batch = await stage.submit(1)
    assert batch.deadline == now + timedelta(days=7)


async def test_there_are_inputs_and_not_too_many(stage: BatchStage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "at least one" in (await refused(stage, []))[1]
    assert "more come as a file" in (await refused(stage, inputs(MAX_LISTED + 1)))[1]
    stage.objects.files["acme", "f"] = b"\n" * 3
    assert "at least one" in (await refused(stage, read, file="f"))[1]
    stage.objects.files["acme", "f"] = b"a\n" + b"b" * (MAX_LINE_BYTES + 1)
    assert (await refused(stage, read, file="f"))[0] == ("input", "file", 2)
    monkeypatch.setattr("resolvers.batches.reading.MAX_ITEMS", 2)
    assert "at most 2 inputs" in (await refused(stage, inputs(3)))[1]


async def test_short_lines_can_t_name_more_text_than_a_batch_may_have(
    stage: BatchStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.batches.reading.MAX_INPUT_BYTES", 100)
    cache = ConfigCache(cast("ConfigStore", Greeting()), asyncio.get_running_loop().time)
    stage.batches = replace(stage.batches, configs=replace(stage.batches.configs, cache=cache))
    long = ConfigCall(ConfigRef("greet", variables={"name": "x" * 40}))
    assert "at most 100 bytes" in (await refused(stage, [Given(b"", lambda: ItemAsked(long))] * 3))[1]
    with pytest.raises(BadUserInputError, match="at most 100 bytes"):
        await stage.batches.rehearse(ACME, BatchAsked(), [Given(b"", lambda: ItemAsked(long))] * 3)


async def test_a_limited_key_submits_what_it_may_use(stage: BatchStage) -> None:
    limited = replace(ACME, limits=Limits(models=("alpha/*",)))
    with pytest.raises(ForbiddenError, match=r"inputs\[1\]: this key may not use the model"):
        await stage.batches.submit(limited, BatchAsked(), [given(), given(target=BETA)])
    batch = await stage.submit(1, limited)
    assert batch.submitter.models == ("alpha/*",)


async def test_a_key_makes_one_batch_of_the_same(stage: BatchStage) -> None:
    first = await stage.submit(3, idempotency_key="k")
    assert await stage.submit(3, idempotency_key="k") == first
    assert len(stage.store.batches) == len(stage.store.kept) == 1
    for other in ({"priority": 1}, {"labels": {"a": "b"}}):
        with pytest.raises(ConflictError, match="something else"):
            await stage.submit(3, idempotency_key="k", **other)
    with pytest.raises(ConflictError):
        await stage.submit(4, idempotency_key="k")
    assert (await stage.submit(3, GLOBEX, idempotency_key="k")).id != first.id
    both = await asyncio.gather(*(stage.submit(3, idempotency_key="l") for _ in range(2)))
    assert both[0] == both[1]
    assert stage.store.begun == {}


async def test_a_key_tells_its_batch_when_the_file_is_gone(stage: BatchStage) -> None:
    """Uploads are forgotten before their batches are."""
    stage.objects.files["acme", "f"] = b"a\nb"
    asked = BatchAsked(idempotency_key="k", file="f", priority=1)
    batch = await stage.batches.submit(ACME, asked, read)
    stage.objects.files["acme", "f"] = b"a\nother"
    with pytest.raises(ConflictError, match="something else"):
        await stage.batches.submit(ACME, asked, read)
    del stage.objects.files["acme", "f"]
    assert await stage.batches.submit(ACME, asked, read) == batch
    for other in ({"priority": 2}, {"file": "g"}, {"defaults": "[]"}):
        with pytest.raises(ConflictError, match="something else"):
            await stage.batches.submit(ACME, replace(asked, **other), read)
    with pytest.raises(NotFoundError, match="upload it first"):
        await stage.batches.submit(ACME, replace(asked, idempotency_key="l"), read)


async def test_a_key_tells_its_batch_when_the_deadline_has_passed(stage: BatchStage) -> None:
    soon = stage.batches.now() + timedelta(minutes=1)
    batch = await stage.submit(1, idempotency_key="k", deadline=soon)
    await asyncio.sleep(120)
    assert await stage.submit(1, idempotency_key="k", deadline=soon) == batch
    with pytest.raises(BadUserInputError, match="deadline"):
        await stage.submit(1, deadline=soon)


async def test_an_organisation_has_so_many_unended(stage: BatchStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "MAX_UNENDED", 1)
    await stage.submit(1)
    with pytest.raises(ConflictError):
        await stage.submit(1)
    await stage.submit(1, GLOBEX)
    assert stage.store.begun == {}


async def test_what_nobody_opened_is_forgotten(stage: BatchStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolvers.batches.forgetting.UNOPENED_FOR", timedelta(seconds=30))
    monkeypatch.setattr("resolvers.batches.dispatching.FORGET_S", 20.0)
    await stage.submit(1)
    stage.store.begun["acme", "bat_x"] = await stage.submit(1)
    stage.store.kept["acme", "bat_x"] = {}
    async with stage.dispatcher():
        await asyncio.sleep(60)
    assert stage.store.begun == {}
    assert len(stage.store.kept) == 2


async def test_what_is_refused_leaves_no_files(stage: BatchStage) -> None:
    """A bad line behind a large one; and a second that came at once by the same key."""
    large = given(messages=(Message(Role.USER, "x" * INLINE_BYTES),))
    await refused(stage, [large, given(temperature=3.0)])
    assert (stage.objects.files, stage.store.begun) == ({}, {})
    asked = BatchAsked(idempotency_key="k")
    first, second = await asyncio.gather(*(stage.batches.submit(ACME, asked, [large]) for _ in range(2)))
    assert first.id == second.id
    assert list(stage.objects.files) == [("acme", input_name(first.id, 0))]


async def test_while_the_stores_are_away_nothing_is_accepted(stage: BatchStage) -> None:
    stage.store.down = True
    with pytest.raises(ServiceUnavailableError):
        await stage.submit(1)
    stage.store.down, stage.objects.down = False, True
    with pytest.raises(ServiceUnavailableError):
        await stage.batches.submit(ACME, BatchAsked(file="f"), read)
    assert stage.store.batches == {}


async def test_a_rehearsal_prices_and_names_every_problem(stage: BatchStage) -> None:
    priced = {"target": Target("openai", "gpt-4o-mini"), "max_tokens": 100}
    vendors: Any = await stage.batches.configs.vendors("acme")
    vendors["openai"] = vendors["alpha"]
    wrong = Given(b"", lambda: read(b"!model"))
    asked = [given(**priced), given(**priced), given(), wrong, wrong]
    found = await stage.batches.rehearse(ACME, BatchAsked(), asked)
    assert (found.items, found.unpriced, found.wrong) == (5, 1, 2)
    assert [(each.line, each.path) for each in found.problems] == [(4, ("model",)), (5, ("model",))]
    assert found.most_cost > 2 * 100 * Decimal("0.60") / 1_000_000
    half = await stage.batches.rehearse(ACME, BatchAsked(mode=BatchMode.PROVIDER), [given(**priced)] * 2)
    assert half.most_cost * 2 == found.most_cost
    assert (stage.store.batches, stage.store.begun) == ({}, {})


async def test_a_vendors_batch_is_for_those_who_have_one(stage: BatchStage) -> None:
    told = await refused(stage, inputs(1), mode=BatchMode.PROVIDER)
    assert told[0] == ("input", "inputs", 0, "model")
    assert "mode PROVIDER is for anthropic, openai" in told[1]


async def test_others_learn_nothing_of_it(stage: BatchStage) -> None:
    batch = await stage.submit(1)
    assert await stage.batches.get(ACME, batch.id) == batch
    for ask in (
        stage.batches.get(GLOBEX, batch.id),
        stage.batches.cancel(GLOBEX, batch.id),
        stage.batches.retry(GLOBEX, batch.id, only_failed=True),
        stage.batches.get(ACME, "bat_x"),
    ):
        with pytest.raises(NotFoundError):
            await ask


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_lines_are_the_same_however_they_come(size: int) -> None:
    content = "a\n\nbé🔑\nlast".encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), size):
            yield content[start : start + size]

    assert [line async for line in lines_of(chunks(), Meter(None, caller_of(ACME)))] == [
        b"a",
        b"",
        "bé🔑".encode(),
        b"last",
    ]
