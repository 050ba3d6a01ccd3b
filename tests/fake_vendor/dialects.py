"""The vendors' wire formats, from the server's side. Sources are those that the codecs and transcripts name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

STARTED = 1_760_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What any vendor's request comes down to. `text` is every text in it, `prompt` the last user turn; `refused`: the
    status that the vendor answers such a request with."""

    model: str
    stream: bool
    prompt: str
    text: str
    max_tokens: int | None
    tool: str | None
    after_tool: bool
    body: Mapping[str, Any]
    refused: int | None = None

    @property
    def input_tokens(self) -> int:
        return len(self.text.split())


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, as tokens; with `tool` it is a call of that tool and the tokens are its arguments."""

    tokens: tuple[str, ...]
    tool: str | None
    cut_at_limit: bool
    input_tokens: int

    @property
    def output_tokens(self) -> int:
        return len(self.tokens)

    @property
    def text(self) -> str:
        return "".join(self.tokens)


class Dialect(Protocol):
    """`opening`, one `delta` a token and `closing` are the stream: bytes of whole server-sent events."""

    def asked(self, path: str, body: Mapping[str, Any]) -> Asked: ...
    def plain(self, asked: Asked, reply: Reply) -> dict[str, Any]: ...
    def opening(self, asked: Asked, reply: Reply) -> bytes: ...
    def delta(self, asked: Asked, reply: Reply, index: int) -> bytes: ...
    def closing(self, asked: Asked, reply: Reply) -> Iterator[bytes]: ...
    def error(self, status: int) -> dict[str, Any]: ...


def sse(payload: Mapping[str, Any], event: str | None = None) -> bytes:
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(payload) + b"\n\n"


def text_of(content: Any) -> str:
    """A message's text: a string, or the text parts of a list."""
    if isinstance(content, list):
        return " ".join(str(part.get("text", part.get("content", ""))) for part in content if isinstance(part, dict))
    return content or ""


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    """Chat completions; `vendor` says where usage stands in the stream and what an error looks like."""

    vendor: str

    def asked(self, path: str, body: Mapping[str, Any]) -> Asked:
        messages = body["messages"]
        tools = body.get("tools") or []
        users = [text_of(message.get("content")) for message in messages if message["role"] == "user"]
        return Asked(
            model=body["model"],
            stream=bool(body.get("stream")),
            prompt=users[-1] if users else "",
            text=" ".join(text_of(message.get("content")) for message in messages),
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            tool=tools[0]["function"]["name"] if tools else None,
            after_tool=messages[-1]["role"] == "tool",
            body=body,
        )

    def _usage(self, reply: Reply) -> dict[str, Any]:
        total = reply.input_tokens + reply.output_tokens
        usage: dict[str, Any] = {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": total,
        }
        if self.vendor == "openrouter":
            usage["cost"] = round(total * 1e-6, 6)
        return usage

    def _finish(self, reply: Reply) -> str:
        return "length" if reply.cut_at_limit else "tool_calls" if reply.tool else "stop"

    def plain(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None if reply.tool else reply.text}
        if reply.tool:
            message["tool_calls"] = [
                {"id": "call_1", "type": "function", "function": {"name": reply.tool, "arguments": reply.text}}
            ]
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": STARTED,
            "model": asked.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self._finish(reply)}],
            "usage": self._usage(reply),
        }

    def _chunk(self, asked: Asked, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return sse(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": STARTED,
                "model": asked.model,
                "choices": choices,
            }
            | more
        )

    def opening(self, asked: Asked, reply: Reply) -> bytes:
        if not reply.tool:
            return self._chunk(asked, {"role": "assistant", "content": ""})
        function = {"name": reply.tool, "arguments": ""}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        return self._chunk(asked, {"role": "assistant", "content": None, "tool_calls": [call]})

    def delta(self, asked: Asked, reply: Reply, index: int) -> bytes:
        token = reply.tokens[index]
        if not reply.tool:
            return self._chunk(asked, {"content": token})
        return self._chunk(asked, {"tool_calls": [{"index": 0, "function": {"arguments": token}}]})

    def closing(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        usage = self._usage(reply)
        wanted = (asked.body.get("stream_options") or {}).get("include_usage", False)
        in_last_chunk: dict[str, Any] = {}
        if self.vendor == "mistral":
            in_last_chunk = {"usage": usage}
        elif self.vendor == "groq":
            in_last_chunk = {"x_groq": {"id": "req_1", "usage": usage}}
        yield self._chunk(asked, {}, self._finish(reply), **in_last_chunk)
        if wanted or self.vendor == "openrouter":
            yield self._chunk(asked, {}, choices=[], usage=usage)
        yield b"data: [DONE]\n\n"

    def error(self, status: int) -> dict[str, Any]:
        message = f"scripted {status}"
        match self.vendor:
            case "mistral":
                return {"object": "error", "message": message, "type": "scripted", "param": None, "code": str(status)}
            case "openrouter":
                return {"error": {"code": status, "message": message}}
        return {"error": {"message": message, "type": "scripted", "param": None, "code": None}}
