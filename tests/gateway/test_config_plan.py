"""From files to the server's configs: the plan, its steps, and what comes in between; on the product's schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import config_plan
from gateway.client import ApiError
from gateway.config_commands import carry_out
from gateway.config_files import FileContent
from gateway.config_plan import Action, plan, refusal, standing_configs, without_file
from tests.graph.configs_stage import DRAFT, GREET, create, open_configs_stage, publish, write
from tests.graph.stage import Stage

PLAIN = FileContent(model="alpha/a-1")
OTHER = FileContent(model="beta/b-1", description="Another")


class Server:
    """The API without its network, and what was written to it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.writes: list[str] = []

    async def ask(self, field: str, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        if query.startswith("mutation"):
            self.writes.append(field)
        data, errors = await self.stage.ask(query, dict(variables))
        if errors:
            raise ApiError(f"{errors[0]['extensions']['code']}: {errors[0]['message']}")
        assert data is not None
        answer: Mapping[str, Any] = data[field]
        return answer

    async def planned(self, files: Mapping[str, FileContent], *, prune: bool = False) -> list[config_plan.Step]:
        return plan(files, await standing_configs(self.ask), prune=prune)

    async def actions(self, files: Mapping[str, FileContent], *, prune: bool = False) -> dict[str, Action]:
        return {step.slug: step.action for step in await self.planned(files, prune=prune)}

    async def imported(self, files: Mapping[str, FileContent], *, prune: bool = False) -> int:
        """How many steps failed."""
        return await carry_out(self.ask, await self.planned(files, prune=prune))

    async def exported(self) -> dict[str, str]:
        standing = await standing_configs(self.ask)
        return {slug: each.exported.text() for slug, each in standing.items() if not each.archived}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_configs_stage(tmp_path) as stage:
        yield Server(stage)


async def test_created_updated_and_then_unchanged(server: Server) -> None:
    assert await server.actions({"b": PLAIN, "a": OTHER}) == {"a": Action.CREATE, "b": Action.CREATE}
    assert server.writes == []
    assert await server.imported({"b": PLAIN, "a": OTHER}) == 0
    assert server.writes == ["createConfig", "publishConfig"] * 2
    server.writes.clear()
    assert await server.imported({"b": OTHER, "a": OTHER}) == 0
    assert server.writes == ["updateConfig", "publishConfig"]
    assert await server.actions({"b": OTHER, "a": OTHER}) == {"a": Action.UNCHANGED, "b": Action.UNCHANGED}
    server.writes.clear()
    assert await server.imported({"b": OTHER, "a": OTHER}) == 0
    assert server.writes == []


async def test_an_export_that_is_imported_elsewhere_is_exported_the_same(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with open_configs_stage(tmp_path_factory.mktemp("here")) as stage:
        here = Server(stage)
        await publish(stage)
        await create(stage, "draft", labels=[{"name": "b", "value": "1"}, {"name": "a", "value": "2"}])
        exported = await here.exported()
        files = {slug: each.exported for slug, each in (await standing_configs(here.ask)).items()}
        assert await here.actions(files) == {"draft": Action.UPDATE, "greet": Action.UNCHANGED}
    async with open_configs_stage(tmp_path_factory.mktemp("elsewhere")) as stage:
        elsewhere = Server(stage)
        assert await elsewhere.imported(files) == 0
        assert await elsewhere.exported() == exported
        assert set((await elsewhere.actions(files)).values()) == {Action.UNCHANGED}


async def test_a_draft_that_says_the_same_is_only_published(server: Server) -> None:
    await create(server.stage)
    files = {"greet": (await standing_configs(server.ask))["greet"].draft}
    server.writes.clear()
    assert await server.imported(files) == 0
    assert server.writes == ["publishConfig"]


async def test_a_draft_beside_the_published_version_is_left_or_told_of(server: Server) -> None:
    await publish(server.stage)
    published = (await standing_configs(server.ask))["greet"].exported
    await write(server.stage, "updateConfig", by=GREET, draft={**DRAFT, "temperature": 1.0}, expectedRevision=2)
    (same,) = await server.planned({"greet": published})
    assert (same.action, same.undoes_a_draft) == (Action.UNCHANGED, False)
    (other,) = await server.planned({"greet": OTHER})
    assert (other.action, other.undoes_a_draft) == (Action.UPDATE, True)


async def test_an_archived_config_with_a_file_is_taken_back(server: Server) -> None:
    assert await server.imported({"same": PLAIN, "other": PLAIN}) == 0
    for slug in ("same", "other"):
        await write(server.stage, "archiveConfig", by={"slug": slug})
    server.writes.clear()
    files = {"other": OTHER, "same": PLAIN}
    assert set((await server.actions(files)).values()) == {Action.UNARCHIVE}
    assert await server.imported(files) == 0
    assert server.writes == ["updateConfig", "publishConfig", "unarchiveConfig", "unarchiveConfig"]
    assert set((await server.actions(files)).values()) == {Action.UNCHANGED}


async def test_an_archived_config_stays_so_until_it_is_what_its_file_says(server: Server) -> None:
    assert await server.imported({"greet": PLAIN}) == 0
    await write(server.stage, "archiveConfig", by=GREET)
    (step,) = await server.planned({"greet": OTHER})
    refused = replace(step, wanted=OTHER.model_copy(update={"model": "nobody/m"}))
    assert await carry_out(server.ask, [refused]) == 1
    (standing,) = (await standing_configs(server.ask)).values()
    assert (standing.archived, standing.version) == (True, 1)


async def test_what_the_server_would_refuse_is_told_before_anything_is_written(server: Server) -> None:
    assert await server.imported({"same": PLAIN}) == 0
    server.writes.clear()
    wrong = PLAIN.model_copy(update={"model": "nobody/m"})
    steps = await server.planned({"bad": wrong, "good": OTHER, "same": PLAIN})
    reasons = {step.slug: await refusal(server.ask, step) for step in steps}
    bad = "the provider 'nobody' is unknown or has no key here; ready: alpha, beta (model)"
    assert reasons == {"bad": bad, "good": None, "same": None}
    assert server.writes == []


async def test_without_a_file_left_alone_unless_pruned(server: Server) -> None:
    await publish(server.stage)
    standing = await standing_configs(server.ask)
    assert [each.slug for each in without_file({}, standing)] == ["greet"]
    assert plan({}, standing, prune=False) == []
    assert await server.imported({}, prune=True) == 0
    assert (await standing_configs(server.ask))["greet"].archived
    assert await server.actions({}, prune=True) == {}


@pytest.mark.parametrize(
    ("field", "more"), [("publishConfig", {}), ("archiveConfig", {}), ("updateConfig", {"draft": DRAFT})]
)
async def test_what_changed_since_the_plan_is_a_conflict_and_the_others_go_on(
    server: Server, capsys: pytest.CaptureFixture[str], field: str, more: dict[str, Any]
) -> None:
    for slug in ("greet", "left"):
        await publish(server.stage, slug)
    steps = await server.planned({"greet": PLAIN, "last": PLAIN, "new": PLAIN}, prune=True)
    expected = {"expectedRevision": 2} if more else {}
    for slug in ("greet", "left"):
        await write(server.stage, field, by={"slug": slug}, **expected, **more)
    await create(server.stage, "new")
    failed = ["greet", "new"] if field == "archiveConfig" else ["greet", "left", "new"]  # that is as it shall be
    assert await carry_out(server.ask, steps) == len(failed)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": CONFLICT: ")[0] for line in told] == [f"ai-middleware: {slug}" for slug in failed]
    standing = await standing_configs(server.ask)
    assert standing["last"].published is not None
    assert standing["greet"].draft.text() != PLAIN.text()


async def test_two_imports_of_the_same_files_both_succeed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert await server.imported({"greet": PLAIN}) == 0
    files = {"greet": OTHER, "new": PLAIN}
    plans = [await server.planned(files) for _ in range(2)]
    assert [await carry_out(server.ask, steps) for steps in plans] == [0, 0]
    assert capsys.readouterr().err == ""
    assert set((await server.actions(files)).values()) == {Action.UNCHANGED}


async def test_a_file_that_can_not_be_published_can_be_mended(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await server.imported({"greet": FileContent(model="nowhere/x"), "other": PLAIN}) == 1
    assert "greet: BAD_USER_INPUT: " in capsys.readouterr().err
    assert await server.actions({"greet": PLAIN, "other": PLAIN}) == {"greet": Action.UPDATE, "other": Action.UNCHANGED}
    assert await server.imported({"greet": PLAIN, "other": PLAIN}) == 0


async def test_every_page_is_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_plan, "PAGE", 2)
    slugs = [f"c{number}" for number in range(5)]
    assert await server.imported(dict.fromkeys(slugs, PLAIN)) == 0
    assert list(await standing_configs(server.ask)) == slugs
