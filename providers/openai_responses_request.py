"""Requests of OpenAI's Responses API.

Sources: https://platform.openai.com/docs/api-reference/responses/create,
https://platform.openai.com/docs/guides/reasoning (effort, summaries, items that go back encrypted),
https://platform.openai.com/docs/guides/pdf-files (files by their address),
https://platform.openai.com/docs/guides/structured-outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from .errors import UnsendableRequestError, UnsupportedFeatureError
from .interleaving import Block, Thought, interleaved
from .openai_request import address_of
from .types import (
    CompletionRequest,
    FilePart,
    Message,
    Part,
    ReasoningEffort,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolChoice,
)

_FIRST_OF_FIVE = re.compile(r"gpt-5(?:-(?:mini|nano|pro|codex)\b.*|-\d{4}.*)?")
_BEFORE_FIVE = re.compile(r"o\d|codex-")


def responses_body(request: CompletionRequest, provider: str) -> dict[str, Any]:
    """Nothing is kept at the vendor's, so reasoning comes back encrypted. `options` go over the body; their `reasoning`
    and `text` over ours key by key, and their `include` beside ours. Raises UnsupportedFeatureError,
    UnsendableRequestError."""
    include = ["reasoning.encrypted_content"]
    if request.logprobs is not None:
        include.append("message.output_text.logprobs")
    fields: dict[str, Any] = {
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": None if request.tool_choice is None else _choice(request.tool_choice),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_tokens,
        "reasoning": _reasoning(request.reasoning_effort, request.model),
        "text": None if request.response_format is None else {"format": _format(request.response_format)},
        "top_logprobs": request.logprobs or None,
        "safety_identifier": request.end_user,
    }
    body = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message, provider)],
        "store": False,
        "include": include,
        **{name: value for name, value in fields.items() if value is not None},
    }
    return {**body, **{name: _over(body.get(name), value) for name, value in request.options.items()}}


def check_settings(request: CompletionRequest, provider: str) -> None:
    """Models that always think have no sampling to set (https://platform.openai.com/docs/guides/latest-model). Raises
    UnsupportedFeatureError."""
    if not _always_thinks(request.model):
        return
    asked = (
        ("temperature", request.temperature not in (None, 1)),
        ("topP", request.top_p not in (None, 1)),
        ("logprobs", request.logprobs is not None),
        ("reasoningEffort none", request.reasoning_effort is ReasoningEffort.NONE),
    )
    for feature, met in asked:
        if met:
            raise UnsupportedFeatureError(feature, provider=provider, model=request.model)


def _always_thinks(model: str) -> bool:
    return _FIRST_OF_FIVE.fullmatch(model) is not None or _BEFORE_FIVE.match(model) is not None


def _over(ours: Any, theirs: Any) -> Any:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return {**ours, **theirs}
    if isinstance(ours, list) and isinstance(theirs, list):
        return ours + [each for each in theirs if each not in ours]
    return theirs


def _reasoning(effort: ReasoningEffort | None, model: str) -> dict[str, Any] | None:
    """`minimal` is a word of the first GPT-5 alone; later models, which took `none` in its place, have `low`."""
    if effort is None:
        return None
    if effort is ReasoningEffort.NONE:
        return {"effort": "none"}
    if effort is ReasoningEffort.MINIMAL and _FIRST_OF_FIVE.fullmatch(model) is None:
        effort = ReasoningEffort.LOW
    return {"effort": effort.value, "summary": "auto"}


def _format(response_format: ResponseFormat) -> dict[str, Any]:
    if response_format.schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": response_format.name,
        "schema": response_format.schema,
        "strict": response_format.strict,
    }


def _tool(tool: Tool) -> dict[str, Any]:
    """Left to itself the API would rewrite a schema to its strict subset."""
    described = {} if tool.description is None else {"description": tool.description}
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "name": tool.name, **described, "parameters": parameters, "strict": False}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    return choice.mode.value if choice.name is None else {"type": "function", "name": choice.name}


def _items(message: Message, provider: str) -> Iterable[Block]:
    if message.role is Role.TOOL:
        output = message.content or ""
        told = orjson.dumps({"error": output}).decode() if message.is_error else output
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": told}]
    if message.role is Role.ASSISTANT:
        calls = [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
            for call in message.tool_calls
        ]
        return list(interleaved(message.content or "", calls, _thoughts(message, provider), _said)) or [_said("")]
    if message.parts:
        return [{"role": message.role.value, "content": [_part(part) for part in message.parts]}]
    return [{"role": message.role.value, "content": message.content or ""}]


def _said(text: str) -> Block:
    return {"role": "assistant", "content": text}


def _part(part: Part) -> Block:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    media = part.media
    if not isinstance(part, FilePart):
        return {"type": "input_image", "image_url": address_of(media), "detail": "auto"}
    if media.url is not None:
        return {"type": "input_file", "file_url": media.url}
    return {"type": "input_file", "filename": media.name or "file", "file_data": address_of(media)}


def signature_of(provider: str, written: int, called: int, item: Mapping[str, Any]) -> str:
    """What the neutral block carries for the vendor's item: whose it is, where it stood, and what opens it."""
    kept = {"id": item.get("id"), "encrypted_content": item.get("encrypted_content")}
    return f"{provider}:{written}:{called}:{orjson.dumps(kept).decode()}"


def _thoughts(message: Message, provider: str) -> Iterator[Thought]:
    for block in message.reasoning:
        vendor, _, rest = block.signature.partition(":")
        if vendor != provider:
            continue
        try:
            written, called, kept = rest.split(":", 2)
            item = {"type": "reasoning", **orjson.loads(kept)}
            place = int(written), int(called)
        except (ValueError, TypeError):
            raise UnsendableRequestError("a reasoning block's signature is not as it came", provider=provider) from None
        summary = [{"type": "summary_text", "text": block.text}] if block.text else []
        yield Thought(*place, {**item, "summary": summary})
