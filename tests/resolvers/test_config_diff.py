"""What two versions differ in: nothing where they are the same, and else every value by its path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from persistence.config_records import ConfigContent, TemplateMessage, Variable, encoded
from resolvers import config_diff
from resolvers.config_diff import MAX_CHANGES, Change, ConfigDiff
from tests.persistence.configs import contents

NAMES = ("version 1", "version 2")
PLAIN = ConfigContent("alpha/a-1")


def diff(before: ConfigContent, after: ConfigContent, *, names: tuple[str, str]) -> ConfigDiff:
    return config_diff.diff(encoded(before), encoded(after), names=names)


@settings(max_examples=50, deadline=None)
@given(contents, contents)
def test_there_is_a_difference_where_the_contents_differ(one: ConfigContent, other: ConfigContent) -> None:
    assert diff(one, one, names=NAMES).changes == ()
    assert diff(one, one, names=NAMES).text == ""
    there, back = diff(one, other, names=NAMES).changes, diff(other, one, names=NAMES).changes
    assert bool(there) or one == other
    assert {change.path for change in there} == {change.path for change in back}
    assert len({change.path for change in there}) == len(there)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_tokens": 5}, [Change(("maxTokens",), None, 5)]),
        ({"labels": {"max_a": "b"}}, [Change(("labels", "max_a"), None, "b")]),
        ({"stop": ("a", "b")}, [Change(("stop", 0), None, "a"), Change(("stop", 1), None, "b")]),
        ({"cache": {"a": None}}, [Change(("cache",), None, {"a": None})]),
        ({"provider_options": {"a": {}}}, [Change(("providerOptions", "a"), None, {})]),
        (
            {"variables": (Variable("x", default=1),)},
            [Change(("variables", 0), None, {"name": "x", "description": None, "default": 1})],
        ),
    ],
)
def test_changes(changes: dict[str, Any], expected: list[Change]) -> None:
    assert list(diff(PLAIN, replace(PLAIN, **changes), names=NAMES).changes) == expected


def test_a_null_is_not_the_same_as_nothing_nor_true_the_same_as_one() -> None:
    one, other = (replace(PLAIN, response_format=value) for value in ({"a": None, "b": 1}, {"b": True}))
    assert {change.path[1:] for change in diff(one, other, names=NAMES).changes} == {("a",), ("b",)}


def test_the_text() -> None:
    one = replace(PLAIN, prompt="Be brief.\nBe kind.", messages=(TemplateMessage("user", "Hi"),))
    other = replace(one, prompt="Be brief.\nBe exact.")
    assert diff(one, other, names=NAMES).text.split("\n") == [
        *("--- version 1", "+++ version 2", "@@ -1,5 +1,5 @@"),
        *(" [prompt]", " Be brief.", "-Be kind.", "+Be exact.", " [user]", " Hi"),
    ]


def test_texts_that_repeat_themselves_are_replaced_as_a_whole() -> None:
    before, after = ["a", "b"] * 499, ["b"] * 197
    one, other = (replace(PLAIN, prompt="\n".join(lines)) for lines in (before, after))
    text = diff(one, other, names=NAMES).text.split("\n")
    assert text == [
        *("--- version 1", "+++ version 2", f"@@ -1,{len(before) + 1} +1,{len(after) + 1} @@"),
        *("-[prompt]", *(f"-{line}" for line in before)),
        *("+[prompt]", *(f"+{line}" for line in after)),
    ]
    assert diff(one, one, names=NAMES).text == ""


def test_a_long_text_is_compared_line_by_line() -> None:
    lines = [f"line {number}" if number % 5 else "" for number in range(5000)]
    one, other = (replace(PLAIN, prompt="\n".join(each)) for each in (lines, [*lines[:2501], "new", *lines[2501:]]))
    text = diff(one, other, names=NAMES).text.split("\n")
    assert [line for line in text[3:] if line[0] != " "] == ["+new"]


def test_more_values_than_one_can_read_are_told_by_field() -> None:
    one = replace(PLAIN, provider_options={"alpha": {"ids": list(range(MAX_CHANGES))}})
    other = replace(PLAIN, temperature=1.0, provider_options={"alpha": {"ids": [-1] * MAX_CHANGES}})
    assert [change.path for change in diff(one, other, names=NAMES).changes] == [("temperature",), ("providerOptions",)]
    assert len(diff(one, replace(other, temperature=None), names=NAMES).changes) == MAX_CHANGES
