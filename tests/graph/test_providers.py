"""Providers and their health through the schema."""

from __future__ import annotations

from tests.resolvers.scene import texts

from .stage import Stage

FIELDS = "name configured circuit attempts errorRate latencyMs"


async def test_providers(stage: Stage) -> None:
    stage.scene.alpha.will(texts("hi"))
    await stage.scene.complete()
    data, errors = await stage.ask(f"{{ providers {{ {FIELDS} }} }}")
    assert errors == []
    assert data is not None
    alpha, beta, gamma = data["providers"]
    assert alpha.pop("latencyMs") >= 0
    assert alpha == {"name": "alpha", "configured": True, "circuit": "CLOSED", "attempts": 1, "errorRate": 0.0}
    assert beta == {
        "name": "beta",
        "configured": True,
        "circuit": "CLOSED",
        "attempts": 0,
        "errorRate": None,
        "latencyMs": None,
    }
    assert (gamma["name"], gamma["configured"]) == ("gamma", False)


async def test_health_begins_with_the_present(stage: Stage) -> None:
    data, errors = await stage.ask(f"subscription {{ providerHealth {{ {FIELDS} }} }}")
    assert errors == []
    assert data is not None
    assert data["providerHealth"]["name"] == "alpha"
