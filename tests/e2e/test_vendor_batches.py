"""Batches that the vendors work on, by their own batch APIs at half the price."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from persistence.batch_records import Item, Text, VendorRun
from providers.anthropic import AnthropicCodec
from providers.anthropic_batches import AnthropicBatchCodec
from providers.batching import Sent, VendorBatches
from providers.http import open_transport
from providers.openai import OpenAICodec
from providers.openai_batches import OpenAIBatchCodec
from providers.types import CompletionRequest, Credentials, Message, Role
from resolvers.batches.vendor_budgets import name_of
from resolvers.batches.vendor_items import custom_id
from resolvers.batches.vendor_search import search
from tests.fake_vendor.batches import PAGE

from .limited import LIMITS, SET
from .processes import Server, Vendor, post
from .test_prices import ask

SUBMIT = """
mutation Submit($input: SubmitBatchInput!) { submitBatch(input: $input) { batch { id } } }
"""
BATCH = """
query Batch($id: ID!) {
  batch(id: $id) {
    state cost unpriced endedAt counts { total running succeeded failed cancelled }
    items(first: 100) {
      nodes { index state completionId cost error { code } completion { content usage { outputTokens costSource } } }
    }
  }
}
"""
CANCEL = "mutation Cancel($input: CancelBatchInput!) { cancelBatch(input: $input) { state } }"
RECORD = """
query Record($by: CompletionRef!) {
  completion(by: $by) { usage { inputTokens outputTokens cost estimated } labels { name value } attempts { outcome } }
}
"""


def submitted(server: Server, token: str, prompts: list[str], model: str) -> str:
    asked = {
        "mode": "PROVIDER",
        "model": model,
        "inputs": [{"messages": [{"role": "USER", "content": each}], "maxTokens": 100} for each in prompts],
    }
    answer = post(server, token, SUBMIT, {"input": asked})
    batch: str = answer["data"]["submitBatch"]["batch"]["id"]
    return batch


def ended(server: Server, token: str, batch: str) -> Any:
    give_up = time.monotonic() + 90
    while (found := post(server, token, BATCH, {"id": batch})["data"]["batch"])["endedAt"] is None:
        assert time.monotonic() < give_up, found
        time.sleep(0.3)
    return found


@pytest.mark.parametrize(
    ("provider", "model", "price"),
    [("openai", "gpt-4o-mini", "0.60"), ("openai", "o4-mini", "4.40"), ("anthropic", "claude-haiku-4-5", "5")],
)
def test_the_vendor_answers_at_half_the_price(
    server: Server, token: str, vendor: Vendor, provider: str, model: str, price: str
) -> None:
    """Under a budget, which holds what they may come to until then."""
    ask(server, token, SET, input={"usdPerDay": "100"})
    before = vendor.tally(provider, model)
    prompts = [f"[[tokens={number + 1}]]" for number in range(9)] + ["[[400]] [[soon]]"]
    found = ended(server, token, submitted(server, token, prompts, f"{provider}/{model}"))
    assert found["state"] == "COMPLETED"
    [budget] = ask(server, token, LIMITS)["limits"]
    assert Decimal(budget["used"]) == Decimal(found["cost"]) > 0
    assert found["counts"] == {"total": 10, "running": 0, "succeeded": 9, "failed": 1, "cancelled": 0}
    nodes = found["items"]["nodes"]
    assert [each["completion"]["usage"]["outputTokens"] for each in nodes[:9]] == list(range(1, 10))
    assert (nodes[9]["completion"], nodes[9]["error"]) == (None, {"code": "PROVIDER_INVALID_REQUEST"})
    after = vendor.tally(provider, model)
    assert after["answered"] - before.get("answered", 0) == 9
    for each in nodes[:9]:
        answer = post(server, token, RECORD, {"by": {"id": each["completionId"]}})["data"]["completion"]
        usage = answer["usage"]
        assert (usage["estimated"], usage["cost"]) == (False, each["cost"])
        assert [one["outcome"] for one in answer["attempts"]] == ["SUCCEEDED"]
        output = usage["outputTokens"] * float(price) / 1_000_000 / 2
        assert float(usage["cost"]) == pytest.approx(output, rel=0.5), "and a little for the input"
        assert output < float(usage["cost"]) < 2 * output + 2e-6


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-4o-mini"), ("anthropic", "claude-haiku-4-5")])
def test_what_is_cancelled_is_cancelled_there_too(server: Server, token: str, provider: str, model: str) -> None:
    batch = submitted(server, token, ["[[hang]]", "hello"], f"{provider}/{model}")
    give_up = time.monotonic() + 60
    while post(server, token, BATCH, {"id": batch})["data"]["batch"]["counts"]["running"] < 2:
        assert time.monotonic() < give_up
        time.sleep(0.2)
    assert post(server, token, CANCEL, {"input": {"id": batch}})["data"]["cancelBatch"]["state"] == "CANCELLING"
    found = ended(server, token, batch)
    assert (found["state"], found["counts"]["cancelled"]) == ("CANCELLED", 2)


async def test_anthropic_s_batch_is_found_though_nobody_heard_its_id(vendor: Vendor) -> None:
    """Of two with as many requests: while either works nobody can say, then the results do."""
    codec, credentials = AnthropicBatchCodec(AnthropicCodec()), Credentials("key-of-anthropic")
    batches = VendorBatches(codec, f"{vendor.url}/v/anthropic")
    run = VendorRun("acme", f"bat_{secrets.token_hex(16)}", 1, "anthropic", "lost", "1", datetime.now(UTC))
    items = [Item("acme", run.batch, index, Text(), fence=1) for index in range(3)]
    asked = CompletionRequest("lost", (Message(Role.USER, "hello"),), max_tokens=9)
    async with open_transport(trust_env=False) as transport:
        calling: Any = {"credentials": credentials, "transport": transport}

        async def submitted(names: list[str]) -> str:
            lines = [batches.line(name, asked) for name in names]
            return (await batches.submit(lines, name_of(run), **calling)).id

        async def sought() -> tuple[str | None, bool]:
            found, goes_on = await search(batches, run, items, [], **calling)
            return found and found.id, goes_on

        assert await sought() == (None, False)
        ours = await submitted([custom_id(item) for item in items])
        theirs = await submitted(["a", "b", "c"])
        assert await sought() == (None, True)
        await batches.cancel(theirs, **calling)
        assert await sought() == (None, True), "theirs has ended, and is none of ours"
        for _ in range(2):
            await batches.look(ours, **calling)
        assert await sought() == (ours, False)
        for number in range(PAGE):
            await submitted([f"later-{number}"])
        assert await sought() == (ours, False), "on the list's next page"


async def test_openai_s_batch_is_found_by_its_name_behind_a_page_of_others(vendor: Vendor) -> None:
    codec, credentials = OpenAIBatchCodec(OpenAICodec()), Credentials("key-of-openai")
    batches, name = VendorBatches(codec, f"{vendor.url}/v/openai"), f"{secrets.token_hex(16)}/1"
    now = datetime.now(UTC)
    asked = CompletionRequest("lost", (Message(Role.USER, "hello"),), max_tokens=9)
    async with open_transport(trust_env=False) as transport:
        calling: Any = {"credentials": credentials, "transport": transport}
        lines = [batches.line("1", asked)]
        ours = await batches.submit(lines, name, **calling)
        for number in range(PAGE):
            await batches.submit(lines, f"later-{number}", **calling)
        found = await batches.find(Sent(name, 1, now - timedelta(minutes=1), now), **calling)
        assert [each.id for each in found] == [ours.id]
        tomorrow = now + timedelta(days=1)
        assert await batches.find(Sent(name, 1, tomorrow, tomorrow), **calling) == [], "nobody looks behind that time"
