"""What is kept of an item is what was asked, and what was answered."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from providers.types import (
    FilePart,
    ImagePart,
    Media,
    Message,
    ReasoningBlock,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from resolvers.batches.json_texts import command_of, command_text
from resolvers.types import CompleteCommand, Target

words = st.text(max_size=8)
json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=5,
)
objects = st.dictionaries(words, json, max_size=2)
media = st.builds(Media, *[st.none() | words] * 4)
parts = st.builds(TextPart, words) | st.builds(ImagePart, media) | st.builds(FilePart, media, st.booleans())


def several(each: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(each, max_size=2).map(tuple)


messages = st.builds(
    Message,
    role=st.sampled_from(Role),
    content=st.none() | words,
    tool_calls=several(st.builds(ToolCall, words, words, words, st.none() | words)),
    tool_call_id=st.none() | words,
    parts=several(parts),
    is_error=st.booleans(),
    reasoning=several(st.builds(ReasoningBlock, words, words)),
    cache=st.booleans(),
)
commands = st.builds(
    CompleteCommand,
    target=st.builds(Target, words, words),
    messages=several(messages),
    tools=several(st.builds(Tool, words, st.none() | words, objects)),
    tool_choice=st.none() | st.from_type(ToolChoice),
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 9),
    stop=several(words),
    response_format=st.none() | st.builds(ResponseFormat, st.none() | objects, words, st.booleans()),
    fallbacks=several(st.builds(Target, words, words)),
    labels=st.dictionaries(words, words, max_size=2),
    provider_options=st.dictionaries(words, objects, max_size=2),
)


@given(commands)
def test_a_command_comes_back_as_it_was(command: CompleteCommand) -> None:
    assert command_of(command_text(command)) == command
