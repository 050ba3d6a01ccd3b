"""Templates: strict places, values put in as they are, and no surprises in between."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persistence.config_records import Variable
from resolvers.errors import BadUserInputError
from resolvers.templates import (
    MAX_RENDERED,
    MAX_VARIABLES,
    check_template,
    check_variables,
    escaped,
    rendered,
    values_of,
)

AT = ("input", "config", "variables")
HERE = ("draft", "prompt")
NAMES = [Variable("name"), Variable("x_2", "A number", 7)]

awkward = st.text(st.sampled_from("{}\\ax_ \n"), max_size=30) | st.text(max_size=30)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("Hello {{name}}!", "Hello Ada!"),
        ("{{name}}{{name}} {{x_2}}", "AdaAda 7"),
        ('{"a": {"b": {}}} } }} { {', '{"a": {"b": {}}} } }} { {'),
        ("{{{name}}}", "{Ada}"),
        ('{"name": {{x_2}}}', '{"name": 7}'),
        (r"\{{name}}", "{{name}}"),
        (r"\\{{name}}", "\\Ada"),
        (r"\\\{{name}}", r"\{{name}}"),
        (r"\{{ any thing", "{{ any thing"),
        (r"C:\dir\new \{ {name}", r"C:\dir\new \{ {name}"),
        ("{{name}}\\", "Ada\\"),
    ],
)
def test_rendered(template: str, text: str) -> None:
    check_template(template, NAMES, path=HERE)
    assert rendered(template, {"name": "Ada", "x_2": "7"}, path=HERE) == text


@pytest.mark.parametrize(
    "template",
    [
        *(r"{{", r"{{}}", r"{{_name_}", r"{{name", r"{{name}", r"{{na-me}}", r"{{2x}}", r"{{a.b}}", r"{{é}}"),
        *(r"{{x|upper}}", r"{{#x}}", r"{{nobody}}", r"\\{{", r"{{ name }}", f"{{{{{'n' * 65}}}}}"),
    ],
)
def test_refused(template: str) -> None:
    with pytest.raises(BadUserInputError) as caught:
        check_template(f"a {template} b", NAMES, path=HERE)
    assert caught.value.path == HERE
    with pytest.raises(BadUserInputError):
        rendered(f"a {template} b", {"name": "Ada"}, path=HERE)


@given(awkward)
@example("{{{{")
@example(r"\{{{{{ \\{{{{")
def test_an_escaped_text_is_that_text(text: str) -> None:
    check_template(escaped(text), [], path=HERE)
    assert rendered(escaped(text), {}, path=HERE) == text


@given(awkward, awkward, awkward)
def test_a_value_is_put_in_as_it_is(before: str, value: str, after: str) -> None:
    template = escaped(before).rstrip("\\{") + " {{name}} " + escaped(after)
    plain = rendered(escaped(before).rstrip("\\{"), {}, path=HERE)
    assert rendered(template, {"name": value}, path=HERE) == f"{plain} {value} {after}"


@given(awkward)
def test_any_text_is_a_template_or_refused(template: str) -> None:
    try:
        check_template(template, [Variable("a"), Variable("x")], path=HERE)
    except BadUserInputError:
        with pytest.raises(BadUserInputError):
            rendered(template, {"a": "1", "x": "2"}, path=HERE)
    else:
        assert isinstance(rendered(template, {"a": "1", "x": "2"}, path=HERE), str)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{{name}}", "{{name}}"),
        ("", ""),
        (3, "3"),
        (-0.5, "-0.5"),
        (True, "true"),
        ([1, "a", None], '[1,"a",null]'),
        ({"é": {}}, '{"é":{}}'),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert values_of([Variable("name", default="x")], {"name": value}, path=AT) == {"name": text}
    assert values_of([Variable("name", default=value)], {}, path=AT) == {"name": text}


@pytest.mark.parametrize(
    ("given_values", "name"),
    [
        ({}, "name"),
        ({"name": "Ada", "nome": "Ada"}, "nome"),
        ({"name": None}, "name"),
        ({"name": "Ada", "x_2": None}, "x_2"),
        ({"name": 2**70}, "name"),
        ({"name": "a" * (MAX_RENDERED + 1)}, "name"),
    ],
)
def test_a_wrong_variable_is_named(given_values: dict[str, Any], name: str) -> None:
    with pytest.raises(BadUserInputError, match=name) as caught:
        values_of(NAMES, given_values, path=AT)
    assert caught.value.path == (*AT, name)


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ([Variable("")], (0, "name")),
        ([Variable("a"), Variable("a b")], (1, "name")),
        ([Variable("a"), Variable("a")], (1, "name")),
        ([Variable("a\n")], (0, "name")),
        ([Variable("a", default=2**70)], (0, "default")),
        ([Variable(f"v{n}") for n in range(MAX_VARIABLES + 1)], ()),
    ],
)
def test_wrong_declarations(variables: list[Variable], path: tuple[str | int, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        check_variables(variables, path=("draft", "variables"))
    assert caught.value.path == ("draft", "variables", *path)


def test_right_declarations() -> None:
    check_variables([Variable("n" * 64), Variable("_"), *(Variable(f"v{n}") for n in range(98))], path=HERE)


def test_a_text_that_would_grow_too_long_is_refused_before_it_is_built() -> None:
    value = "v" * (MAX_RENDERED // 2)
    assert len(rendered("{{a}}{{a}}", {"a": value}, path=HERE)) == MAX_RENDERED
    with pytest.raises(BadUserInputError, match="more than"):
        rendered("{{a}}" * 20_000, {"a": value}, path=HERE)


@pytest.mark.parametrize("unit", ["\\", "{", "\\{", "{{a}}", r"\{{", "{{{a}}}"])
def test_long_templates_take_no_long_time(unit: str) -> None:
    started = time.process_time()
    try:
        rendered(unit * (MAX_RENDERED // 8), {"a": "x"}, path=HERE)
    except BadUserInputError:
        assert unit == "{"
    assert time.process_time() - started < 2.0
