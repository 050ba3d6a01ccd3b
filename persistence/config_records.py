"""Configs as they are stored. Times are aware UTC, in whole milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class TemplateMessage:
    """A turn that every completion begins with. `role` is `providers.types.Role`'s value; `content` is a template."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Variable:
    """What a template may name. Without a default a completion must give it; null is no value."""

    name: str
    description: str | None = None
    default: Any = None


@dataclass(frozen=True, slots=True)
class ConfigTool:
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigToolChoice:
    """`mode` is `providers.types.ToolChoiceMode`'s value; a `name` forces that tool."""

    mode: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigContent:
    """What a config presets. `model` and `fallbacks` are "provider/model"; `prompt` is the template of a system message
    that stands before `messages`; `reasoning_effort` is `providers.types.ReasoningEffort`'s value; `response_format`,
    `cache` and `provider_options` are JSON."""

    model: str
    description: str = ""
    prompt: str | None = None
    messages: tuple[TemplateMessage, ...] = ()
    variables: tuple[Variable, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[ConfigTool, ...] = ()
    tool_choice: ConfigToolChoice | None = None
    response_format: Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    fallbacks: tuple[str, ...] = ()
    timeout_ms: int | None = None
    cache: Mapping[str, Any] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    provider_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """A named preset. `slug` is lower case, unique in the organisation and never changes; `revision` rises by one with
    every write; `published` is the number of the version that completions get. `draft_text` is as `encoded` writes."""

    id: str
    organisation: str
    slug: str
    revision: int
    draft_text: bytes
    created_at: datetime
    updated_at: datetime
    published: int | None = None
    archived_at: datetime | None = None

    @cached_property
    def draft(self) -> ConfigContent:
        """Read when it is asked for: most lists do not."""
        return decoded(self.draft_text)


@dataclass(frozen=True)
class ConfigVersion:
    """What was published, for good. Numbers count from 1 without a gap. `text` is as `encoded` writes."""

    organisation: str
    config_id: str
    number: int
    text: bytes
    created_at: datetime
    created_by: str

    @cached_property
    def content(self) -> ConfigContent:
        return decoded(self.text)


@dataclass(frozen=True, slots=True)
class ConfigFilter:
    """All given conditions hold at once; model and labels are the draft's. `label` is (name, value); `search` is a part
    of the slug or of the draft's description, in any case."""

    archived: bool | None = None
    label: tuple[str, str] | None = None
    model: str | None = None
    search: str | None = None


class ConfigOrder(StrEnum):
    """UPDATED: what was written last comes first. SLUG: from A to Z, by code point."""

    UPDATED = "updated"
    SLUG = "slug"


@dataclass(frozen=True, slots=True)
class ConfigCursor:
    """A place in a list of configs: strictly behind this one. The order SLUG needs no time."""

    slug: str
    updated_at: datetime | None = None


def encoded(content: ConfigContent) -> bytes:
    """JSON, an object with the fields' names. Raises ValueError for what JSON can't hold: a lone surrogate, a whole
    number beyond 64 bits, a value nested more than some 250 deep."""
    try:
        return orjson.dumps(content, default=_object)
    except TypeError as error:
        raise ValueError(f"a config's content can't be written as JSON: {error}") from error


def decoded(text: str | bytes) -> ConfigContent:
    """What `encoded` wrote."""
    values = orjson.loads(text)
    choice = values["tool_choice"]
    values.update(
        messages=tuple(TemplateMessage(**each) for each in values["messages"]),
        variables=tuple(Variable(**each) for each in values["variables"]),
        tools=tuple(ConfigTool(**each) for each in values["tools"]),
        tool_choice=None if choice is None else ConfigToolChoice(**choice),
        stop=tuple(values["stop"]),
        fallbacks=tuple(values["fallbacks"]),
    )
    return ConfigContent(**values)


def _object(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
