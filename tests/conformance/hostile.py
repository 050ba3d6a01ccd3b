"""A vendor's own answer, spoiled on purpose, and a place to ask for it: real sockets below, the ledger above."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from persistence.records import LedgerEntry
from providers.adapter import CodecProvider
from providers.http import open_transport
from providers.types import Credentials, Message, Role
from resolvers import completions
from resolvers.errors import CompletionFailedError
from resolvers.health import Health
from resolvers.key_pool import KeyPool
from resolvers.routing import Vendor
from resolvers.types import CompleteCommand, CompletionFailed, CompletionFinished, Target, TextProduced
from tests.resolvers.scene import ACME, Scene, open_scene, other_tasks
from tests.servers.raw import RawServer, chunk, serving

from .added_vendor import ROWS
from .transcripts import Transcript

NAMES = [row.name for row in ROWS]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
KEY = Credentials("test-key")

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Answer = Callable[[Reader, Writer], Awaitable[None]]


@dataclass
class Ending:
    """How one case ended for the caller, and what of it is booked."""

    text: str
    code: str | None
    provider: str | None
    retryable: bool | None
    retry_after_ms: int | None
    entries: list[LedgerEntry]


@dataclass
class Case:
    """One vendor's own answer to be spoiled, and a place to ask from."""

    name: str
    scene: Scene
    asked: CompleteCommand

    @property
    def events(self) -> bytes:
        return Transcript(self.name, "text_stream").events

    @property
    def body(self) -> dict[str, Any]:
        return Transcript(self.name, "text").response["body"]

    @property
    def content(self) -> str:
        return str(Transcript(self.name, "text_stream").completion.content)

    def events_cut(self) -> list[bytes]:
        """The stream's events, each with the blank line after it."""
        return [each for each in re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", self.events) if each]

    async def ending(self, *, streamed: bool) -> Ending:
        if not streamed:
            try:
                answer = await completions.complete(self.scene.services, ACME, self.asked)
            except CompletionFailedError as error:
                return self._failed("", error)
            return Ending(answer.content or "", None, answer.provider, None, None, self.scene.store.entries)
        text: list[str] = []
        async with aclosing(completions.stream(self.scene.services, ACME, self.asked)) as events:
            async for event in events:
                if isinstance(event, TextProduced):
                    text.append(event.text)
        if isinstance(event, CompletionFailed):
            return self._failed("".join(text), event)
        assert isinstance(event, CompletionFinished)
        return Ending("".join(text), None, event.completion.provider, None, None, self.scene.store.entries)

    def _failed(self, text: str, error: CompletionFailedError | CompletionFailed) -> Ending:
        after = error.retry_after_ms
        return Ending(text, error.code, error.provider, error.retryable, after, self.scene.store.entries)


@asynccontextmanager
async def facing(name: str, answer: Callable[[Case], Answer], timeout_ms: int) -> AsyncIterator[tuple[Case, RawServer]]:
    """At its end no task and no connection may be left."""
    row = next(row for row in ROWS if row.name == name)
    asked = CompleteCommand(Target(name, "m"), (Message(Role.USER, "hello"),), timeout_ms=timeout_ms)
    before = other_tasks()
    async with open_scene() as scene:
        case = Case(name, scene, asked)

        async def handle(body: bytes, reader: Reader, writer: Writer) -> None:
            await answer(case)(reader, writer)

        async with serving(handle) as server:
            vendors = {name: Vendor(CodecProvider(row.codec(), f"http://127.0.0.1:{server.port}"), KeyPool.of(KEY))}
            health = Health([name], vendors, scene.services.circuits, scene.services.clock)
            async with open_transport(trust_env=False) as transport:
                changes = {"vendors": vendors, "transport": transport, "health": health}
                case.scene = replace(scene, services=replace(scene.services, **changes))
                yield case, server
            await asyncio.wait_for(server.left.wait(), 20)
    assert other_tasks() == before


async def end_of(
    name: str, answer: Callable[[Case], Answer], *, streamed: bool, timeout_ms: int = 10_000
) -> tuple[Ending, Case, RawServer]:
    async with facing(name, answer, timeout_ms) as (case, server):
        return await case.ending(streamed=streamed), case, server


def sending(*pieces: bytes, then: Answer | None = None) -> Answer:
    """A stream of these bytes, each in a chunk and a packet of its own."""

    async def write(reader: Reader, writer: Writer) -> None:
        writer.write(HEAD)
        for piece in pieces:
            writer.write(chunk(piece))
            await writer.drain()
        await (then or finish)(reader, writer)

    return write


async def finish(reader: Reader, writer: Writer) -> None:
    writer.write(b"0\r\n\r\n")


async def stall(reader: Reader, writer: Writer) -> None:
    """Until the other side hangs up."""
    await reader.read()


async def cut(reader: Reader, writer: Writer) -> None:
    writer.transport.abort()


def plain(status: int, body: bytes, *headers: str, kind: str = "application/json") -> Answer:
    async def write(reader: Reader, writer: Writer) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return write
