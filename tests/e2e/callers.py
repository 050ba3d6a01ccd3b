"""Callers of every kind at once, as they see a server that is told to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from .documents import COMPLETE, STREAM
from .processes import Vendor
from .test_cancellation import open_calls, until

PROTOCOL = "graphql-transport-ws"
GONE = (aiohttp.WSMsgType.CLOSE, 1012)


@dataclass
class Callers:
    """A mutation, a stream over WebSocket and one over server-sent events that are under way, and a socket on which
    nothing runs."""

    mutation: asyncio.Task[dict[str, Any]]
    socket: aiohttp.ClientWebSocketResponse
    events: aiohttp.ClientResponse
    idle: aiohttp.ClientWebSocketResponse

    async def socket_end(self, operation: str = "1") -> tuple[dict[str, Any], str]:
        """The operation's last event, and how it ended."""
        last: dict[str, Any] = {}
        while True:
            told = await self.socket.receive_json()
            if told["id"] == operation and told["type"] == "next":
                last = told["payload"]["data"]["completionStream"]
            elif told["id"] == operation:
                return last, told["type"]

    async def events_end(self) -> tuple[dict[str, Any], bool]:
        """The stream's last event, and whether it was told that nothing follows."""
        text = (await self.events.read()).decode()
        events = [orjson.loads(part.partition("data: ")[2]) for part in text.split("\n\n") if "event: next" in part]
        return events[-1]["data"]["completionStream"], text.endswith("event: complete\ndata:\n\n")


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[Any, Any]:
    """How the server closed it: nothing else comes any more."""
    message = await socket.receive()
    return message.type, message.data


@asynccontextmanager
async def calling(url: str, token: str, vendor: Vendor, model: str, *, tokens: int) -> AsyncIterator[Callers]:
    """The streams have begun, and the vendor has the mutation. Each takes 20 ms for each of so many tokens."""
    stream = {"query": STREAM, "variables": {"input": asking(model, f"[[tokens={tokens}]] [[pace=20]]")}}
    whole = {"query": COMPLETE, "variables": {"input": asking(model, f"[[delay={tokens * 20}]]")}}
    async with AsyncExitStack() as stack:
        headers = {"authorization": f"Bearer {token}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers, connector=unverified()))
        socket = await connected(session, url)
        await socket.send_json({"id": "1", "type": "subscribe", "payload": stream})
        callers = Callers(
            mutation=asyncio.create_task(_answer(session, url, whole)),
            socket=socket,
            events=await session.post(url, json=stream, headers={"accept": "text/event-stream"}),
            idle=await connected(session, url),
        )
        await until(lambda: open_calls(vendor, "openai", model) == 3, within_s=30)
        while "TextDelta" not in (await socket.receive()).data:
            pass
        while b"TextDelta" not in await callers.events.content.readline():
            pass
        yield callers


def asking(model: str, prompt: str) -> dict[str, Any]:
    return {"model": f"openai/{model}", "messages": [{"role": "USER", "content": prompt}]}


async def connected(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    """A socket that the server has acknowledged."""
    socket = await session.ws_connect(url.replace("http", "ws", 1), protocols=[PROTOCOL])
    await socket.send_json({"type": "connection_init"})
    assert (await socket.receive_json())["type"] == "connection_ack"
    return socket


async def _answer(session: aiohttp.ClientSession, url: str, call: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=call) as answer:
        body: dict[str, Any] = await answer.json()
    return body


def unverified() -> aiohttp.TCPConnector:
    """A connection for each call; certificates are the tests' own."""
    return aiohttp.TCPConnector(force_close=True, ssl=False)
