"""Configs in use: draft, versions, publishing, and what a completion gets; on the embedded store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from persistence.config_records import ConfigFilter, ConfigOrder, TemplateMessage, Variable
from providers.types import Message, Role
from resolvers.config_cache import FRESH_S
from resolvers.errors import BadUserInputError, ConflictError, NotFoundError
from resolvers.types import ConfigBy, ConfigCall, ConfigRef

from .config_stage import CALL, CONTENT, GREET, Stage
from .scene import ACME, BETA, GLOBEX

USER = Message(Role.USER, "and more")


async def test_from_a_draft_to_a_completion(stage: Stage) -> None:
    made = await stage.configs.create(ACME, "greet", CONTENT)
    assert made.id.startswith("cfg_")
    assert (made.revision, made.published, made.draft) == (1, None, CONTENT)
    assert await stage.configs.get(ACME, ConfigBy(id=made.id)) == await stage.configs.get(ACME, GREET) == made
    published = await stage.configs.publish(ACME, GREET, expected_revision=1)
    assert (published.revision, published.published) == (2, 1)
    version = await stage.configs.version(ACME, GREET, 1)
    assert (version.content, version.created_by) == (CONTENT, ACME.subject)
    command = await stage.configs.resolve(ACME, CALL)
    assert command.messages == (Message(Role.SYSTEM, "You speak English."), Message(Role.USER, "Hello Ada"))
    assert (str(command.target), command.temperature, command.stop) == ("alpha/a-1", 0.5, ("\n",))
    assert (command.config, command.config_version, command.labels) == ("greet", 1, CONTENT.labels)


async def test_the_call_overrides_field_by_field(stage: Stage) -> None:
    await stage.published()
    call = replace(CALL, target=BETA, temperature=0.0, stop=(), labels={"team": "c"}, messages=(USER,), seed=0)
    command = await stage.configs.resolve(ACME, replace(call, end_user="u", idempotency_key="k"))
    assert (command.target, command.temperature, command.stop, command.seed) == (BETA, 0.0, (), 0)
    assert command.labels == {"team": "c", "tier": "b"}
    assert [message.content for message in command.messages] == ["You speak English.", "Hello Ada", "and more"]
    assert (command.end_user, command.idempotency_key, command.max_tokens) == ("u", "k", None)


@pytest.mark.parametrize(("variables", "name"), [({}, "name"), ({"name": "Ada", "nome": "x"}, "nome")])
async def test_a_wrong_variable_is_named(stage: Stage, variables: dict[str, Any], name: str) -> None:
    await stage.published()
    with pytest.raises(BadUserInputError, match=f"'{name}'") as caught:
        await stage.configs.resolve(ACME, ConfigCall(ConfigRef("greet", variables=variables)))
    assert caught.value.path == ("input", "config", "variables", name)


async def test_all_templates_together_are_bounded(stage: Stage) -> None:
    messages = (TemplateMessage("user", "{{name}}"),) * 3
    await stage.published(content=replace(CONTENT, messages=messages))
    with pytest.raises(BadUserInputError, match="more than 1000000"):
        await stage.configs.resolve(ACME, ConfigCall(ConfigRef("greet", variables={"name": "x" * 400_000})))


async def test_versions_rollback_and_what_completions_get(stage: Stage) -> None:
    await stage.published()
    assert await stage.prompt() == "You speak English."
    assert (await stage.publish(prompt="Be brief.")).published == 2
    assert await stage.prompt() == "Be brief."
    pinned = await stage.configs.resolve(ACME, replace(CALL, config=replace(CALL.config, version=1)))
    assert (pinned.messages[0].content, pinned.config_version) == ("You speak English.", 1)
    back = await stage.configs.rollback(ACME, GREET, 1)
    assert (back.published, back.draft.prompt) == (1, "Be brief.")
    assert await stage.prompt() == "You speak English."
    with pytest.raises(NotFoundError, match="no version 3"):
        await stage.configs.rollback(ACME, GREET, 3)
    with pytest.raises(NotFoundError, match="no version 3"):
        await stage.configs.resolve(ACME, replace(CALL, config=replace(CALL.config, version=3)))


async def test_what_no_completion_can_be_made_of(stage: Stage) -> None:
    with pytest.raises(NotFoundError, match="greet"):
        await stage.configs.resolve(ACME, CALL)
    await stage.configs.create(ACME, "greet", CONTENT)
    with pytest.raises(BadUserInputError, match="never published") as caught:
        await stage.configs.resolve(ACME, CALL)
    assert caught.value.path == ("input", "config", "slug")
    stage.seconds += FRESH_S
    await stage.configs.publish(ACME, GREET)
    await stage.prompt()
    archived = await stage.configs.archive(ACME, GREET)
    assert archived.archived_at == archived.updated_at == stage.now() - timedelta(microseconds=1)
    with pytest.raises(BadUserInputError, match="archived"):
        await stage.configs.resolve(ACME, CALL)
    assert await stage.configs.archive(ACME, GREET) == archived
    assert (await stage.configs.unarchive(ACME, GREET)).archived_at is None
    assert await stage.prompt() == "You speak English."


async def test_an_archived_config_is_made_ready_before_it_is_taken_back(stage: Stage) -> None:
    await stage.published()
    await stage.configs.archive(ACME, GREET)
    assert (await stage.publish(prompt="Bonjour")).published == 2
    with pytest.raises(BadUserInputError, match="archived"):
        await stage.prompt()
    await stage.configs.unarchive(ACME, GREET)
    assert await stage.prompt() == "Bonjour"


async def test_writes_without_a_revision_do_not_get_into_each_other_s_way(stage: Stage) -> None:
    await stage.published()
    await asyncio.gather(*(stage.configs.publish(ACME, GREET) for _ in range(50)))
    config = await stage.configs.get(ACME, GREET)
    assert (config.published, config.revision) == (51, 52)


async def test_a_stale_edit_is_a_conflict(stage: Stage) -> None:
    await stage.published()
    with pytest.raises(ConflictError, match="revision 2, not 1"):
        await stage.configs.update_draft(ACME, GREET, CONTENT, expected_revision=1)
    for stale in (stage.configs.publish, stage.configs.archive, stage.configs.unarchive):
        with pytest.raises(ConflictError, match="revision 2, not 1"):
            await stale(ACME, GREET, expected_revision=1)
    edits = [
        stage.configs.update_draft(ACME, GREET, replace(CONTENT, description=f"{n}"), expected_revision=2)
        for n in range(4)
    ]
    results = await asyncio.gather(*edits, return_exceptions=True)
    assert sum(isinstance(each, ConflictError) for each in results) == 3
    with pytest.raises(ConflictError, match="taken"):
        await stage.configs.create(ACME, "greet", CONTENT)


async def test_another_organisation_has_its_own(stage: Stage) -> None:
    made = await stage.published()
    for by in (GREET, ConfigBy(id=made.id)):
        for use in (stage.configs.get, stage.configs.publish, stage.configs.archive):
            with pytest.raises(NotFoundError):
                await use(GLOBEX, by)
        with pytest.raises(NotFoundError):
            await stage.configs.update_draft(GLOBEX, by, CONTENT, expected_revision=2)
    await stage.prompt()
    with pytest.raises(NotFoundError):
        await stage.configs.resolve(GLOBEX, CALL)
    await stage.configs.create(GLOBEX, "greet", CONTENT)
    assert await stage.configs.get(ACME, GREET) == made


@pytest.mark.parametrize("slug", ["", "Greet", "a b", "-a", ".a", "a" * 65, "ä", "a\n", "a/b", "a:b"])
async def test_a_slug_has_its_form(stage: Stage, slug: str) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await stage.configs.create(ACME, slug, CONTENT)
    assert caught.value.path == ("input", "slug")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"description": "x" * 2001}, ("description",)),
        ({"seed": 2**70}, ()),
        ({"temperature": float("nan")}, ()),
        ({"cache": {"ttl": [float("inf")]}}, ()),
        ({"prompt": "x" * 140_000}, ()),
    ],
)
async def test_a_draft_s_size(stage: Stage, changes: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await stage.configs.create(ACME, "greet", replace(CONTENT, **changes))
    assert caught.value.path == ("input", "draft", *path)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model": "a-1"}, ("model",)),
        ({"model": "nowhere/m"}, ("model",)),
        ({"fallbacks": ("beta/b", "nowhere/m")}, ("fallbacks", 1)),
        ({"temperature": 3}, ("temperature",)),
        ({"max_tokens": 0}, ("maxTokens",)),
        ({"prompt": "{{nobody}}"}, ("prompt",)),
        ({"messages": (TemplateMessage("user", "{{ name }}"),)}, ("messages", 0, "content")),
        ({"messages": (TemplateMessage("tool", "x"),)}, ("messages", 0, "role")),
        ({"variables": (Variable("name"), Variable("name"))}, ("variables", 1, "name")),
        ({"labels": {"": "x"}}, ("labels",)),
    ],
)
async def test_a_draft_may_be_unfinished_a_version_not(
    stage: Stage, changes: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    await stage.configs.create(ACME, "greet", replace(CONTENT, **changes))
    with pytest.raises(BadUserInputError) as caught:
        await stage.configs.publish(ACME, GREET)
    assert caught.value.path == ("input", "draft", *path)
    assert (await stage.configs.versions(ACME, GREET, first=5, after=None)).versions == ()


async def test_pages(stage: Stage) -> None:
    for slug in ("b", "a", "c"):
        stage.seconds += 1
        await stage.configs.create(ACME, slug, CONTENT)
    for order, expected in ((ConfigOrder.UPDATED, ["c", "a", "b"]), (ConfigOrder.SLUG, ["a", "b", "c"])):
        found, after, more = [], None, True
        while more:
            page = await stage.configs.page(ACME, first=2, after=after, where=ConfigFilter(), order=order)
            found += [config.slug for _, config in page.configs]
            after, more = page.configs[-1][0], page.more
        assert found == expected
        other = ConfigOrder.SLUG if order is ConfigOrder.UPDATED else ConfigOrder.UPDATED
        for cursor in (after, "?", "", "dTo5OTk6YQ", "é"):
            with pytest.raises(BadUserInputError) as caught:
                await stage.configs.page(ACME, first=2, after=cursor, where=ConfigFilter(), order=other)
            assert caught.value.path == ("after",)
    with pytest.raises(BadUserInputError):
        await stage.configs.page(ACME, first=101, after=None, where=ConfigFilter())


async def test_pages_of_versions(stage: Stage) -> None:
    await stage.published()
    for n in range(2):
        await stage.publish(description=f"{n}")
    page = await stage.configs.versions(ACME, GREET, first=2, after=None)
    assert ([version.number for _, version in page.versions], page.more) == ([3, 2], True)
    rest = await stage.configs.versions(ACME, GREET, first=2, after=page.versions[-1][0])
    assert ([version.number for _, version in rest.versions], rest.more) == ([1], False)


async def test_the_difference_of_versions(stage: Stage) -> None:
    await stage.published()
    await stage.publish(prompt="Be brief.", labels={"team": "z"}, top_p=1)
    for found in (await stage.configs.diff(ACME, GREET, 1, 2), await stage.configs.diff(ACME, GREET, 1)):
        assert {change.path: (change.before, change.after) for change in found.changes} == {
            ("prompt",): ("You speak {{language}}.", "Be brief."),
            ("topP",): (None, 1),
            ("labels", "team"): ("a", "z"),
            ("labels", "tier"): ("b", None),
        }
        assert "-You speak {{language}}.\n+Be brief.\n" in found.text
    assert (await stage.configs.diff(ACME, GREET, 2)).changes == ()
    with pytest.raises(NotFoundError):
        await stage.configs.diff(ACME, GREET, 1, 9)
