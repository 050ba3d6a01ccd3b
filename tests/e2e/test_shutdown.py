"""SIGTERM while work runs: mutations get their answers, sockets are closed, and the ledger holds every attempt."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import aiohttp

from .documents import COMPLETE, RECORDS, STREAM
from .processes import Vendor, post, running_server, server_environment
from .test_cancellation import open_calls, until
from .test_providers import asked

MODEL = "shutdown-model"
FEEDS = {
    "providerHealth": "subscription { providerHealth { name } }",
    "usageLive": "subscription { usageLive(input: { last: 1, bucket: DAY }) { asOf } }",
}


async def test_sigterm_answers_books_and_ends(vendor: Vendor, tmp_path: Path) -> None:
    environment = server_environment(tmp_path, vendor)
    slow = {**asked("openai", "[[delay=1500]]"), "model": f"openai/{MODEL}"}
    endless = {**asked("openai", "[[tokens=5000]] [[pace=20]]"), "model": f"openai/{MODEL}"}
    with running_server(environment) as server:
        token = server.token("shutdown")
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as session:
            body = {"query": COMPLETE, "variables": {"input": slow}}
            mutation = asyncio.create_task(session.post(server.url, json=body))
            socket = await session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"])
            await socket.send_json({"type": "connection_init"})
            await socket.receive_json()
            call = {"query": STREAM, "variables": {"input": endless}}
            await socket.send_json({"id": "1", "type": "subscribe", "payload": call})
            await until(lambda: open_calls(vendor, "openai", MODEL) == 2)
            await socket.receive_json()
            server.process.send_signal(signal.SIGTERM)
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1012)
            answer = await (await mutation).json()
            assert answer["data"]["complete"]["finishReason"] == "STOP"
        await asyncio.to_thread(server.process.wait, 20)
        assert open_calls(vendor, "openai", MODEL) == 0
    with running_server(environment) as server:
        nodes = post(server, server.token("shutdown"), RECORDS)["data"]["completions"]["nodes"]
    assert sorted(node["outcome"] for node in nodes) == ["CANCELLED", "SUCCEEDED"]
    assert next(node for node in nodes if node["outcome"] == "CANCELLED")["usage"]["outputTokens"] > 0


async def test_feeds_that_have_no_end_of_their_own_do_not_hold_it_up(vendor: Vendor, tmp_path: Path) -> None:
    with running_server(server_environment(tmp_path, vendor)) as server:
        headers = {"authorization": f"Bearer {server.token('shutdown')}", "accept": "text/event-stream"}
        async with aiohttp.ClientSession(headers=headers) as session:
            feeds = [await session.post(server.url, json={"query": query}) for query in FEEDS.values()]
            for feed in feeds:
                assert (await feed.content.readline()) == b"event: next\n"
            begun = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            ends = [(await feed.read()).decode() for feed in feeds]
        await asyncio.to_thread(server.process.wait, 20)
        assert time.monotonic() - begun < 10
        assert all("SERVICE_UNAVAILABLE" in end and end.endswith("event: complete\ndata:\n\n") for end in ends)
