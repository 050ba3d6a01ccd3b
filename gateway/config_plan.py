"""What makes the server's configs the files': a plan first, then its steps one by one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .config_files import FileContent

PAGE = 20  # of configs of up to 256 KiB: below what one answer may have

_LIST = """
query Configs($first: Int!, $after: String) {
  configs(first: $first, after: $after, orderBy: SLUG) {
    nodes { slug revision archivedAt draft { ...Everything } published { number content { ...Everything } } }
    pageInfo { hasNextPage endCursor }
  }
}
fragment Everything on ConfigContent {
  model description prompt messages { role content } variables { name description default }
  temperature topP maxTokens stop seed tools { name description parameters } toolChoice { mode name }
  responseFormat reasoningEffort fallbacks timeoutMs cache labels { name value } providerOptions
}
"""

_CHECK = "query Check($draft: ConfigContentInput!) { configCheck(draft: $draft) { publishable message path } }"

Ask = Callable[[str, str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""The object at a root field of an answer: its name, the query and its variables. As `gateway.client.ask`."""


class Action(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    UNARCHIVE = "unarchive"
    ARCHIVE = "archive"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Standing:
    """A config as the server has it; `published` is what completions get, `version` its number."""

    slug: str
    revision: int
    archived: bool
    draft: FileContent
    published: FileContent | None
    version: int | None

    @property
    def exported(self) -> FileContent:
        """What its file has: the published version, or the draft of one that was never published."""
        return self.published or self.draft


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one config. `wanted` is its file's content; None where it has no file."""

    slug: str
    action: Action
    wanted: FileContent | None
    standing: Standing | None

    @property
    def publishes(self) -> bool:
        """Whether the file's content becomes a version."""
        if self.wanted is None:
            return False
        return self.standing is None or not is_published(self.wanted, self.standing)

    @property
    def undoes_a_draft(self) -> bool:
        """Whether somebody's unpublished draft is lost by it."""
        standing = self.standing
        if self.wanted is None or standing is None or standing.draft.text() == self.wanted.text():
            return False
        return self.publishes and standing.draft.text() != standing.exported.text()


def is_published(wanted: FileContent, standing: Standing) -> bool:
    return standing.published is not None and standing.published.text() == wanted.text()


def is_done(step: Step, standing: Mapping[str, Standing]) -> bool:
    """Whether the config stands as the step would leave it."""
    found = standing.get(step.slug)
    if found is None or found.archived is not (step.wanted is None):
        return False
    return step.wanted is None or is_published(step.wanted, found)


async def standing_configs(ask: Ask) -> dict[str, Standing]:
    """Every config of the organisation by slug, archived ones too."""
    found: dict[str, Standing] = {}
    after: str | None = None
    while True:
        page = await ask("configs", _LIST, {"first": PAGE, "after": after})
        found.update((node["slug"], _standing(node)) for node in page["nodes"])
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def plan(files: Mapping[str, FileContent], standing: Mapping[str, Standing], *, prune: bool) -> list[Step]:
    """By slug. Configs in use that have no file are archived with `prune`, and left out without it."""
    steps = [
        Step(slug, _action(wanted, standing.get(slug)), wanted, standing.get(slug)) for slug, wanted in files.items()
    ]
    if prune:
        steps += [Step(each.slug, Action.ARCHIVE, None, each) for each in without_file(files, standing)]
    return sorted(steps, key=lambda step: step.slug)


def without_file(files: Mapping[str, FileContent], standing: Mapping[str, Standing]) -> Sequence[Standing]:
    return [each for slug, each in standing.items() if slug not in files and not each.archived]


async def refusal(ask: Ask, step: Step) -> str | None:
    """Why the server would not publish the step's content; None where it would. Raises as `gateway.client.ask` does."""
    if step.wanted is None or not step.publishes:
        return None
    check = await ask("configCheck", _CHECK, {"draft": step.wanted.given()})
    if check["publishable"]:
        return None
    place = ".".join(map(str, check["path"]))
    return f"{check['message']} ({place})" if place else str(check["message"])


async def apply(ask: Ask, step: Step) -> None:
    """Carries out one step, each write based on the revision before it: a config that was changed since it was read
    is a CONFLICT. An archived config is taken back last, when it is what its file says. Raises as `gateway.client.ask`
    does."""
    standing, wanted = step.standing, step.wanted
    revision = 0 if standing is None else standing.revision
    if step.action is Action.ARCHIVE:
        await _write(ask, "archiveConfig", step.slug, revision)
    if wanted is None or step.action is Action.UNCHANGED:
        return
    if standing is None:
        revision = await _written(ask, "createConfig", {"slug": step.slug, "draft": wanted.given()})
    elif step.publishes and standing.draft.text() != wanted.text():
        revision = await _write(ask, "updateConfig", step.slug, revision, draft=wanted.given())
    if step.publishes:
        revision = await _write(ask, "publishConfig", step.slug, revision)
    if step.action is Action.UNARCHIVE:
        await _write(ask, "unarchiveConfig", step.slug, revision)


def _action(wanted: FileContent, standing: Standing | None) -> Action:
    if standing is None:
        return Action.CREATE
    if standing.archived:
        return Action.UNARCHIVE
    return Action.UNCHANGED if is_published(wanted, standing) else Action.UPDATE


async def _write(ask: Ask, field: str, slug: str, revision: int, **more: Any) -> int:
    return await _written(ask, field, {"by": {"slug": slug}, "expectedRevision": revision, **more})


async def _written(ask: Ask, field: str, given: Mapping[str, Any]) -> int:
    """The revision after it."""
    kind = "ArchiveConfigInput" if field == "unarchiveConfig" else f"{field[0].upper()}{field[1:]}Input"
    answer = await ask(
        field, f"mutation Write($input: {kind}!) {{ {field}(input: $input) {{ revision }} }}", {"input": given}
    )
    revision: int = answer["revision"]
    return revision


def _standing(node: Mapping[str, Any]) -> Standing:
    published = node["published"]
    return Standing(
        slug=node["slug"],
        revision=node["revision"],
        archived=node["archivedAt"] is not None,
        draft=FileContent.of(node["draft"]),
        published=None if published is None else FileContent.of(published["content"]),
        version=None if published is None else published["number"],
    )
