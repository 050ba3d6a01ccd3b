"""OpenAI's Responses API, as the fake vendor speaks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .dialects import STARTED, Asked, Reply, sse


class ResponsesDialect:
    def asked(self, path: str, body: Mapping[str, Any]) -> Asked:
        items = body["input"]
        tools = body.get("tools") or []
        users = [_text(item["content"]) for item in items if item.get("role") == "user"]
        return Asked(
            model=body["model"],
            stream=bool(body.get("stream")),
            prompt=users[-1] if users else "",
            text=" ".join(_text(item.get("content") or item.get("output")) for item in items),
            max_tokens=body.get("max_output_tokens"),
            tool=tools[0]["name"] if tools else None,
            after_tool=items[-1].get("type") == "function_call_output",
            body=body,
        )

    def plain(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        return self._response(asked, reply, [_item(reply)])

    def _response(self, asked: Asked, reply: Reply, output: list[Any], *, ended: bool = True) -> dict[str, Any]:
        usage = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
        status = "incomplete" if reply.cut_at_limit else "completed"
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": STARTED,
            "model": asked.model,
            "status": status if ended else "in_progress",
            "incomplete_details": {"reason": "max_output_tokens"} if ended and reply.cut_at_limit else None,
            "error": None,
            "output": output,
            "usage": usage if ended else None,
        }

    def opening(self, asked: Asked, reply: Reply) -> bytes:
        created = _event("response.created", response=self._response(asked, reply, [], ended=False))
        return created + _event("response.output_item.added", output_index=0, item=_item(reply, whole=False))

    def delta(self, asked: Asked, reply: Reply, index: int) -> bytes:
        kind = "response.function_call_arguments.delta" if reply.tool else "response.output_text.delta"
        return _event(kind, output_index=0, delta=reply.tokens[index])

    def closing(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        yield _event("response.output_item.done", output_index=0, item=_item(reply))
        ended = self._response(asked, reply, [_item(reply)])
        yield _event(f"response.{ended['status']}", response=ended)

    def error(self, status: int) -> dict[str, Any]:
        return {"error": {"message": f"scripted {status}", "type": "scripted", "param": None, "code": None}}


def _item(reply: Reply, *, whole: bool = True) -> dict[str, Any]:
    if reply.tool:
        arguments = reply.text if whole else ""
        return {"type": "function_call", "call_id": "call_1", "name": reply.tool, "arguments": arguments}
    content = [{"type": "output_text", "text": reply.text, "annotations": []}] if whole else []
    return {"type": "message", "role": "assistant", "content": content}


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return content or ""


RESPONSES = ResponsesDialect()
