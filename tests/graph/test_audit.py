"""`auditLog`, and that every mutation that writes is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from graphql import build_schema

from graph import schema as product
from resolvers.principal import SCOPES_OF, Role, Scope

from .audit_stage import LOG, SECRET, WRITES, Write, document, filled, made_by, open_audit_stage
from .stage import EVERY_SCOPE, Stage, refusals

EXEMPT = {"complete", "completeMany", "cancelCompletion", "embed"}
"""They call vendors: the ledger has them."""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_audit_stage(tmp_path) as stage:
        yield stage


async def page(stage: Stage, **asked: Any) -> dict[str, Any]:
    data, errors = await stage.ask(LOG, asked)
    assert errors == []
    assert data is not None
    log: dict[str, Any] = data["auditLog"]
    return log


async def events(stage: Stage, **where: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await page(stage, filter=where))["nodes"]
    return found


async def written(stage: Stage, write: Write, made: dict[str, str]) -> dict[str, Any]:
    """What the mutation answers."""
    data, errors = await stage.ask(document(write), {"input": filled(write.given, made)})
    assert errors == [], write.field
    assert data is not None
    answer: dict[str, Any] = data[write.field]
    made_by(write, answer, made)
    return answer


async def all_written(stage: Stage) -> dict[str, str]:
    made: dict[str, str] = {}
    for write in WRITES:
        await written(stage, write, made)
    return made


def test_no_mutation_is_forgotten() -> None:
    """A new one is a write in `audit_stage.WRITES`, which the next test sees noted, or exempt by name."""
    mutations = build_schema(product.build_schema().as_str()).mutation_type
    assert mutations is not None
    assert set(mutations.fields) - EXEMPT == {write.field for write in WRITES}


async def test_every_write_is_noted_with_what_changed(stage: Stage) -> None:
    made: dict[str, str] = {}
    secrets = [SECRET]
    for number, write in enumerate(WRITES, start=1):
        began = datetime.now(UTC) - timedelta(milliseconds=1)
        answer = await written(stage, write, made)
        secrets += [answer[name] for name in ("key", "token", "url", "secret") if name in answer]
        found = await events(stage)
        assert len(found) == number, write.field
        told = found[0]
        assert (told["action"], told["subjectId"]) == (write.action, filled(write.subject, made))
        assert (told["actor"], told["address"], told["requestId"]) == ("key_1", "203.0.113.7", "request-1")
        assert began <= datetime.fromisoformat(told["at"]) <= datetime.now(UTC)
        for side, expected in (("before", write.before), ("after", write.after)):
            assert (told[side] is None) is (expected is None), write.field
            assert {name: told[side][name] for name in expected or {}} == (expected or {}), write.field
        if write.before is not None and write.after is not None:
            assert all(told["before"].get(name) != value for name, value in told["after"].items()), write.field
    text = str(await events(stage))
    assert len(secrets) == 7
    assert [secret for secret in secrets if secret in text] == []


async def test_a_key_s_events_have_listed_fields_alone(stage: Stage) -> None:
    """No digest, nothing sealed: what a record gets later is not there by itself."""
    await all_written(stage)
    names: dict[str, set[str]] = {}
    for event in await events(stage):
        names.setdefault(event["subjectKind"], set()).update(event["before"] or {}, event["after"] or {})
    grant = {"scopes", "roles", "models", "configs", "networks"}
    assert names["api_key"] == {"name", "hint", "revision", "expiresAt", "revokedAt", *grant}
    assert names["provider_key"] == {"hint", "createdAt", "createdBy"}
    assert names["token"] == {"expiresAt", *grant}


async def test_page_by_page_newest_first(stage: Stage) -> None:
    await all_written(stage)
    every = await events(stage)
    assert [event["action"] for event in reversed(every)] == [write.action for write in WRITES]
    assert sorted(every, key=lambda event: event["id"], reverse=True) == every
    seen: list[dict[str, Any]] = []
    more, after = True, None
    while more:
        found = await page(stage, first=7, after=after)
        assert len(found["nodes"]) <= 7
        assert [edge["cursor"] for edge in found["edges"]] == [event["id"] for event in found["nodes"]]
        seen += found["nodes"]
        more, after = found["pageInfo"]["hasNextPage"], found["pageInfo"]["endCursor"]
    assert seen == every


async def test_filters(stage: Stage) -> None:
    made = await all_written(stage)
    every = await events(stage)
    prices = [event for event in every if event["action"] == "price.set"]
    assert await events(stage, action="price.set") == prices
    assert len(prices) == 2
    of_key = [event["action"] for event in await events(stage, subjectId=made["key"])]
    assert of_key == ["api_key.revoke", "api_key.rotate", "api_key.update", "api_key.create"]
    assert await events(stage, actor="key_1") == every
    assert await events(stage, actor="key_2") == []
    at = every[3]["at"]
    since, until = await events(stage, since=at), await events(stage, until=at)
    assert since + until == every
    assert {event["at"] for event in since} >= {at}
    assert at not in {event["at"] for event in until}


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"first": 0}, ["first"]),
        ({"first": 101}, ["first"]),
        ({"after": "key_0"}, ["after"]),
        ({"filter": {"action": "config.eat"}}, ["filter", "action"]),
        ({"filter": {"since": "2026-03-01T00:00:00"}}, ["filter", "since"]),
        ({"filter": {"until": "2026-03-01T00:00:00"}}, ["filter", "until"]),
    ],
)
async def test_what_can_not_be_asked(stage: Stage, asked: dict[str, Any], path: list[str]) -> None:
    data, errors = await stage.ask(LOG, asked)
    assert data == {"auditLog": None}
    assert refusals(errors) == [("BAD_USER_INPUT", path)]


async def test_it_is_for_admins(stage: Stage) -> None:
    _, errors = await stage.ask(LOG, scopes=EVERY_SCOPE - {"audit:read"})
    assert refusals(errors) == [("FORBIDDEN", None)]
    assert [role for role in Role if Scope.AUDIT_READ in SCOPES_OF[role]] == [Role.ADMIN]


async def test_what_is_refused_is_not_noted(stage: Stage) -> None:
    for write in WRITES:
        _, errors = await stage.ask(document(write), {"input": filled(write.given, {})}, scopes=())
        assert refusals(errors) == [("FORBIDDEN", None)]
    assert await events(stage) == []
    made: dict[str, str] = {}
    await written(stage, WRITES[0], made)
    _, errors = await stage.ask(document(WRITES[0]), {"input": WRITES[0].given})
    assert refusals(errors) == [("CONFLICT", None)]
    assert len(await events(stage)) == 1
