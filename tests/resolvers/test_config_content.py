"""The command that a config and a call make together."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

from persistence.config_records import (
    ConfigContent,
    ConfigTool,
    ConfigToolChoice,
    ConfigVersion,
    TemplateMessage,
    Variable,
    encoded,
)
from providers.types import Message, ReasoningEffort, ResponseFormat, Role, Tool, ToolChoice, ToolChoiceMode
from resolvers.config_content import command_of
from resolvers.types import CompleteCommand, ConfigCall, ConfigRef

from .scene import ALPHA, BETA

# Every field differs from its default, and from the call's: none can be forgotten on the way.
CONTENT = ConfigContent(
    model="alpha/a-1",
    prompt=r"In {{language}}, with \{{",
    messages=(TemplateMessage("user", "{{question}}"), TemplateMessage("assistant", "{{{language}}}")),
    variables=(Variable("language", default="English"), Variable("question")),
    temperature=0.5,
    top_p=0.6,
    max_tokens=7,
    stop=("s",),
    seed=8,
    response_format={"jsonSchema": {"schema": {"type": "object"}, "name": "n", "strict": False}},
    reasoning_effort="high",
    tools=(ConfigTool("f", "does", {"type": "object"}),),
    tool_choice=ConfigToolChoice("required", "f"),
    fallbacks=("beta/b-1",),
    timeout_ms=9,
    labels={"a": "config", "b": "config"},
    provider_options={"alpha": {"x": 1}},
)
VERSION = ConfigVersion("acme", "cfg_1", 3, encoded(CONTENT), datetime(2026, 3, 1, tzinfo=UTC), "key_1")
REF = ConfigRef("greet", variables={"question": "{{language}}?"})
PRESET = CompleteCommand(
    target=ALPHA,
    messages=(
        Message(Role.SYSTEM, "In English, with {{"),
        Message(Role.USER, "{{language}}?"),
        Message(Role.ASSISTANT, "{English}"),
    ),
    tools=(Tool("f", "does", {"type": "object"}),),
    tool_choice=ToolChoice(ToolChoiceMode.REQUIRED, "f"),
    temperature=0.5,
    top_p=0.6,
    max_tokens=7,
    stop=("s",),
    seed=8,
    response_format=ResponseFormat({"type": "object"}, "n", strict=False),
    reasoning_effort=ReasoningEffort.HIGH,
    fallbacks=(BETA,),
    timeout_ms=9,
    labels={"a": "config", "b": "config"},
    provider_options={"alpha": {"x": 1}},
    config="greet",
    config_version=3,
)
CALL = ConfigCall(
    config=REF,
    target=BETA,
    messages=(Message(Role.USER, "now"),),
    tools=(),
    tool_choice=ToolChoice(ToolChoiceMode.NONE),
    temperature=0.0,
    top_p=0.0,
    max_tokens=1,
    stop=(),
    seed=0,
    response_format=ResponseFormat(),
    reasoning_effort=ReasoningEffort.NONE,
    logprobs=0,
    fallbacks=(),
    timeout_ms=2,
    labels={"b": "call", "c": "call"},
    end_user="u",
    idempotency_key="k",
    provider_options={},
)


def test_what_the_config_says() -> None:
    assert command_of(VERSION, ConfigCall(REF)) == PRESET


def test_what_the_call_says_wins() -> None:
    assert command_of(VERSION, CALL) == CompleteCommand(
        target=BETA,
        messages=(*PRESET.messages, Message(Role.USER, "now")),
        tool_choice=ToolChoice(ToolChoiceMode.NONE),
        temperature=0.0,
        top_p=0.0,
        max_tokens=1,
        seed=0,
        response_format=ResponseFormat(),
        reasoning_effort=ReasoningEffort.NONE,
        logprobs=0,
        timeout_ms=2,
        labels={"a": "config", "b": "call", "c": "call"},
        end_user="u",
        idempotency_key="k",
        config="greet",
        config_version=3,
    )


def test_a_call_can_say_whatever_a_command_can() -> None:
    command = {field.name for field in fields(CompleteCommand)} - {"config_version"}
    assert {field.name for field in fields(ConfigCall)} == command
    for field in fields(CALL):
        assert getattr(CALL, field.name) is not None
