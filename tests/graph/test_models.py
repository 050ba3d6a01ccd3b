"""Models, the viewer and nodes through the schema."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from providers.types import Credentials
from resolvers.key_pool import KeyPool
from resolvers.routing import Vendor
from tests.persistence.entries import entry
from tests.resolvers.scene import FakeProvider

from .stage import EVERY_SCOPE, Stage, refusals

MODELS = """
query ($first: Int! = 50, $after: String, $filter: ModelFilter) {
  models(first: $first, after: $after, filter: $filter) {
    edges { cursor node { id } }
    nodes {
      id model provider name contextWindow maxOutputTokens capabilities source
      prices { input cachedInput cacheWrite output reasoning tiered version }
    }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
NODE = """
query ($id: ID!) {
  node(id: $id) { __typename id ... on Model { model } ... on CompletionRecord { outcome } }
}
"""


@pytest.fixture
def stocked(stage: Stage) -> Stage:
    """With providers whose models the price table lists."""
    vendors = {name: Vendor(FakeProvider(name), KeyPool.of(Credentials("secret"))) for name in ("anthropic", "groq")}
    stage.scene.services = replace(stage.scene.services, vendors=vendors)
    return stage


async def models(stage: Stage, **variables: Any) -> dict[str, Any]:
    data, errors = await stage.ask(MODELS, variables)
    assert errors == []
    assert data is not None
    found: dict[str, Any] = data["models"]
    return found


async def test_a_model_whole(stocked: Stage) -> None:
    page = await models(stocked, filter={"search": "claude-haiku-4-5", "capability": "IMAGES"})
    (model,) = page["nodes"]
    prices = model.pop("prices")
    assert model == {
        "id": page["edges"][0]["node"]["id"],
        "model": "anthropic/claude-haiku-4-5",
        "provider": "anthropic",
        "name": "claude-haiku-4-5",
        "contextWindow": 200_000,
        "maxOutputTokens": 64_000,
        "capabilities": ["IMAGES", "REASONING", "STRUCTURED_OUTPUT", "TOOLS"],
        "source": "https://platform.claude.com/docs/models/overview",
    }
    assert (prices["input"], prices["cachedInput"], prices["output"], prices["tiered"]) == ("1", "0.1", "5", False)
    assert prices["version"].startswith("genai-prices/")


async def test_what_is_not_known_is_null(stocked: Stage) -> None:
    (model,) = (await models(stocked, filter={"provider": "anthropic", "search": "claude-v1"}))["nodes"]
    assert [model[name] for name in ("contextWindow", "maxOutputTokens", "capabilities", "source")] == [None] * 4


async def test_pages(stocked: Stage) -> None:
    one = await models(stocked, first=2)
    two = await models(stocked, first=2, after=one["pageInfo"]["endCursor"])
    whole = await models(stocked, first=4)
    assert one["nodes"] + two["nodes"] == whole["nodes"]
    assert (one["pageInfo"]["hasNextPage"], one["pageInfo"]["hasPreviousPage"]) == (True, False)
    assert two["pageInfo"]["hasPreviousPage"]
    assert two["pageInfo"]["startCursor"] == two["edges"][0]["cursor"]
    none = await models(stocked, filter={"provider": "openai"})
    assert none["pageInfo"] == {
        "hasNextPage": False,
        "hasPreviousPage": False,
        "startCursor": None,
        "endCursor": None,
    }


async def test_bad_pages(stage: Stage) -> None:
    for variables, path in [({"first": 101}, ["first"]), ({"after": "nonsense"}, ["after"])]:
        _, errors = await stage.ask(MODELS, variables)
        assert refusals(errors) == [("BAD_USER_INPUT", path)]


async def test_the_viewer_is_the_token(stage: Stage) -> None:
    data, errors = await stage.ask("{ viewer { subject organisation scopes tokenExpiresAt } }")
    assert errors == []
    assert data == {
        "viewer": {
            "subject": "key_1",
            "organisation": "acme",
            "scopes": sorted(EVERY_SCOPE),
            "tokenExpiresAt": "2096-10-02T07:06:40+00:00",
        }
    }


async def test_a_model_is_a_node(stocked: Stage) -> None:
    (listed, *_) = (await models(stocked))["nodes"]
    data, errors = await stocked.ask(NODE, {"id": listed["id"]})
    assert errors == []
    assert data == {"node": {"__typename": "Model", "id": listed["id"], "model": listed["model"]}}


async def test_a_completion_is_a_node_by_the_id_it_has_ever_had(stage: Stage) -> None:
    stage.scene.store.entries.append(entry(completion_id="cmp_1"))
    data, errors = await stage.ask(NODE, {"id": "cmp_1"})
    assert errors == []
    assert data == {"node": {"__typename": "CompletionRecord", "id": "cmp_1", "outcome": "SUCCEEDED"}}
    data, errors = await stage.ask('{ completion(by: { id: "cmp_1" }) { id } }')
    assert (data, errors) == ({"completion": {"id": "cmp_1"}}, [])


@pytest.mark.parametrize(
    "node", ["cmp_1", "cmp_", "mdl_", "mdl_Y21wXzE", "mdl_b3BlbmFpL2dwdC00bw", "usr_1", "", "\x00"]
)
async def test_what_is_not_the_organisation_s_is_not_found(stocked: Stage, node: str) -> None:
    stocked.scene.store.entries.append(entry(completion_id="cmp_1", organisation="globex"))
    data, errors = await stocked.ask(NODE, {"id": node})
    assert data == {"node": None}
    assert refusals(errors) == [("NOT_FOUND", None)]
