"""Prices of one's own through the real server: set, booked by, ended, and booked by no longer."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from providers.prices import PRICE_VERSION

from .processes import Server, post, running_server, server_environment

COMPLETE = """
mutation ($model: String!, $text: String!) {
  complete(input: { model: $model, messages: [{ role: USER, content: $text }] }) {
    id usage { inputTokens outputTokens cost costSource } attempts { priceVersion }
  }
}
"""
RECORD = """
query ($id: ID!) { completion(by: { id: $id }) { usage { cost costSource } attempts { priceVersion } } }
"""
OVERRIDE = "mutation ($input: CreatePriceOverrideInput!) { createPriceOverride(input: $input) { id since } }"
DISCOUNT = "mutation ($input: CreateDiscountInput!) { createDiscount(input: $input) { id } }"
END = "mutation ($id: ID!) { endPrice(input: { id: $id }) { id until } }"
ECHO = "scripted/echo"


def ask(server: Server, token: str, query: str, **variables: Any) -> Any:
    answer = post(server, token, query, variables)
    assert "errors" not in answer, answer
    (value,) = answer["data"].values()
    return value


def completed(server: Server, token: str, model: str = ECHO) -> tuple[str, Decimal, str | None]:
    """(version, cost, source) of a completion, in its answer and its record alike."""
    answer = ask(server, token, COMPLETE, model=model, text="to be or not to be")
    record = ask(server, token, RECORD, id=answer["id"])
    usage = answer["usage"]
    told = answer["attempts"][0]["priceVersion"], usage["cost"], usage["costSource"]
    assert told == (record["attempts"][0]["priceVersion"], record["usage"]["cost"], record["usage"]["costSource"])
    return told[0], Decimal(told[1]), told[2]


def test_an_override_from_its_making_to_its_end(server: Server, token: str) -> None:
    published = PRICE_VERSION, Decimal(0), "PRICE_TABLE"
    assert completed(server, token) == published
    prices = {"provider": "scripted", "model": "echo", "input": "1000000", "output": "0"}
    rule = ask(server, token, OVERRIDE, input=prices)["id"]
    version, cost, source = completed(server, token)
    assert (version, source) == (rule, "ORGANISATION")
    assert cost > 0
    assert cost == int(cost), "a dollar a token"
    assert completed(server, server.token("another organisation")) == published
    ask(server, token, END, id=rule)
    assert completed(server, token) == published


def test_a_discount_off_the_published_price(server: Server, token: str) -> None:
    _, full, _ = completed(server, token, "openai/gpt-4o-mini")
    rule = ask(server, token, DISCOUNT, input={"provider": "openai", "percent": "25"})["id"]
    assert completed(server, token, "openai/gpt-4o-mini") == (
        f"{PRICE_VERSION}+{rule}",
        full * Decimal("0.75"),
        "ORGANISATION",
    )
    page = ask(server, token, '{ prices(filter: { provider: "openai" }) { nodes { id } } }')
    assert page == {"nodes": [{"id": rule}]}


def test_rules_outlive_the_server(tmp_path: Path) -> None:
    environment = server_environment(tmp_path, None)
    prices = {"provider": "scripted", "input": "1000000", "output": "0"}
    with running_server(environment) as server:
        rule = ask(server, server.token("acme"), OVERRIDE, input=prices)["id"]
    with running_server(environment) as server:
        assert completed(server, server.token("acme"))[0] == rule
