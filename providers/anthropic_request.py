"""The turns of a conversation in the words of Anthropic's Messages API.

Sources: https://platform.claude.com/docs/en/api/messages, https://platform.claude.com/docs/en/build-with-claude/vision,
https://platform.claude.com/docs/en/build-with-claude/pdf-support,
https://platform.claude.com/docs/en/build-with-claude/citations,
https://platform.claude.com/docs/en/build-with-claude/prompt-caching,
https://platform.claude.com/docs/en/build-with-claude/extended-thinking (blocks that go back).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from .anthropic_errors import PROVIDER
from .anthropic_models import ClaudeModel
from .errors import UnsendableRequestError, UnsupportedFeatureError
from .interleaving import Thought, interleaved
from .types import FilePart, ImagePart, Media, Message, Part, Role, TextPart, Tool, ToolCall, ToolChoice, ToolChoiceMode

_CHOICES: Final[Mapping[ToolChoiceMode, str]] = {
    ToolChoiceMode.AUTO: "auto",
    ToolChoiceMode.NONE: "none",
    ToolChoiceMode.REQUIRED: "any",
}
_IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF: Final = "application/pdf"
_TEXT: Final = "text/plain"
_THOUGHTS: Final = ("thinking", "redacted_thinking")

_Block = dict[str, Any]


def system_of(messages: Iterable[Message]) -> list[_Block]:
    """System texts have no place among the turns; the API refuses empty text blocks."""
    return [
        _cached(message, [_text_block(message.content)])[0]
        for message in messages
        if message.role is Role.SYSTEM and message.content
    ]


def turns_of(messages: Iterable[Message], model: ClaudeModel) -> list[dict[str, Any]]:
    """Neighbours of one role are one turn: all results of a turn's tool calls belong into the very next user turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": []})
        turns[-1]["content"].extend(_cached(message, _blocks(message, model)))
    return turns


def tool_of(tool: Tool) -> _Block:
    description = {} if tool.description is None else {"description": tool.description}
    return {"name": tool.name, **description, "input_schema": {"type": "object", **tool.parameters}}


def choice_of(choice: ToolChoice) -> _Block:
    if choice.name is not None:
        return {"type": "tool", "name": choice.name}
    return {"type": _CHOICES[choice.mode]}


def _blocks(message: Message, model: ClaudeModel) -> list[_Block]:
    if message.role is Role.TOOL:
        result: _Block = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        if message.content:
            result["content"] = message.content
        return [{**result, "is_error": True} if message.is_error else result]
    if message.role is Role.ASSISTANT:
        return list(_answered(message, model)) or [_text_block("")]
    return [_part(part, model) for part in message.parts] or [_text_block(message.content or "")]


def _answered(message: Message, model: ClaudeModel) -> Iterator[_Block]:
    return interleaved(
        message.content or "", [_tool_use(call) for call in message.tool_calls], _thoughts(message, model), _text_block
    )


def signature_of(model: ClaudeModel, written: int, called: int, kind: str, secret: str) -> str:
    """What the neutral block carries for the vendor's: whose it is, where it stood, `thinking`'s signature or all that
    `redacted_thinking` holds."""
    return f"{PROVIDER}:{model.tag}:{written}:{called}:{kind}:{secret}"


def _thoughts(message: Message, model: ClaudeModel) -> Iterator[Thought]:
    """Those that this model takes back."""
    for block in message.reasoning:
        vendor, *rest = block.signature.split(":", 5)
        if vendor != PROVIDER:
            continue
        try:
            tag, written, called, kind, secret = rest
            place = int(written), int(called)
        except ValueError:
            kind, tag, secret, place = "", "", "", (0, 0)
        if kind not in _THOUGHTS:
            raise UnsendableRequestError("a reasoning block's signature is not as it came", provider=PROVIDER)
        if tag != model.tag and (model.tied or _is_tied(tag)):
            continue
        held = {"thinking": block.text, "signature": secret} if kind == "thinking" else {"data": secret}
        yield Thought(*place, {"type": kind, **held})


def _is_tied(tag: str) -> bool:
    family, *version = tag.split(".")
    return ClaudeModel(family, (int(version[0]), int(version[1])) if len(version) == 2 else None).tied


def _part(part: Part, model: ClaudeModel) -> _Block:
    if isinstance(part, TextPart):
        return _text_block(part.text)
    if isinstance(part, ImagePart):
        return {"type": "image", "source": _source(part.media, "images", _IMAGES, model)}
    return _document(part, model)


def _document(part: FilePart, model: ClaudeModel) -> _Block:
    media = part.media
    if media.media_type == _TEXT and media.data is not None:
        source = {"type": "text", "media_type": _TEXT, "data": _plain(media.data)}
    else:
        source = _source(media, "files", (_PDF,), model)
    title = {} if media.name is None else {"title": media.name}
    cited = {"citations": {"enabled": True}} if part.cite else {}
    return {"type": "document", "source": source, **title, **cited}


def _source(media: Media, kind: str, types: tuple[str, ...], model: ClaudeModel) -> _Block:
    """Raises UnsupportedFeatureError for another media type than `types`."""
    if media.media_type is not None and media.media_type not in types:
        where = "" if media.url is None else " by URL"
        feature = f"{kind} of {media.media_type}{where}"
        raise UnsupportedFeatureError(feature, provider=PROVIDER, model=model.name)
    if media.url is not None:
        return {"type": "url", "url": media.url}
    return {"type": "base64", "media_type": media.media_type, "data": media.data}


def _plain(data: str) -> str:
    try:
        return base64.b64decode(data).decode()
    except UnicodeDecodeError:
        raise UnsendableRequestError("a file of text/plain is UTF-8", provider=PROVIDER) from None


def _cached(message: Message, blocks: list[_Block]) -> list[_Block]:
    """The breakpoint goes on the last block that takes one: thinking and empty texts don't."""
    if message.cache:
        for place in reversed(range(len(blocks))):
            block = blocks[place]
            if block["type"] not in _THOUGHTS and block.get("text") != "":
                blocks[place] = {**block, "cache_control": {"type": "ephemeral"}}
                break
    return blocks


def _text_block(text: str) -> _Block:
    return {"type": "text", "text": text}


def _tool_use(call: ToolCall) -> _Block:
    try:
        arguments = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise UnsendableRequestError(f"the arguments of tool call {call.id!r} are not a JSON object", provider=PROVIDER)
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
