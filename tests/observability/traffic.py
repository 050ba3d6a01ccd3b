"""Calls of every kind, so that every metric has something to tell."""

from __future__ import annotations

import asyncio

from tests.e2e.documents import COMPLETE
from tests.e2e.processes import Server, post
from tests.e2e.test_providers import asked, stream

LIMIT = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { requestsPerMinute } }"
SUBMIT = "mutation Submit($input: SubmitBatchInput!) { submitBatch(input: $input) { batch { id } } }"
BUDGET = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { usdPerDay } }"


def limit(server: Server) -> None:
    """One organisation has a limit, and another a budget of nothing."""
    for organisation, document, limits in (
        ("limited", LIMIT, {"requestsPerMinute": 1}),
        ("poor", BUDGET, {"usdPerDay": "0.000001"}),
    ):
        assert "errors" not in post(server, server.token(organisation), document, {"input": limits})


def calls(server: Server) -> None:
    token = server.token("acme")
    fine = [
        asked("openai", "[[tokens=20]]"),
        asked("anthropic", "[[tokens=20]]"),
        asked("openai", "[[503@openai]]", fallbacks=[{"model": "groq/llama-3.3-70b-versatile"}]),
        {**asked("openai", ""), "model": "openai/of-my-own"},
    ]
    for each in fine:
        assert "errors" not in post(server, token, COMPLETE, {"input": each})
    assert "errors" not in post(server, token, SUBMIT, {"input": {"inputs": fine[:2]}})
    assert asyncio.run(stream(server, token, asked("openai", "[[tokens=30]] [[pace=1]]")))
    for refused in (asked("mistral", "[[401]]"), asked("google", "[[500]]", timeoutMs=3000)):
        assert "errors" in post(server, token, COMPLETE, {"input": refused})
    assert "errors" in post(server, token, "{ nothing }")
    for organisation in ("limited", "limited", "poor"):
        post(server, server.token(organisation), COMPLETE, {"input": asked("openai", "")})
