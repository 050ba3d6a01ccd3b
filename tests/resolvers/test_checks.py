"""What a caller may ask: every refusal names the field, and nothing at a bound is refused."""

from __future__ import annotations

from typing import Any

import pytest

from providers.types import Credentials, Message, Role, Tool, ToolCall, ToolChoice, ToolChoiceMode
from resolvers import checks
from resolvers.checks import check_command
from resolvers.errors import BadUserInputError, ForbiddenError
from resolvers.key_pool import KeyPool
from resolvers.principal import Principal, Scope
from resolvers.routing import Vendor
from resolvers.types import Target

from .scene import ALPHA, BETA, FakeProvider, command

VENDORS = {name: Vendor(FakeProvider(name), KeyPool.of(Credentials("secret"))) for name in ("alpha", "beta")}
USER = Message(Role.USER, "hello")
CALL = ToolCall("call_1", "look_up", "{}")
NOWHERE = Target("nowhere", "m")


def tools(count: int) -> tuple[Tool, ...]:
    return tuple(Tool(f"f-{number}") for number in range(count))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tools": tools(2), "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED, "f-1")},
        {"temperature": 0, "top_p": 0, "max_tokens": 1, "timeout_ms": 1},
        {"temperature": 2.0, "top_p": 1.0, "max_tokens": 10_000_000, "timeout_ms": checks.MAX_TIMEOUT_MS},
        {"stop": ("x",) * checks.MAX_STOPS, "tools": tools(checks.MAX_TOOLS)},
        {"fallbacks": (BETA,) * checks.MAX_FALLBACKS},
        {"end_user": "u" * checks.MAX_KEY_LENGTH, "idempotency_key": "k"},
        {"labels": {f"name {n}": "v" * checks.MAX_LABEL_LENGTH for n in range(checks.MAX_LABELS)}},
        {"labels": {"empty": ""}},
        {"provider_options": {"beta": {"anything": 1}}},
        {
            "messages": (
                USER,
                Message(Role.ASSISTANT, tool_calls=(CALL,)),
                Message(Role.TOOL, "4", tool_call_id="call_1"),
            )
        },
        {"messages": (Message(Role.SYSTEM, ""), Message(Role.ASSISTANT, "and?"))},
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    check_command(command(**changes), VENDORS)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"target": NOWHERE}, ("model",)),
        ({"fallbacks": (BETA, NOWHERE)}, ("fallbacks", 1)),
        ({"fallbacks": (BETA,) * (checks.MAX_FALLBACKS + 1)}, ("fallbacks",)),
        ({"messages": ()}, ("messages",)),
        ({"messages": (USER, Message(Role.USER))}, ("messages", 1, "content")),
        ({"messages": (Message(Role.TOOL, tool_call_id="call_1"),)}, ("messages", 0, "content")),
        ({"messages": (Message(Role.USER, "x", tool_calls=(CALL,)),)}, ("messages", 0, "toolCalls")),
        ({"messages": (Message(Role.TOOL, "4"),)}, ("messages", 0, "toolCallId")),
        ({"messages": (Message(Role.USER, "x", tool_call_id="call_1"),)}, ("messages", 0, "toolCallId")),
        ({"temperature": -0.1}, ("temperature",)),
        ({"temperature": 2.1}, ("temperature",)),
        ({"temperature": float("nan")}, ("temperature",)),
        ({"top_p": float("inf")}, ("topP",)),
        ({"max_tokens": 0}, ("maxTokens",)),
        ({"timeout_ms": 0}, ("timeoutMs",)),
        ({"timeout_ms": checks.MAX_TIMEOUT_MS + 1}, ("timeoutMs",)),
        ({"stop": ("x",) * (checks.MAX_STOPS + 1)}, ("stop",)),
        ({"stop": ("x", "")}, ("stop", 1)),
        ({"tools": tools(checks.MAX_TOOLS + 1)}, ("tools",)),
        ({"tools": (Tool("f"), Tool("g"), Tool("f"))}, ("tools", 2, "name")),
        ({"tools": (Tool("look up"),)}, ("tools", 0, "name")),
        ({"tool_choice": ToolChoice(ToolChoiceMode.REQUIRED, "f")}, ("toolChoice", "name")),
        ({"tools": tools(2), "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED, "g")}, ("toolChoice", "name")),
        ({"end_user": ""}, ("endUser",)),
        ({"idempotency_key": "k" * (checks.MAX_KEY_LENGTH + 1)}, ("idempotencyKey",)),
        ({"labels": {f"name {n}": "v" for n in range(checks.MAX_LABELS + 1)}}, ("labels",)),
        ({"labels": {"": "v"}}, ("labels",)),
        ({"labels": {"n" * (checks.MAX_LABEL_LENGTH + 1): "v"}}, ("labels",)),
        ({"labels": {"n": "v" * (checks.MAX_LABEL_LENGTH + 1)}}, ("labels",)),
        ({"provider_options": {"nowhere": {}}}, ("providerOptions",)),
    ],
)
def test_refused_where_it_stands(changes: dict[str, Any], path: tuple[str | int, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        check_command(command(**changes), VENDORS)
    assert caught.value.path == ("input", *path)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"target": Target("alpha", "m" * (checks.MAX_NAME_LENGTH + 1))}, ("input", "model")),
        ({"fallbacks": (Target("beta", "m" * (checks.MAX_NAME_LENGTH + 1)),)}, ("input", "fallbacks", 0)),
        ({"tools": (Tool("f"), Tool(""))}, ("input", "tools", 1, "name")),
        ({"tools": (Tool("f", parameters=nested(1000)),)}, ("input", "tools", 0, "parameters")),
        ({"provider_options": {"alpha": nested(1000)}}, ("input", "providerOptions")),
        ({"provider_options": {"alpha": {"n": 2**64}}}, ("input", "providerOptions")),
    ],
)
def test_what_no_vendor_could_be_sent_is_refused(changes: dict[str, Any], path: tuple[str | int, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        check_command(command(**changes), VENDORS)
    assert caught.value.path == path


def test_an_unknown_provider_is_told_which_ones_are_ready() -> None:
    with pytest.raises(BadUserInputError, match="ready: alpha, beta"):
        check_command(command(target=Target("x" * 5000, "m")), VENDORS)
    with pytest.raises(BadUserInputError, match="ready: none") as caught:
        check_command(command(target=ALPHA), {})
    assert len(caught.value.message) < 300


def test_a_missing_scope_is_named() -> None:
    principal = Principal("key_1", "acme", frozenset({"usage:read"}), 0.0)
    principal.require(Scope.USAGE_READ)
    with pytest.raises(ForbiddenError, match="completions:write"):
        principal.require(Scope.COMPLETIONS_WRITE)
