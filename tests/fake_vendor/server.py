"""The server: `/t/<provider>/<scenario>/…` serves transcripts, `/v/<provider>/…` answers as the prompt directs.

`GET /_stats` tells what it did, by provider and model; `POST /_reset` forgets it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from aiohttp import web

from . import embeddings
from .batches import Batches, is_of_a_batch
from .dialects import Asked, Dialect, OpenAIDialect, Reply
from .embeddings import asks_for_embeddings
from .own_dialects import AnthropicDialect, GeminiDialect
from .responses_dialect import RESPONSES
from .script import Script, read_script
from .transcripts import serve_transcript

_CHAT = ("openai", "groq", "mistral", "openrouter", "azure", "compatible", "acme")
DIALECTS: Mapping[str, Dialect] = {
    "anthropic": AnthropicDialect(),
    "google": GeminiDialect(),
    **{
        name: OpenAIDialect(name) for name in ("openai", "groq", "mistral", "openrouter", "azure", "compatible", "acme")
    },
}
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
_TOOL_ARGUMENTS = ('{"query":', '"fake"}')
_WORDS = re.compile(r"\S+\s*")
_RECORDS = 10_000
_PROMPTS = 100_000
_BODY = 64 * 1024 * 1024


@dataclass(slots=True)
class Tally:
    """`answered` calls were delivered whole, and the token sums are theirs: what the vendor's own bill would say.
    `partial_output_tokens` were written to calls that ended early; `open` calls are still in flight."""

    calls: int = 0
    answered: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    partial_output_tokens: int = 0
    disconnects: int = 0
    open: int = 0


@dataclass(slots=True)
class Record:
    """One request, for tests in the same process. `status` 0: ended before an answer began."""

    provider: str
    path: str
    headers: Mapping[str, str]
    body: Any
    status: int = 0
    output_tokens: int = 0
    disconnected: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FakeVendor:
    def __init__(self) -> None:
        self.port = 0
        self.tallies: defaultdict[str, defaultdict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
        self.records: deque[Record] = deque(maxlen=_RECORDS)
        self.mismatches: deque[str] = deque(maxlen=_RECORDS)
        self.batches = Batches(self._alone)
        self._failures: Counter[tuple[str, str, str]] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        self.tallies.clear()
        self.records.clear()
        self.mismatches.clear()
        self._failures.clear()

    def stats(self) -> dict[str, dict[str, dict[str, int]]]:
        return {
            provider: {model: asdict(tally) for model, tally in models.items()}
            for provider, models in self.tallies.items()
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.path.split("/", 3):
            case ["", "_stats"]:
                return _json(self.stats())
            case ["", "_reset"]:
                self.reset()
                return _json({})
            case ["", "t", provider, rest]:
                scenario, _, _ = rest.partition("/")
                return await serve_transcript(request, provider, scenario, self.mismatches)
            case ["", "v", provider, _] if provider in DIALECTS and is_of_a_batch(request.path):
                return _batched(*await self.batches.handle(request, provider))
            case ["", "v", provider, _] if provider in DIALECTS:
                dialect = RESPONSES if request.path.endswith("/responses") else DIALECTS[provider]
                return await self._generate(request, provider, dialect)
        return _json({"error": f"nothing at {request.path}"}, 404)

    async def _generate(self, request: web.BaseRequest, provider: str, dialect: Dialect) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        record = Record(provider, request.path_qs, request.headers, body)
        self.records.append(record)
        asked = _asked(dialect, request.path, body)
        tally = self.tallies[provider][asked.model]
        tally.calls += 1
        tally.open += 1
        try:
            return await _Answering(request, dialect, asked, record, tally).answer(self._refusal(provider, asked))
        except (asyncio.CancelledError, ConnectionError):
            record.disconnected = True
            tally.disconnects += 1
            raise
        finally:
            tally.open -= 1
            record.ended.set()

    def _alone(self, provider: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """A call of a batch, answered at once and counted."""
        dialect = RESPONSES if path.endswith("/responses") else DIALECTS[provider]
        asked = _asked(dialect, path, body)
        tally = self.tallies[provider][asked.model]
        tally.calls += 1
        refusal = self._refusal(provider, asked)
        if refusal is not None:
            tally.failed += 1
            return refusal, dialect.error(refusal)
        reply = _reply(asked, read_script(asked.prompt))
        tally.answered += 1
        tally.input_tokens += reply.input_tokens
        tally.output_tokens += reply.output_tokens
        return 200, dialect.plain(asked, reply)

    def _refusal(self, provider: str, asked: Asked) -> int | None:
        """The status to refuse with, if the request or its prompt wants one of this call."""
        if asked.refused is not None:
            return asked.refused
        script = read_script(asked.prompt)
        if script.refuser not in (None, provider):
            return None
        if script.status is None or script.failures is None:
            return script.status
        if len(self._failures) > _PROMPTS:
            self._failures.clear()
        key = (provider, asked.model, asked.prompt)
        self._failures[key] += 1
        return script.status if self._failures[key] <= script.failures else None


@dataclass(slots=True)
class _Answering:
    """One call in the making."""

    request: web.BaseRequest
    dialect: Dialect
    asked: Asked
    record: Record
    tally: Tally

    async def answer(self, refusal: int | None) -> web.StreamResponse:
        script = read_script(self.asked.prompt)
        if not any(self.request.headers.get(name) for name in _KEY_HEADERS):
            refusal = 401
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        if refusal is not None:
            return self._refuse(refusal, script)
        reply = _reply(self.asked, script)
        if self.asked.stream:
            return await self._stream(script, reply)
        if script.hang is not None:
            await asyncio.Event().wait()
        if script.cut is not None:
            return self._cut()
        self._booked(reply)
        if asks_for_embeddings(self.request.path):
            return _json(embeddings.answer(self.asked.body))
        return _json(self.dialect.plain(self.asked, reply))

    def _refuse(self, status: int, script: Script) -> web.StreamResponse:
        self.record.status = status
        self.tally.failed += 1
        headers = {"retry-after": str(script.retry_after)} if script.retry_after is not None else {}
        payload = self.dialect.error(status)
        if script.echo:
            keys = [self.request.headers.get(name, "") for name in _KEY_HEADERS]
            _add_words(payload, " ".join([*keys, self.asked.text]))
        return _json(payload, status, headers)

    async def _stream(self, script: Script, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        self.record.status = 200
        await response.prepare(self.request)
        try:
            await self._write(response, self.dialect.opening(self.asked, reply))
            for index in range(reply.output_tokens):
                if index == script.hang:
                    await asyncio.Event().wait()
                if script.pace_s:
                    await asyncio.sleep(script.pace_s)
                if index == script.cut:
                    return self._cut(response)
                await self._write(response, self.dialect.delta(self.asked, reply, index))
                self.record.output_tokens = index + 1
        except (asyncio.CancelledError, ConnectionError):
            self.tally.partial_output_tokens += self.record.output_tokens
            raise
        for event in self.dialect.closing(self.asked, reply):
            await self._write(response, event)
        await response.write_eof()
        self._booked(reply)
        return response

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        if data:
            await response.write(data)

    def _cut(self, response: web.StreamResponse | None = None) -> web.StreamResponse:
        self.tally.partial_output_tokens += self.record.output_tokens
        if self.request.transport is not None:
            self.request.transport.abort()
        return response or web.StreamResponse()

    def _booked(self, reply: Reply) -> None:
        self.record.status = 200
        self.record.output_tokens = reply.output_tokens
        self.tally.answered += 1
        self.tally.input_tokens += reply.input_tokens
        self.tally.output_tokens += reply.output_tokens


def _asked(dialect: Dialect, path: str, body: Mapping[str, Any]) -> Asked:
    if not asks_for_embeddings(path):
        return dialect.asked(path, body)
    texts = embeddings.texts_of(body)
    model = embeddings.model_of(path, body)
    return Asked(model, False, texts[0], " ".join(texts), 0, None, after_tool=False, body=body)


def _reply(asked: Asked, script: Script) -> Reply:
    if script.tool and asked.tool and not asked.after_tool:
        return Reply(_TOOL_ARGUMENTS, asked.tool, cut_at_limit=False, input_tokens=asked.input_tokens)
    if script.echo:
        return Reply(tuple(_WORDS.findall(asked.text)), None, cut_at_limit=False, input_tokens=asked.input_tokens)
    count = script.tokens if asked.max_tokens is None else min(script.tokens, asked.max_tokens)
    tokens = tuple(f"{' ' if index else ''}token{index}".ljust(script.wide, ".") for index in range(count))
    return Reply(tokens, None, cut_at_limit=count < script.tokens, input_tokens=asked.input_tokens)


def _add_words(payload: dict[str, Any], words: str) -> None:
    """To each message of an error."""
    for name, value in payload.items():
        if isinstance(value, dict):
            _add_words(value, words)
        elif name == "message":
            payload[name] = f"{value}: {words}"


def _json(payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, headers=headers, body=orjson.dumps(payload), content_type="application/json", charset="utf-8"
    )


def _batched(status: int, payload: Any) -> web.Response:
    if isinstance(payload, bytes):
        return web.Response(status=status, body=payload, content_type="application/octet-stream")
    return _json(payload, status)


def _request(*parts: Any) -> web.BaseRequest:
    return web.BaseRequest(*parts, asyncio.get_running_loop(), client_max_size=_BODY)


@asynccontextmanager
async def running(host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[FakeVendor, None]:
    """A vendor that serves in this loop until the context is left; what is still open then is cut."""
    vendor = FakeVendor()
    server = web.Server(
        vendor.handle,
        request_factory=_request,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=75,
    )
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server((host, port), backlog=1024)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)  # the kernel's own, by hundreds, are a gigabyte
    site = web.SockSite(runner, listener)
    await site.start()
    vendor.port = runner.addresses[0][1]
    try:
        yield vendor
    finally:
        await runner.cleanup()
