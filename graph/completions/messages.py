"""The turns of a conversation as they are given, and their translation."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import strawberry

from graph.inputs import planned
from providers import types as provider_types


@strawberry.enum(description="Who speaks.")
class Role(Enum):
    SYSTEM = strawberry.enum_value("system", description="Instructions for the model.")
    USER = strawberry.enum_value("user", description="The person, or program, that asks.")
    ASSISTANT = strawberry.enum_value("assistant", description="The model, in an earlier turn.")
    TOOL = strawberry.enum_value("tool", description="The result of a tool call.")


@planned
@strawberry.input(description="A tool call of an earlier turn, as the model asked for it.")
class ToolCallInput:
    id: strawberry.ID = strawberry.field(description="As in Completion.toolCalls.")
    name: str = strawberry.field(description="The tool's name.")
    arguments: str = strawberry.field(description="JSON text.")
    signature: str | None = strawberry.field(default=strawberry.UNSET, description="As in Completion.toolCalls.")


@planned
@strawberry.input(description="An image or a file: its bytes, or where the vendor fetches it.")
class MediaInput:
    url: str | None = strawberry.field(
        default=strawberry.UNSET, description="Where the vendor fetches it, http or https. Either this or `data`."
    )
    data: str | None = strawberry.field(default=strawberry.UNSET, description="Its bytes, in base64.")
    media_type: str | None = strawberry.field(
        default=strawberry.UNSET, description='Such as "image/png" or "application/pdf". Required with `data`.'
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="A file's name.")

    def media(self) -> provider_types.Media:
        return provider_types.Media(self.url, self.data, self.media_type, self.name)


@planned
@strawberry.input(description="A document, such as a PDF.")
class FileInput(MediaInput):
    cite: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether Completion.citations say which passages of it the answer rests on, where the vendor has "
        "that.",
    )


@planned
@strawberry.input(one_of=True, description="A part of a message.")
class PartInput:
    text: str | None = strawberry.field(default=strawberry.UNSET, description="Text.")
    image: MediaInput | None = strawberry.field(default=strawberry.UNSET, description="An image.")
    file: FileInput | None = strawberry.field(default=strawberry.UNSET, description="A document, such as a PDF.")

    def part(self) -> provider_types.Part:
        if self.image is not None:
            return provider_types.ImagePart(self.image.media())
        if self.file is not None:
            return provider_types.FilePart(self.file.media(), bool(self.file.cite))
        return provider_types.TextPart(self.text or "")


@planned
@strawberry.input(description="A block of an earlier answer's reasoning, as it was in Completion.reasoningBlocks.")
class ReasoningBlockInput:
    text: str = strawberry.field(description="As it was.")
    signature: str = strawberry.field(description="As it was.")


@planned
@strawberry.input(description="One turn of the conversation.")
class MessageInput:
    role: Role = strawberry.field(description="Who speaks.")
    content: str | None = strawberry.field(
        default=strawberry.UNSET, description="The text; a tool's result, for role TOOL."
    )
    parts: list[PartInput] | None = strawberry.field(
        default=strawberry.UNSET, description="For role USER, in place of content: text, images and files. Up to 100."
    )
    tool_calls: list[ToolCallInput] | None = strawberry.field(
        default=strawberry.UNSET, description="For role ASSISTANT: the calls that it asked for."
    )
    tool_call_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="For role TOOL, and there required: the call that this is the result of."
    )
    is_error: bool | None = strawberry.field(
        default=strawberry.UNSET, description="For role TOOL: the tool failed, and the content says how."
    )
    reasoning: list[ReasoningBlockInput] | None = strawberry.field(
        default=strawberry.UNSET, description="For role ASSISTANT: Completion.reasoningBlocks, in their order."
    )
    cache: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether the vendor may keep the conversation up to here in its prompt cache. What it costs, the "
        "vendor's prices say.",
    )


def messages_of(messages: Sequence[MessageInput] | None) -> tuple[provider_types.Message, ...]:
    return tuple(_message(message) for message in messages or ())


def _message(message: MessageInput) -> provider_types.Message:
    return provider_types.Message(
        role=provider_types.Role[message.role.name],
        content=message.content,
        parts=tuple(part.part() for part in message.parts or ()),
        tool_calls=tuple(
            provider_types.ToolCall(call.id, call.name, call.arguments, call.signature)
            for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
        is_error=bool(message.is_error),
        reasoning=tuple(
            provider_types.ReasoningBlock(block.text, block.signature) for block in message.reasoning or ()
        ),
        cache=bool(message.cache),
    )
