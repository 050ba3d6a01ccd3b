"""Requests of the chat-completions dialect, part by part.

Sources: https://platform.openai.com/docs/api-reference/chat/create,
https://platform.openai.com/docs/guides/images-vision, https://platform.openai.com/docs/guides/pdf-files (parts),
https://platform.openai.com/docs/guides/structured-outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from .types import FilePart, Media, Message, Part, ResponseFormat, Role, TextPart, Tool


def message_of(message: Message, tool_call_id: Callable[[str], str]) -> dict[str, Any]:
    """`tool_call_id` makes of a call's id what the vendor takes. A failed tool's result has no field of its own: it is
    an object that says so."""
    wire: dict[str, Any] = {"role": message.role.value, "content": message.content or ""}
    if message.parts:
        wire["content"] = [part_of(part) for part in message.parts]
    if message.tool_calls:
        wire["content"] = message.content
        wire["tool_calls"] = [
            {
                "id": tool_call_id(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.role is Role.TOOL:
        wire["tool_call_id"] = tool_call_id(message.tool_call_id or "")
    if message.is_error:
        wire["content"] = orjson.dumps({"error": message.content or ""}).decode()
    return wire


def part_of(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, FilePart):
        return {"type": "file", "file": {"filename": part.media.name or "file", "file_data": address_of(part.media)}}
    return {"type": "image_url", "image_url": {"url": address_of(part.media)}}


def address_of(media: Media) -> str:
    """Its URL, or its bytes as one (RFC 2397)."""
    return f"data:{media.media_type};base64,{media.data}" if media.url is None else media.url


def tool_of(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def response_format_of(response_format: ResponseFormat) -> dict[str, Any]:
    if response_format.schema is None:
        return {"type": "json_object"}
    schema = {"name": response_format.name, "schema": response_format.schema, "strict": response_format.strict}
    return {"type": "json_schema", "json_schema": schema}
