"""Answers in JSON: which schemas may be asked for, which answers are refused, and what the caller gets of them."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from persistence.records import Outcome
from providers.types import Finished, FinishReason, ProviderCompletion, ResponseFormat, TextDelta, Usage
from resolvers.errors import BadUserInputError, CompletionFailedError
from resolvers.structured import NotAsAskedError, check_format, format_of, parsed
from resolvers.types import CompletionFailed, CompletionFinished

from .scene import Scene, only

CITY = ResponseFormat({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}, "city")
ANY = ResponseFormat()


def answer(content: str | None, reason: FinishReason = FinishReason.STOP) -> ProviderCompletion:
    return ProviderCompletion(content, finish_reason=reason)


def test_what_was_asked_for_is_parsed() -> None:
    assert parsed(CITY, answer('{"city": "Rome", "more": 1}')) == {"city": "Rome", "more": 1}
    assert parsed(ANY, answer("{}")) == {}
    assert parsed(None, answer("{}")) is None
    assert parsed(ResponseFormat({"type": "integer"}), answer("7")) == 7


@pytest.mark.parametrize("reason", sorted(set(FinishReason) - {FinishReason.STOP, FinishReason.OTHER}))
def test_an_answer_that_ended_otherwise_is_none(reason: FinishReason) -> None:
    assert parsed(CITY, answer('{"ci', reason)) is None


@pytest.mark.parametrize(
    ("asked", "content", "told"),
    [
        (CITY, None, "not JSON"),
        (CITY, "Rome", "not JSON"),
        (CITY, '{"city": 1}', "city against properties/city/type"),
        (CITY, "{}", "the whole against required"),
        (ANY, "[1]", "no object"),
        (ResponseFormat({"not": {}}), "secret-text", "not JSON"),
    ],
)
def test_another_answer_is_refused_without_its_words(asked: ResponseFormat, content: str | None, told: str) -> None:
    with pytest.raises(NotAsAskedError, match=told) as caught:
        parsed(asked, answer(content))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/nowhere"},
        {"$schema": "https://example.com/other"},
        {"pattern": "("},
    ],
)
def test_what_is_no_schema_to_use(schema: dict[str, Any]) -> None:
    with pytest.raises(BadUserInputError, match="not a JSON Schema") as caught:
        check_format(ResponseFormat(schema), path=("input",))
    assert len(caught.value.message.splitlines()) == 1


def doubling(levels: int, word: str = "anyOf") -> dict[str, Any]:
    """Twice as many subschemas at every level, in a few lines of text."""
    definitions: dict[str, Any] = {
        f"a{level}": {word: [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$defs": {**definitions, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def chain(length: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {f"a{place}": {"$ref": f"#/$defs/a{place + 1}"} for place in range(length)}
    return {"$defs": {**definitions, f"a{length}": {}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (doubling(30), "more than 10,000 subschemas"),
        ({"items": doubling(30)["$defs"]["a0"], "$defs": doubling(30)["$defs"]}, "more than 10,000 subschemas"),
        ({"enum": list(range(10_001))}, "more than 10,000 subschemas"),
        ({"$defs": {"a": {"$anchor": "here"}}, "$ref": "#here"}, "of the form #/"),
        ({"$dynamicRef": "#here"}, "of the form #/"),
        ({"properties": {"a": {"$id": "https://example.com/a"}}}, "only the whole schema has an \\$id"),
        ({"$ref": "#/$defs/a/2", "$defs": {"a": [{}]}}, "nothing at"),
        (chain(101), "more than 100 subschemas deep"),
        (chain(5_000), "more than 100 subschemas deep"),
    ],
)
def test_a_schema_that_is_too_much_work_is_refused_before_the_vendor_is_called(
    schema: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadUserInputError, match=told):
        check_format(ResponseFormat(schema), path=("input",))


@pytest.mark.parametrize(
    "schema",
    [
        doubling(11),
        doubling(11, "oneOf"),
        {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}, "definitions": {"$ref": "#"}}},
        {"$defs": {"a/b~c d": {"type": "object"}}, "$ref": "#/$defs/a~1b~0c%20d"},
        {"$id": "https://example.com/whole", "anyOf": [{"type": "object"}, {"$ref": "#"}]},
    ],
)
def test_others_are_taken(schema: dict[str, Any]) -> None:
    check_format(ResponseFormat(schema), path=("input",))


TREE = {"anyOf": [{"type": "object", "properties": {"of": {"items": {"$ref": "#"}}}}] * 2}
"""A union that leads back into itself twice: 2^60 ways through an answer of sixty levels."""


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        (doubling(11), "1"),
        ({"items": doubling(11)["$defs"]["a0"], "$defs": doubling(11)["$defs"]}, f"[{','.join(['1'] * 4000)}]"),
        ({"items": {"type": "string"}}, f"[{','.join(['1'] * 500_000)}]"),
        (TREE, '{"of": [' * 60 + "1" + "]}" * 60),
        ({"pattern": "^(?=(a+)+$)(a|aa)+$"}, f'"{"a" * 5000}b"'),
    ],
)
def test_an_answer_is_refused_within_a_second(schema: dict[str, Any], content: str) -> None:
    check_format(ResponseFormat(schema), path=("input",))
    began = time.process_time()
    with pytest.raises(NotAsAskedError):
        parsed(ResponseFormat(schema), answer(content))
    assert time.process_time() - began < 1


def test_an_answer_nested_deeper_than_ours_can_be_written() -> None:
    deep = parsed(ANY, answer('{"a":' * 199 + "{}" + "}" * 199))
    for _ in range(20):  # what an answer of ours has around it
        deep = {"data": deep}
    assert orjson.dumps(deep)
    with pytest.raises(NotAsAskedError, match="nested more than 200 deep"):
        parsed(ANY, answer('{"a":' * 201 + "{}" + "}" * 201))


def test_a_recursive_schema_holds_what_it_describes() -> None:
    content = '{"of": [' * 60 + "{}" + "]}" * 60
    assert parsed(ResponseFormat(TREE), answer(content)) is not None


def test_an_answer_too_long_for_its_schema() -> None:
    schema = {"items": doubling(11)["$defs"]["a0"], "$defs": doubling(11)["$defs"]}
    with pytest.raises(NotAsAskedError, match="too long"):
        parsed(ResponseFormat(schema), answer(f"[{','.join(['1'] * 10_000)}]"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"json": True}, ANY),
        ({"jsonSchema": {"schema": {}}}, ResponseFormat({})),
        ({"jsonSchema": {"schema": {}, "name": "n", "strict": False}}, ResponseFormat({}, "n", strict=False)),
        ({"jsonSchema": {"schema": {}, "name": None, "strict": None}}, ResponseFormat({})),
    ],
)
def test_the_format_of_a_config(value: dict[str, Any] | None, expected: ResponseFormat | None) -> None:
    assert format_of(value, path=()) == expected


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"json": False},
        {"json": True, "jsonSchema": {"schema": {}}},
        {"type": "json_object"},
        {"jsonSchema": {}},
        {"jsonSchema": {"schema": []}},
        {"jsonSchema": {"schema": {}, "name": 1}},
        {"jsonSchema": {"schema": {}, "strict": "yes"}},
        {"jsonSchema": {"schema": {}, "stric": True}},
    ],
)
def test_what_is_no_format(value: dict[str, Any]) -> None:
    with pytest.raises(BadUserInputError, match="responseFormat is"):
        format_of(value, path=())


def says(text: str) -> list[Any]:
    return [(TextDelta(text),), (Finished(FinishReason.STOP, Usage(3, 4)),)]


async def test_a_mismatch_is_a_failure_that_keeps_the_text_and_is_booked(scene: Scene) -> None:
    scene.alpha.will(says("Rome"))
    with pytest.raises(CompletionFailedError) as caught:
        await scene.complete(response_format=CITY)
    error = caught.value
    assert (error.code, error.content, error.provider, error.retryable) == (
        *("PROVIDER_BAD_RESPONSE", "Rome", "alpha"),
        True,
    )
    assert (error.usage.input_tokens, error.usage.output_tokens) == (3, 4)
    assert scene.booked("outcome", "output_tokens") == [(Outcome.SUCCEEDED, 4)]


async def test_in_a_stream_too(scene: Scene) -> None:
    scene.alpha.will(says("Rome"), says('{"city": "Rome"}'))
    failed = only(await scene.events(response_format=CITY), CompletionFailed)
    assert (failed.code, failed.content) == ("PROVIDER_BAD_RESPONSE", "Rome")
    finished = only(await scene.events(response_format=CITY), CompletionFinished)
    assert finished.completion.parsed == {"city": "Rome"}
