"""Configs through the schema: written, published, listed, compared; on the embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from resolvers.principal import Scope

from .configs_stage import CONTENT, DRAFT, GREET, create, mutation, open_configs_stage, publish, told, write
from .stage import Stage, refusals

LIST = """
query ($first: Int! = 50, $after: String, $filter: ConfigFilter, $orderBy: ConfigOrder! = UPDATED) {
  configs(first: $first, after: $after, filter: $filter, orderBy: $orderBy) {
    edges { cursor node { slug } } nodes { slug }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
DIFF = """
query ($from: Int!, $to: Int) {
  configDiff(by: {slug: "greet"}, from: $from, to: $to) { changes { path before after } text }
}
"""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_configs_stage(tmp_path) as stage:
        yield stage


async def one(stage: Stage, selection: str) -> Any:
    return await told(stage, f'{{ config(by: {{slug: "greet"}}) {{ {selection} }} }}')


async def slugs(stage: Stage, **variables: Any) -> list[str]:
    return [each["slug"] for each in (await told(stage, LIST, **variables))["nodes"]]


async def test_a_draft_is_read_back_as_it_was_written(stage: Stage) -> None:
    await create(stage)
    query = f'{{ config(by: {{slug: "greet"}}) {{ draft {{ ...Everything }} }} }} {CONTENT}'
    draft = (await told(stage, query))["draft"]
    assert draft == {
        **DRAFT,
        "toolChoice": {"mode": "REQUIRED", "name": "look_up"},
        "variables": [
            {"name": "language", "description": None, "default": "English"},
            {"name": "name", "description": "Whom to greet", "default": None},
        ],
    }


async def test_what_is_not_given_is_not_preset(stage: Stage) -> None:
    await write(stage, "createConfig", slug="greet", draft={"model": "alpha/a-1", "tools": [{"name": "now"}]})
    draft = (await told(stage, f'{{ config(by: {{slug: "greet"}}) {{ draft {{ ...Everything }} }} }} {CONTENT}'))[
        "draft"
    ]
    assert {name: value for name, value in draft.items() if value not in (None, [])} == {
        "model": "alpha/a-1",
        "description": "",
        "tools": [{"name": "now", "description": None, "parameters": {"type": "object", "properties": {}}}],
        "providerOptions": {},
    }


async def test_from_a_draft_over_versions_to_a_rollback(stage: Stage) -> None:
    await create(stage)
    assert await one(stage, "revision publishedVersion published { number } versions { nodes { number } }") == {
        "revision": 1,
        "publishedVersion": None,
        "published": None,
        "versions": {"nodes": []},
    }
    first = await write(stage, "publishConfig", by=GREET, expectedRevision=1)
    assert first == {"slug": "greet", "revision": 2, "publishedVersion": 1, "archivedAt": None}
    await write(stage, "updateConfig", by=GREET, draft={**DRAFT, "temperature": 1.5}, expectedRevision=2)
    assert (await one(stage, "published { content { temperature } }"))["published"]["content"]["temperature"] == 0.5
    await write(stage, "publishConfig", by=GREET)
    found = await one(
        stage,
        "draft { temperature } published { number createdBy createdAt } version(number: 1) { content { temperature } }",
    )
    assert found["published"] == {"number": 2, "createdBy": "key_1", "createdAt": found["published"]["createdAt"]}
    assert (found["draft"], found["version"]) == ({"temperature": 1.5}, {"content": {"temperature": 0.5}})
    back = await write(stage, "rollbackConfig", by=GREET, version=1, expectedRevision=4)
    assert (back["revision"], back["publishedVersion"]) == (5, 1)
    assert (await one(stage, "draft { temperature }"))["draft"]["temperature"] == 1.5


async def test_versions_by_pages(stage: Stage) -> None:
    await publish(stage)
    for _ in range(2):
        await write(stage, "publishConfig", by=GREET)
    pages = "nodes { number } edges { cursor node { number } } pageInfo { hasNextPage hasPreviousPage endCursor }"
    first = (await one(stage, f"versions(first: 2) {{ {pages} }}"))["versions"]
    assert [each["number"] for each in first["nodes"]] == [each["node"]["number"] for each in first["edges"]] == [3, 2]
    assert first["pageInfo"] == {
        "hasNextPage": True,
        "hasPreviousPage": False,
        "endCursor": first["edges"][-1]["cursor"],
    }
    rest = await one(stage, f'versions(first: 2, after: "{first["pageInfo"]["endCursor"]}") {{ {pages} }}')
    assert [each["number"] for each in rest["versions"]["nodes"]] == [1]
    assert (rest["versions"]["pageInfo"]["hasNextPage"], rest["versions"]["pageInfo"]["hasPreviousPage"]) == (
        False,
        True,
    )


async def test_what_changed_from_one_version_to_another_and_to_the_draft(stage: Stage) -> None:
    await publish(stage)
    draft = {**DRAFT, "prompt": "You speak {{language}} well.", "labels": [{"name": "team", "value": "b"}]}
    await write(stage, "updateConfig", by=GREET, draft=draft, expectedRevision=2)
    to_draft = await told(stage, DIFF, **{"from": 1})
    assert to_draft["changes"] == [
        {"path": ["prompt"], "before": DRAFT["prompt"], "after": draft["prompt"]},
        {"path": ["labels", "team"], "before": "a", "after": "b"},
    ]
    assert to_draft["text"].startswith("--- version 1\n+++ draft\n")
    await write(stage, "publishConfig", by=GREET)
    between = await told(stage, DIFF, **{"from": 1, "to": 2})
    assert between["changes"] == to_draft["changes"]
    assert await told(stage, DIFF, **{"from": 2}) == {"changes": [], "text": ""}


async def test_lists_by_order_filter_and_page(stage: Stage) -> None:
    for slug, label in (("b", "x"), ("a", "x"), ("c", "y")):
        await create(stage, slug, labels=[{"name": "team", "value": label}], description=f"Of {slug.upper()}!")
    await write(stage, "archiveConfig", by={"slug": "b"})
    assert await slugs(stage, orderBy="SLUG") == ["a", "b", "c"]
    assert (await slugs(stage))[0] == "b", "what was written last comes first"
    assert await slugs(stage, orderBy="SLUG", filter={"archived": False}) == ["a", "c"]
    assert await slugs(stage, filter={"archived": True}) == ["b"]
    assert await slugs(stage, orderBy="SLUG", filter={"label": {"name": "team", "value": "x"}}) == ["a", "b"]
    assert await slugs(stage, filter={"search": "OF C"}) == ["c"]
    assert await slugs(stage, filter={"model": "beta/b-1"}) == []
    page = await told(stage, LIST, first=2, orderBy="SLUG")
    assert page["pageInfo"] == {
        "hasNextPage": True,
        "hasPreviousPage": False,
        "startCursor": page["edges"][0]["cursor"],
        "endCursor": page["edges"][1]["cursor"],
    }
    assert [each["node"] for each in page["edges"]] == page["nodes"]
    assert await slugs(stage, orderBy="SLUG", after=page["pageInfo"]["endCursor"]) == ["c"]


async def test_a_config_has_an_id_of_its_own(stage: Stage) -> None:
    await create(stage)
    config_id = (await one(stage, "id"))["id"]
    node = "query ($id: ID!) { node(id: $id) { __typename id ... on Config { slug } } }"
    assert await told(stage, node, id=config_id) == {"__typename": "Config", "id": config_id, "slug": "greet"}
    assert (await told(stage, "query ($id: ID!) { config(by: {id: $id}) { slug } }", id=config_id))["slug"] == "greet"
    _, errors = await stage.ask(node, {"id": config_id}, scopes={Scope.COMPLETIONS_READ.value})
    assert refusals(errors) == [("FORBIDDEN", None)]
    _, errors = await stage.ask(node, {"id": "cfg_0"})
    assert refusals(errors) == [("NOT_FOUND", None)]


async def test_archived_and_taken_back(stage: Stage) -> None:
    await publish(stage)
    archived = await write(stage, "archiveConfig", by=GREET, expectedRevision=2)
    assert archived["archivedAt"] is not None
    assert await write(stage, "archiveConfig", by=GREET) == archived
    assert (await write(stage, "publishConfig", by=GREET))["archivedAt"] == archived["archivedAt"]
    assert (await write(stage, "unarchiveConfig", by=GREET, expectedRevision=4))["archivedAt"] is None


CHECK = "query ($draft: ConfigContentInput!) { configCheck(draft: $draft) { publishable message path } }"


async def test_a_draft_is_checked_without_being_kept(stage: Stage) -> None:
    assert await told(stage, CHECK, draft=DRAFT) == {"publishable": True, "message": None, "path": None}
    for wrong, path in (
        ({"prompt": "{{nothing}}"}, ["prompt"]),
        ({"tools": [{"name": "f"}, {"name": "f"}]}, ["tools", 1, "name"]),
        ({"toolChoice": {"name": "f"}, "tools": []}, ["toolChoice", "name"]),
        ({"labels": [{"name": "", "value": ""}]}, ["labels"]),
    ):
        check = await told(stage, CHECK, draft=DRAFT | wrong)
        assert (check["publishable"], check["path"]) == (False, path)
        assert check["message"]
    assert await slugs(stage) == []


async def test_what_is_nested_too_deep_is_refused_and_what_is_not_comes_back(stage: Stage) -> None:
    deep: Any = 1
    for _ in range(61):
        deep = {"a": deep}
    await create(stage, cache=deep)
    _, errors = await stage.ask(
        mutation("createConfig"),
        {"input": {"slug": "deeper", "draft": DRAFT | {"cache": {"a": {"a": {"a": {"a": deep}}}}}}},
    )
    assert refusals(errors) == [("BAD_USER_INPUT", ["input", "draft", "cache"])]
    query = "{ configs { edges { node { draft { cache } } } } }"
    assert (await told(stage, query))["edges"] == [{"node": {"draft": {"cache": deep}}}]


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("updateConfig", {"draft": DRAFT}),
        ("publishConfig", {}),
        ("rollbackConfig", {"version": 1}),
        ("archiveConfig", {}),
        ("unarchiveConfig", {}),
    ],
)
async def test_a_stale_write_is_a_conflict(stage: Stage, field: str, more: dict[str, Any]) -> None:
    await publish(stage)
    _, errors = await stage.ask(mutation(field), {"input": {"by": GREET, "expectedRevision": 1, **more}})
    assert refusals(errors) == [("CONFLICT", None)]
    assert "revision 2, not 1" in errors[0]["message"]


async def test_a_slug_is_taken_once(stage: Stage) -> None:
    await create(stage)
    _, errors = await stage.ask(mutation("createConfig"), {"input": {"slug": "greet", "draft": DRAFT}})
    assert refusals(errors) == [("CONFLICT", None)]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"labels": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}, ["labels", 1, "name"]),
        ({"tools": [{"name": "x", "parameters": []}]}, ["tools", 0, "parameters"]),
        ({"toolChoice": {"name": ""}}, ["toolChoice", "name"]),
        ({"providerOptions": {"alpha": 1}}, ["providerOptions"]),
        ({"responseFormat": "json"}, ["responseFormat"]),
        ({"cache": []}, ["cache"]),
        ({"description": "x" * 2001}, ["description"]),
    ],
)
async def test_what_no_draft_may_have_is_named_where_it_stands(
    stage: Stage, changes: dict[str, Any], path: list[Any]
) -> None:
    data, errors = await stage.ask(mutation("createConfig"), {"input": {"slug": "x", "draft": {**DRAFT, **changes}}})
    assert data == {"createConfig": None}
    assert refusals(errors) == [("BAD_USER_INPUT", ["input", "draft", *path])]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model": "nowhere"}, ["model"]),
        ({"fallbacks": ["beta/b-1", "nowhere/x"]}, ["fallbacks", 1]),
        ({"prompt": "{{unknown}}"}, ["prompt"]),
        ({"messages": [{"role": "TOOL", "content": "x"}]}, ["messages", 0, "role"]),
        ({"variables": [{"name": "1"}]}, ["variables", 0, "name"]),
        ({"temperature": 3.0}, ["temperature"]),
        ({"responseFormat": {"type": "json_object"}}, ["responseFormat"]),
        ({"responseFormat": {"jsonSchema": {"schema": {"type": 1}}}}, ["responseFormat", "jsonSchema", "schema"]),
    ],
)
async def test_what_no_version_may_have_is_told_at_publishing(
    stage: Stage, changes: dict[str, Any], path: list[Any]
) -> None:
    await create(stage, **changes)
    _, errors = await stage.ask(mutation("publishConfig"), {"input": {"by": GREET}})
    assert refusals(errors) == [("BAD_USER_INPUT", ["input", "draft", *path])]


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ('{ config(by: {slug: "other"}) { slug } }', ("NOT_FOUND", None)),
        ('{ config(by: {slug: ""}) { slug } }', ("NOT_FOUND", None)),
        ('{ config(by: {slug: "greet"}) { version(number: 2) { number } } }', ("NOT_FOUND", None)),
        ('{ config(by: {slug: "greet"}) { versions(first: 0) { nodes { number } } } }', ("BAD_USER_INPUT", ["first"])),
        ('{ configs(after: "x") { nodes { slug } } }', ("BAD_USER_INPUT", ["after"])),
        ("{ configs(first: 101) { nodes { slug } } }", ("BAD_USER_INPUT", ["first"])),
        ('{ configDiff(by: {slug: "greet"}, from: 9) { text } }', ("NOT_FOUND", None)),
        (
            'mutation { createConfig(input: {slug: "No", draft: {model: "a/b"}}) { id } }',
            ("BAD_USER_INPUT", ["input", "slug"]),
        ),
    ],
)
async def test_what_is_not_there(stage: Stage, query: str, refused: tuple[str, Any]) -> None:
    await publish(stage)
    _, errors = await stage.ask(query)
    assert refusals(errors) == [refused]
