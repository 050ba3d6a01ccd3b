"""The wire formats of the vendors that have their own: Anthropic's Messages and Gemini's generateContent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from .dialects import Asked, Reply, sse, text_of

_ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_SIGNATURE = "c2lnbmF0dXJl"
_SIGNATURES = (_SIGNATURE, "skip_thought_signature_validator")
_GEMINI_ERRORS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class AnthropicDialect:
    def asked(self, path: str, body: Mapping[str, Any]) -> Asked:
        messages = body["messages"]
        tools = body.get("tools") or []
        last = messages[-1]["content"]
        users = [text for message in messages if message["role"] == "user" if (text := text_of(message["content"]))]
        return Asked(
            model=body["model"],
            stream=bool(body.get("stream")),
            prompt=users[-1] if users else "",
            text=" ".join([text_of(body.get("system")), *(text_of(message["content"]) for message in messages)]),
            max_tokens=body["max_tokens"],
            tool=tools[0]["name"] if tools else None,
            after_tool=isinstance(last, list) and any(part["type"] == "tool_result" for part in last),
            body=body,
        )

    def _stop_reason(self, reply: Reply) -> str:
        return "max_tokens" if reply.cut_at_limit else "tool_use" if reply.tool else "end_turn"

    def _usage(self, reply: Reply, output_tokens: int) -> dict[str, int]:
        return {
            "input_tokens": reply.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output_tokens,
        }

    def plain(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "text", "text": reply.text}
        if reply.tool:
            block = {"type": "tool_use", "id": "toolu_1", "name": reply.tool, "input": orjson.loads(reply.text)}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [block],
            "stop_reason": self._stop_reason(reply),
            "stop_sequence": None,
            "usage": self._usage(reply, reply.output_tokens),
        }

    def opening(self, asked: Asked, reply: Reply) -> bytes:
        message = self.plain(asked, reply) | {"content": [], "stop_reason": None, "usage": self._usage(reply, 1)}
        block: dict[str, Any] = {"type": "text", "text": ""}
        if reply.tool:
            block = {"type": "tool_use", "id": "toolu_1", "name": reply.tool, "input": {}}
        return b"".join(
            (
                sse({"type": "message_start", "message": message}, "message_start"),
                sse({"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start"),
                sse({"type": "ping"}, "ping"),
            )
        )

    def delta(self, asked: Asked, reply: Reply, index: int) -> bytes:
        token = reply.tokens[index]
        delta = {"type": "text_delta", "text": token}
        if reply.tool:
            delta = {"type": "input_json_delta", "partial_json": token}
        return sse({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")

    def closing(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        yield sse({"type": "content_block_stop", "index": 0}, "content_block_stop")
        delta = {"stop_reason": self._stop_reason(reply), "stop_sequence": None}
        usage = {"output_tokens": reply.output_tokens}
        yield sse({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta")
        yield sse({"type": "message_stop"}, "message_stop")

    def error(self, status: int) -> dict[str, Any]:
        kind = _ANTHROPIC_ERRORS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": f"scripted {status}"}, "request_id": "req_1"}


def _unsigned(turn: Mapping[str, Any]) -> bool:
    """Whether a turn's first function call lacks its signature, which Gemini 3 refuses."""
    calls = [part for part in turn["parts"] if "functionCall" in part]
    return bool(calls) and calls[0].get("thoughtSignature") not in _SIGNATURES


class GeminiDialect:
    def asked(self, path: str, body: Mapping[str, Any]) -> Asked:
        model, _, method = path.rpartition("/models/")[2].partition(":")
        contents = body["contents"]
        declared = [each for tool in body.get("tools") or [] for each in tool.get("functionDeclarations", [])]
        users = [text for turn in contents if turn.get("role") != "model" if (text := text_of(turn["parts"]).strip())]
        system = text_of((body.get("systemInstruction") or {}).get("parts"))
        return Asked(
            model=model,
            stream=method.startswith("streamGenerateContent"),
            prompt=users[-1] if users else "",
            text=" ".join([system, *(text_of(turn["parts"]) for turn in contents)]),
            max_tokens=(body.get("generationConfig") or {}).get("maxOutputTokens"),
            tool=declared[0]["name"] if declared else None,
            after_tool=any("functionResponse" in part for part in contents[-1]["parts"]),
            body=body,
            refused=400 if any(map(_unsigned, contents)) else None,
        )

    def _answer(self, asked: Asked, reply: Reply, parts: list[dict[str, Any]], produced: int, *, last: bool) -> Any:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if last:
            candidate["finishReason"] = "MAX_TOKENS" if reply.cut_at_limit else "STOP"
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": reply.input_tokens,
                "candidatesTokenCount": produced,
                "totalTokenCount": reply.input_tokens + produced,
            },
            "modelVersion": asked.model,
            "responseId": "response-1",
        }

    def _call(self, reply: Reply) -> dict[str, Any]:
        call = {"name": reply.tool, "args": orjson.loads(reply.text)}
        return {"functionCall": call, "thoughtSignature": _SIGNATURE}

    def plain(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        part = self._call(reply) if reply.tool else {"text": reply.text}
        answer: dict[str, Any] = self._answer(asked, reply, [part], reply.output_tokens, last=True)
        return answer

    def opening(self, asked: Asked, reply: Reply) -> bytes:
        return b""

    def delta(self, asked: Asked, reply: Reply, index: int) -> bytes:
        if reply.tool:  # a function call is never split
            return b""
        return sse(self._answer(asked, reply, [{"text": reply.tokens[index]}], index + 1, last=False))

    def closing(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        part = self._call(reply) if reply.tool else {"text": ""}
        yield sse(self._answer(asked, reply, [part], reply.output_tokens, last=True))

    def error(self, status: int) -> dict[str, Any]:
        kind = _GEMINI_ERRORS.get(status, "UNKNOWN")
        return {"error": {"code": status, "message": f"scripted {status}", "status": kind}}
