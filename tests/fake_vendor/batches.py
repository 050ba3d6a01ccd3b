"""The vendors' batch APIs, from the server's side: OpenAI's files and batches, Anthropic's message batches. Each
request is answered as it would be by itself, and counted in the tally when its batch has ended: after two looks at it,
at the first where one of its prompts has `[[soon]]`, or, where one has `[[hang]]`, when it is cancelled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import orjson
from aiohttp import web

Answer = Callable[[str, str, Mapping[str, Any]], tuple[int, Any]]
"""Provider, path and body → status and payload of the call by itself, counted."""
LOOKS = 2
PAGE = 20
_PART = re.compile(rb'name="file".*?\r\n\r\n(.*)\r\n--', re.DOTALL)


@dataclass
class Batch:
    provider: str
    name: str
    lines: list[dict[str, Any]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    endpoint: str = ""
    looks: int = 0
    cancelled: bool = False
    results: list[bytes] | None = None
    created_at: datetime = field(default_factory=partial(datetime.now, UTC))

    def asks(self, directive: bytes) -> bool:
        return any(directive in orjson.dumps(line) for line in self.lines)

    @property
    def ended(self) -> bool:
        looks = 1 if self.asks(b"[[soon]]") else LOOKS
        return self.cancelled or (self.looks >= looks and not self.asks(b"[[hang]]"))


class Batches:
    """`answer` is how the vendor answers one call."""

    def __init__(self, answer: Answer) -> None:
        self.batches: dict[str, Batch] = {}
        self._answer = answer
        self._files: dict[str, bytes] = {}
        self._numbers: Iterator[int] = iter(range(1, 1_000_000))

    async def handle(self, request: web.BaseRequest, provider: str) -> tuple[int, Any]:
        """Status and payload: JSON, or bytes."""
        await asyncio.sleep(0)
        path = request.path.split(f"/v/{provider}", 1)[1].removeprefix("/v1")
        body = await request.read()
        parts = path.strip("/").split("/")
        if parts[0] == "messages":
            return self._messages(request, provider, parts[2:], body)
        match request.method, parts:
            case "POST", ["files"]:
                return 200, {"id": self._file(_file_in(body)), "object": "file", "purpose": "batch"}
            case "GET", ["files", name, "content"]:
                return 200, self._files[name]
            case "POST", ["batches"]:
                return 200, self._openai(self._created(provider, orjson.loads(body)))
            case "GET", ["batches"]:
                page, more = self._page(provider, request.query.get("after"))
                return 200, {"object": "list", "data": [self._openai(each) for each in page], "has_more": more}
            case "GET", ["batches", name]:
                return 200, self._openai(self._looked(name))
            case "POST", ["batches", name, "cancel"]:
                return 200, self._openai(self._stopped(name))
        return 404, {"error": {"message": f"nothing at {path}"}}

    def _messages(self, request: web.BaseRequest, provider: str, parts: list[str], body: bytes) -> tuple[int, Any]:
        match request.method, parts:
            case "POST", []:
                lines = orjson.loads(body)["requests"]
                return 200, self._anthropic(self._new(Batch(provider, self._name("msgbatch"), lines)))
            case "GET", []:
                page, more = self._page(provider, request.query.get("after_id"))
                newest = [self._anthropic(each) for each in page]
                return 200, {"data": newest, "has_more": more, "first_id": None, "last_id": None}
            case "GET", [name]:
                return 200, self._anthropic(self._looked(name))
            case "POST", [name, "cancel"]:
                return 200, self._anthropic(self._stopped(name))
            case "GET", [name, "results"]:
                return 200, b"\n".join(self._done(self.batches[name]))
        return 404, {"error": {"message": "no such batch"}}

    def _created(self, provider: str, asked: Mapping[str, Any]) -> Batch:
        assert asked["completion_window"] == "24h"
        lines = [orjson.loads(line) for line in self._files[asked["input_file_id"]].splitlines()]
        assert {line["url"] for line in lines} == {asked["endpoint"]}
        assert len({line["body"]["model"] for line in lines}) == 1, "a file is for one model"
        metadata = asked.get("metadata", {})
        return self._new(Batch(provider, self._name("batch"), lines, metadata, asked["endpoint"]))

    def _new(self, batch: Batch) -> Batch:
        names = [line["custom_id"] for line in batch.lines]
        assert len(set(names)) == len(names), "custom ids are unique"
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
        self.batches[batch.name] = batch
        return batch

    def _page(self, provider: str, after: str | None) -> tuple[list[Batch], bool]:
        """The newest first, and whether there are more: shorter pages than the vendors have."""
        newest = [each for each in reversed(self.batches.values()) if each.provider == provider]
        start = 0 if after is None else [each.name for each in newest].index(after) + 1
        return newest[start : start + PAGE], len(newest) > start + PAGE

    def _looked(self, name: str) -> Batch:
        batch = self.batches[name]
        batch.looks += 1
        return batch

    def _stopped(self, name: str) -> Batch:
        self.batches[name].cancelled = True
        return self.batches[name]

    def _done(self, batch: Batch) -> list[bytes]:
        """In another order than they were asked in, as the vendors may have it."""
        if batch.results is None:
            batch.results = [orjson.dumps(self._result(batch, line)) for line in reversed(batch.lines)]
        return batch.results

    def _result(self, batch: Batch, line: Mapping[str, Any]) -> dict[str, Any]:
        anthropic = batch.provider == "anthropic"
        if batch.cancelled:
            canceled: dict[str, Any] = (
                {"result": {"type": "canceled"}} if anthropic else {"response": None, "error": {}}
            )
            return {"custom_id": line["custom_id"], **canceled}
        path = f"/v/{batch.provider}{'/v1/messages' if anthropic else line['url']}"
        status, payload = self._answer(batch.provider, path, line["params" if anthropic else "body"])
        if anthropic:
            ended = {"type": "succeeded", "message": payload} if status < 400 else {"type": "errored", "error": payload}
            return {"custom_id": line["custom_id"], "result": ended}
        response = {"status_code": status, "request_id": "req_1", "body": payload}
        return {"id": "batch_req_1", "custom_id": line["custom_id"], "response": response, "error": None}

    def _openai(self, batch: Batch) -> dict[str, Any]:
        file = f"file-of-{batch.name}"
        if batch.ended:
            self._files[file] = b"\n".join(self._done(batch))
        return {
            "id": batch.name,
            "object": "batch",
            "endpoint": batch.endpoint,
            "input_file_id": "file-1",
            "completion_window": "24h",
            "created_at": int(batch.created_at.timestamp()),
            "status": ("cancelled" if batch.cancelled else "completed") if batch.ended else "in_progress",
            "output_file_id": file if batch.ended else None,
            "error_file_id": None,
            "metadata": batch.metadata,
        }

    def _anthropic(self, batch: Batch) -> dict[str, Any]:
        return {
            "id": batch.name,
            "type": "message_batch",
            "processing_status": "ended" if batch.ended else "in_progress",
            "request_counts": {
                "processing": 0,
                "succeeded": 0,
                "errored": 0,
                "canceled": 0,
                "expired": 0,
                "succeeded" if batch.ended else "processing": len(batch.lines),
            },
            "created_at": batch.created_at.isoformat(),
            "expires_at": (batch.created_at + timedelta(days=1)).isoformat(),
            "results_url": None,
        }

    def _file(self, content: bytes) -> str:
        name = self._name("file")
        self._files[name] = content
        return name

    def _name(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"


def _file_in(form: bytes) -> bytes:
    found = _PART.search(form)
    assert found is not None
    return found[1]


def is_of_a_batch(path: str) -> bool:
    return "/batches" in path or "/files" in path
