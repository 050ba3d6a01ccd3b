"""Configs for tests: one by hand, any content by hypothesis."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from hypothesis import strategies as st

from persistence.config_records import (
    Config,
    ConfigContent,
    ConfigTool,
    ConfigToolChoice,
    TemplateMessage,
    Variable,
    encoded,
)
from tests.persistence.entries import NOON

CONTENT = ConfigContent(
    model="openai/gpt-4.1",
    description="Answers in one line",
    prompt="You speak {{language}}.",
    messages=(TemplateMessage("user", "Of {{topic}}:"),),
    variables=(Variable("language", "What it answers in", "English"), Variable("topic")),
    temperature=0.2,
    max_tokens=100,
    stop=("\n",),
    tools=(ConfigTool("look_up", "Looks it up", {"type": "object", "properties": {}}),),
    tool_choice=ConfigToolChoice("auto"),
    response_format={"json": True},
    reasoning_effort="low",
    fallbacks=("anthropic/claude-sonnet-4-5",),
    timeout_ms=30_000,
    cache={"ttlMs": 1000},
    labels={"team": "search"},
    provider_options={"openai": {"service_tier": "flex"}},
)


def config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "id": f"cfg_{uuid4().hex}",
        "organisation": "acme",
        "slug": f"one-line-{uuid4().hex}",
        "revision": 1,
        "draft_text": encoded(changes.pop("draft", CONTENT)),
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Config(**values | changes)


texts = st.text(max_size=20)
whole = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json = st.recursive(
    st.none() | st.booleans() | whole | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, json, max_size=3)


def several(each: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(each, max_size=3).map(tuple)


contents = st.builds(
    ConfigContent,
    model=texts,
    description=texts,
    prompt=st.none() | texts,
    messages=several(st.builds(TemplateMessage, role=texts, content=texts)),
    variables=several(st.builds(Variable, name=texts, description=st.none() | texts, default=json)),
    temperature=st.none() | numbers,
    top_p=st.none() | numbers,
    max_tokens=st.none() | whole,
    stop=several(texts),
    seed=st.none() | whole,
    tools=several(st.builds(ConfigTool, name=texts, description=st.none() | texts, parameters=objects)),
    tool_choice=st.none() | st.builds(ConfigToolChoice, mode=texts, name=st.none() | texts),
    response_format=st.none() | objects,
    reasoning_effort=st.none() | texts,
    fallbacks=several(texts),
    timeout_ms=st.none() | whole,
    cache=st.none() | objects,
    labels=st.dictionaries(texts, texts, max_size=3),
    provider_options=st.dictionaries(texts, objects, max_size=3),
)
