"""Completions and streams on all server processes of a site at once, while something is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import orjson

from persistence.queue_records import QueueDepth
from persistence.rabbit.queue import open_rabbit

from .documents import COMPLETE, STREAM, USAGE
from .processes import Server, Vendor, post
from .site import Site, ready

QUEUE_NAME = "ai-middleware"
PROMPT = "[[tokens=5]] [[delay=20]]"
COMPLETING, STREAMING = 3, 2
"""Clients of each server process."""


@dataclass
class Load:
    """`model` is this run's own, so that the vendor's tally is its too. `refused`: how many calls were, with
    SERVICE_UNAVAILABLE."""

    site: Site
    organisation: str
    answered: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: int = 0
    _asked: int = 0
    _enough: int = 0
    _reached: asyncio.Event = field(default_factory=asyncio.Event)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def model(self) -> str:
        return f"openai/{self.organisation}"

    async def through(self, disturb: Callable[[], Any], *, answers: int = 30) -> None:
        """So many are answered, then comes the disturbance, in a thread; after its end as many once more."""
        async with asyncio.timeout(150), asyncio.TaskGroup() as group:
            for server in self.site.servers:
                for client in [self._completing] * COMPLETING + [self._streaming] * STREAMING:
                    group.create_task(self._client(server, client))
            await self._more(answers)
            await asyncio.to_thread(disturb)
            await self._more(answers)
            self._over.set()

    async def _more(self, answers: int) -> None:
        self._enough, self._reached = len(self.answered) + answers, asyncio.Event()
        await self._reached.wait()

    async def _client(self, server: Server, client: Callable[[aiohttp.ClientSession, str], Any]) -> None:
        headers = {"authorization": f"Bearer {server.token(self.organisation)}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while not self._over.is_set():
                await client(session, server.url)

    async def _completing(self, session: aiohttp.ClientSession, url: str) -> None:
        async with session.post(url, json=self._body(COMPLETE)) as answer:
            body = await answer.json()
        if body["data"]["complete"] is None:
            await self._note_refusal(body["errors"][0]["extensions"]["code"], body)
        else:
            self._note(body["data"]["complete"])

    async def _streaming(self, session: aiohttp.ClientSession, url: str) -> None:
        """Over SSE."""
        headers = {"accept": "text/event-stream"}
        last: dict[str, Any] = {}
        async with session.post(url, json=self._body(STREAM), headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: ") and (message := orjson.loads(line[6:])):
                    last = message
        event = (last.get("data") or {}).get("completionStream") or {}
        if event.get("__typename") == "CompletionFinished":
            self._note(event["completion"])
        else:
            await self._note_refusal(event.get("code") or last["errors"][0]["extensions"]["code"], last)

    def _body(self, query: str) -> dict[str, Any]:
        asked: dict[str, Any] = {"model": self.model, "messages": [{"role": "USER", "content": PROMPT}]}
        self._asked += 1
        if self._asked % 2:  # every other one with a key
            asked["idempotencyKey"] = uuid4().hex
        return {"query": query, "variables": {"input": asked}}

    def _note(self, completion: dict[str, Any]) -> None:
        assert completion["id"] not in self.answered, "an id is given twice"
        assert completion["usage"]["outputTokens"] == 5
        self.answered[completion["id"]] = completion
        if len(self.answered) >= self._enough:
            self._reached.set()

    async def _note_refusal(self, code: str, body: dict[str, Any]) -> None:
        assert code == "SERVICE_UNAVAILABLE", body
        self.refused += 1
        await asyncio.sleep(0.05)


_ENTRIES = """
    SELECT completion_id::text, count(*), sum(input_tokens), sum(output_tokens), count(*) FILTER (WHERE estimated)
    FROM ledger_entries WHERE organisation = $1 GROUP BY 1
"""


async def entries(site: Site, organisation: str) -> dict[str, Sequence[int]]:
    """Of each completion: its entries, input and output tokens, and how many of them are estimated."""
    connection = await asyncpg.connect(site.ledger_url)
    try:
        rows = await connection.fetch(_ENTRIES, organisation)
    finally:
        await connection.close()
    return {row[0]: [int(value) for value in row[1:]] for row in rows}


async def all_is_booked(load: Load, vendor: Vendor) -> None:
    """When all servers are ready: one entry for each call to the vendor, with its figures, also in the reports; and
    nothing waits any more."""
    for server in load.site.servers:
        await asyncio.to_thread(ready, server)
    tally = await asyncio.to_thread(vendor.tally, "openai", load.organisation)
    booked: dict[str, Sequence[int]] = {}
    async with asyncio.timeout(60):
        while len(booked) < tally["calls"]:
            await asyncio.sleep(0.05)
            booked = await entries(load.site, load.organisation)
    assert load.answered.keys() <= booked.keys()
    assert {values[0] for values in booked.values()} == {1}
    assert not any(values[3] for values in booked.values()), "nobody left, so nothing is estimated"
    assert len(booked) == tally["calls"] == tally["answered"]
    sums = [sum(values[column] for values in booked.values()) for column in (1, 2)]
    assert sums == [tally["input_tokens"], tally["output_tokens"]]
    for server in load.site.servers:
        asked = {"input": {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}}
        answer = await asyncio.to_thread(post, server, server.token(load.organisation), USAGE, asked)
        totals = answer["data"]["usage"]["totals"]
        assert [totals[name] for name in ("attempts", "inputTokens", "outputTokens")] == [len(booked), *sums]
    assert await waiting(load.site) == QueueDepth(0, 0, 0)


async def waiting(site: Site) -> QueueDepth:
    variables = site.environments[0]
    async with open_rabbit(variables["QUEUE_CONNECTIONURL"], QUEUE_NAME) as queue:
        return await queue.depth()
