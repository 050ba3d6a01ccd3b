"""SIGTERM while work runs: mutations get their answers, sockets are closed, and the ledger holds every attempt."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp

from .documents import COMPLETE, RECORDS, STREAM
from .processes import Vendor, post, running_server, server_environment
from .test_cancellation import open_calls, until
from .test_providers import asked

MODEL = "shutdown-model"


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
