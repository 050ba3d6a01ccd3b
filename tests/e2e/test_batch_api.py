"""Batches as a front end has them, on the embedded default: asked for, watched, looked at, begun anew."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import orjson
import pytest
from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport
from obstore.store import S3Store

from tests.servers.s3 import BUCKET, s3_or_skip

from .processes import Server, Vendor, post, running_server, server_environment
from .test_cancellation import own_model
from .test_configs import publish
from .test_prices import ask

BATCH = """
  id state mode priority concurrency labels { name value } idempotencyKey run deadline endedAt estimatedEndAt cost
  counts { total waiting queued running succeeded failed cancelled } results { url }
"""
SUBMIT = f"""
mutation ($input: SubmitBatchInput!) {{
  submitBatch(input: $input) {{
    batch {{ {BATCH} }}
    rehearsal {{ items mostCost unpriced wrong problems {{ line path message }} }}
  }}
}}
"""
UPLOAD = "mutation { uploadBatchFile(input: {}) { file url } }"
WATCH = f"subscription ($id: ID!) {{ batchProgress(id: $id) {{ {BATCH} }} }}"
RETRY = f"mutation ($input: RetryBatchInput!) {{ retryBatch(input: $input) {{ {BATCH} }} }}"
CANCEL = "mutation ($input: CancelBatchInput!) { cancelBatch(input: $input) { state } }"
ITEMS = """
query ($id: ID!, $first: Int!, $after: String, $states: [BatchItemState!]) {
  batch(id: $id) {
    items(first: $first, after: $after, states: $states) {
      nodes { index customId state failures completionId error { code } completion { content } }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""


def message(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "USER", "content": text}]}


async def watched(server: Server, token: str, batch: str) -> list[dict[str, Any]]:
    """All that is told of it until its end."""
    transport = WebsocketsTransport(url=server.socket_url, init_payload={"Authorization": f"Bearer {token}"})
    async with Client(transport=transport) as session:
        request = GraphQLRequest(WATCH, variable_values={"id": batch})
        return [event["batchProgress"] async for event in session.subscribe(request)]


def uploaded(server: Server, token: str, lines: list[dict[str, Any]]) -> str:
    """The file's name."""
    link = ask(server, token, UPLOAD)
    content = b"\n".join(map(orjson.dumps, lines))
    httpx.put(urljoin(server.url, link["url"]), content=content).raise_for_status()
    name: str = link["file"]
    return name


def results_of(server: Server, batch: dict[str, Any]) -> list[Any]:
    answer = httpx.get(urljoin(server.url, batch["results"]["url"])).raise_for_status()
    return [orjson.loads(line) for line in answer.content.splitlines()]


def items(server: Server, token: str, batch: str, **asked: Any) -> Any:
    return ask(server, token, ITEMS, id=batch, **{"first": 50} | asked)["items"]


@pytest.fixture
def model(organisation: str) -> str:
    return f"openai/{own_model('openai', organisation)}"


async def test_a_file_by_a_config_is_watched_looked_at_and_begun_anew(
    server: Server, token: str, organisation: str, model: str
) -> None:
    """Two by configs of their own, of which the second fails each time, and one by the batch's."""
    draft = {"model": model, "messages": [{"role": "USER", "content": "{{say}}"}], "variables": [{"name": "say"}]}
    publish(server, token, "says", draft)
    says = ("[[tokens=1]]", "[[400]]", "[[tokens=3]]")
    lines = [{"config": {"slug": "says", "variables": {"say": each}}, "customId": f"mine {each}"} for each in says[:2]]
    lines.append({"customId": "as the batch says"})
    file = uploaded(server, token, lines)
    labels = [{"name": "job", "value": "night"}]
    asked = {
        "file": file,
        "config": {"slug": "says", "variables": {"say": says[2]}},
        "concurrency": 1,
        "priority": 9,
        "labels": labels,
        "idempotencyKey": "k",
    }
    made = ask(server, token, SUBMIT, input=asked)["batch"]
    assert (made["mode"], made["priority"], made["concurrency"], made["labels"]) == ("LIVE", 9, 1, labels)
    assert (made["run"], made["counts"]["total"], made["idempotencyKey"]) == (1, 3, "k")

    told = await watched(server, token, made["id"])
    done = [each["counts"]["succeeded"] + each["counts"]["failed"] for each in told]
    assert (done, done[-1], told[-1]["state"]) == (sorted(done), 3, "COMPLETED")
    assert all(each["counts"]["running"] + each["counts"]["queued"] <= 1 for each in told)
    assert ask(server, token, SUBMIT, input=asked)["batch"]["id"] == made["id"], "the same once more"
    other = post(server, token, SUBMIT, {"input": {**asked, "priority": 8}})
    assert other["errors"][0]["extensions"]["code"] == "CONFLICT"

    first = items(server, token, made["id"], first=2)
    assert [each["customId"] for each in first["nodes"]] == [f"mine {each}" for each in says[:2]]
    rest = items(server, token, made["id"], after=first["pageInfo"]["endCursor"])["nodes"]
    assert [(each["index"], each["completion"]["content"]) for each in rest] == [(2, "token0 token1 token2")]
    [failed] = items(server, token, made["id"], states=["FAILED"])["nodes"]
    assert (failed["index"], failed["error"]["code"]) == (1, "PROVIDER_INVALID_REQUEST")

    again = ask(server, token, RETRY, input={"id": made["id"]})
    assert (again["state"], again["run"], again["results"]) == ("RETRYING", 2, None)
    ended = (await watched(server, token, made["id"]))[-1]
    assert (ended["counts"]["succeeded"], ended["counts"]["failed"]) == (2, 1)
    [anew] = items(server, token, made["id"], states=["FAILED"])["nodes"]
    assert anew["completionId"] != failed["completionId"]
    stayed = items(server, token, made["id"], states=["SUCCEEDED"])["nodes"]
    assert [each["completionId"] for each in stayed] == [first["nodes"][0]["completionId"], rest[0]["completionId"]]
    assert [each["customId"] for each in results_of(server, ended)] == [each["customId"] for each in lines]


def test_a_rehearsal_names_every_problem_and_accepts_nothing(server: Server, token: str) -> None:
    priced = {**message("hello"), "maxTokens": 100}
    listed = [priced, {**priced, "temperature": 99.0}, priced, message("hello")]
    asked = {"inputs": listed, "model": "openai/gpt-4o-mini", "dryRun": True}
    live = ask(server, token, SUBMIT, input=asked)
    found = live["rehearsal"]
    assert (live["batch"], found["items"], found["wrong"], found["unpriced"]) == (None, 4, 1, 0)
    [problem] = found["problems"]
    assert (problem["line"], problem["path"]) == (2, "temperature")
    halved = ask(server, token, SUBMIT, input={**asked, "mode": "PROVIDER"})["rehearsal"]
    assert Decimal(found["mostCost"]) == 2 * Decimal(halved["mostCost"]) > 0
    assert post(server, token, "{ batches { nodes { id } } }")["data"]["batches"]["nodes"] == []
    refused = post(server, token, SUBMIT, {"input": {**asked, "dryRun": False}})["errors"][0]
    assert refused["extensions"]["path"] == ["input", "inputs", 1, "temperature"]
    assert refused["message"].startswith("inputs[1], temperature: ")


async def test_what_is_cancelled_ends_soon(server: Server, token: str, model: str) -> None:
    asked = {"inputs": [message("[[hang]]")] * 3, "model": model, "concurrency": 2}
    batch = ask(server, token, SUBMIT, input=asked)["batch"]["id"]
    assert ask(server, token, CANCEL, input={"id": batch})["state"] == "CANCELLING"
    ended = (await watched(server, token, batch))[-1]
    assert (ended["state"], ended["counts"]["cancelled"]) == ("CANCELLED", 3)
    assert ended["endedAt"] is not None


def test_a_file_in_a_bucket_is_brought_by_a_link_or_put_there(vendor: Vendor, tmp_path: Path) -> None:
    """The results come by the bucket's own link."""
    bucket = s3_or_skip()
    prefix, options = f"{bucket.url}/{tmp_path.name}", bucket.options()
    variables = {name.upper(): value for name, value in options.items()}
    lines = [{**message("[[tokens=2]]"), "customId": f"n{number}"} for number in range(3)]
    with running_server(server_environment(tmp_path, vendor, OBJECT_STORE_URL=prefix, **variables)) as server:
        token, asked = server.token("acme"), {"model": "openai/gpt-4o-mini"}
        store: Any = S3Store(BUCKET, prefix=tmp_path.name, config={**options}, client_options={"allow_http": True})
        store.put("files/o-acme/in/mine.jsonl", b"\n".join(map(orjson.dumps, lines)))
        for file in (uploaded(server, token, lines), "in/mine.jsonl"):
            batch = ask(server, token, SUBMIT, input={**asked, "file": file})["batch"]
            [*_, ended] = asyncio.run(watched(server, token, batch["id"]))
            assert ended["results"]["url"].startswith(f"http://127.0.0.1:{bucket.port}/")
            found = results_of(server, ended)
            assert [(each["customId"], each["completion"]["content"]) for each in found] == [
                (line["customId"], "token0 token1") for line in lines
            ]
        theirs = post(server, server.token("globex"), SUBMIT, {"input": {**asked, "file": "in/mine.jsonl"}})
        assert theirs["errors"][0]["extensions"]["code"] == "NOT_FOUND"
