"""Configs as files: always written the same, read back as they were, and strict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config_files import ConfigFileError, FileContent, file_of, read_file, read_folder, write_file
from tests.persistence.configs import json, numbers, objects, several, texts

int32 = st.integers(-(2**31), 2**31 - 1)
lines = texts | st.text("a b\n\t\r\"'#:-{}é\u2028\x85\x00", max_size=30)


def records(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return several(st.fixed_dictionaries(fields)).map(list)


choices = st.sampled_from(["AUTO", "NONE", "REQUIRED"]).map(lambda mode: {"mode": mode, "name": None})
answers = st.fixed_dictionaries(
    {
        "model": lines,
        "description": lines,
        "prompt": st.none() | lines,
        "messages": records(role=st.sampled_from(["SYSTEM", "USER", "ASSISTANT", "TOOL"]), content=lines),
        "variables": records(name=texts, description=st.none() | lines, default=json),
        "temperature": st.none() | numbers,
        "topP": st.none() | numbers,
        "maxTokens": st.none() | int32,
        "stop": st.lists(lines, max_size=3),
        "seed": st.none() | int32,
        "tools": records(name=texts, description=st.none() | lines, parameters=objects),
        "toolChoice": st.none() | choices | texts.map(lambda name: {"mode": "REQUIRED", "name": name}),
        "responseFormat": st.none() | objects,
        "reasoningEffort": st.none() | st.sampled_from(["NONE", "MINIMAL", "LOW", "MEDIUM", "HIGH"]),
        "fallbacks": st.lists(texts, max_size=3),
        "timeoutMs": st.none() | int32,
        "cache": st.none() | objects,
        "labels": st.dictionaries(texts, lines, max_size=3).map(
            lambda labels: [{"name": name, "value": value} for name, value in labels.items()]
        ),
        "providerOptions": st.dictionaries(texts, objects, max_size=3),
    }
)
"""What the API answers with for a ConfigContent."""

PLAIN: dict[str, Any] = {
    **dict.fromkeys(("prompt", "temperature", "topP", "maxTokens", "seed", "toolChoice", "timeoutMs"), None),
    **{name: [] for name in ("messages", "variables", "stop", "tools", "fallbacks", "labels")},
    "description": "",
    "responseFormat": None,
    "reasoningEffort": None,
    "cache": None,
    "providerOptions": {},
    "model": "openai/gpt-4.1",
}


def read(folder: Path, text: str | bytes) -> FileContent:
    path = file_of(folder, "greet")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_file(path)


@given(answers)
@example({**PLAIN, "labels": [{"name": "no", "value": "1e5"}, {"name": "y", "value": "2026-01-01"}]})
@example({**PLAIN, "stop": ["\n", "", "null", "~", "012", "0x1f", "1:30", ".inf", "<<", "="]})
@example({**PLAIN, "temperature": 1e16, "topP": 1e-7, "cache": {"a": [1e300, 5e-324, -0.0, 2**63 - 1]}})
def test_every_content_is_read_back_from_its_file(
    tmp_path_factory: pytest.TempPathFactory, answer: dict[str, Any]
) -> None:
    content = FileContent.of(answer)
    again = read(tmp_path_factory.getbasetemp(), content.text())
    assert again.given() == {**content.given(), **({"labels": again.given()["labels"]} if content.labels else {})}
    assert again.labels == content.labels
    assert again.text() == content.text()


def test_the_file_is_one_for_people() -> None:
    content = FileContent.of(
        {
            **PLAIN,
            "prompt": "You speak {{language}}.\nBe brief.\n",
            "messages": [{"role": "USER", "content": "Hello\n  {{name}}"}],
            "variables": [{"name": "name", "description": None, "default": None}],
            "temperature": 1.0,
            "stop": ["\n"],
            "tools": [
                {"name": "now", "description": "é", "parameters": {"type": "object", "properties": {}}},
                {"name": "find", "description": None, "parameters": {"z": 1, "a": {"b": []}}},
            ],
            "toolChoice": {"mode": "REQUIRED", "name": "now"},
            "labels": [{"name": "tier", "value": "no"}, {"name": "team", "value": "a"}],
        }
    )
    assert content.text() == (
        """\
model: openai/gpt-4.1
prompt: |
  You speak {{language}}.
  Be brief.
messages:
  - role: user
    content: |-
      Hello
        {{name}}
variables:
  - name: name
temperature: 1.0
stop:
  - "\\n"
tools:
  - name: now
    description: é
  - name: find
    parameters:
      z: 1
      a:
        b: []
toolChoice:
  name: now
labels:
  team: a
  tier: 'no'
"""
    )


def test_what_the_api_is_given(tmp_path: Path) -> None:
    text = """
        model: openai/gpt-4.1
        temperature: 1
        messages: [{role: assistant, content: "Hi"}]
        toolChoice: {mode: auto}
        variables: [{name: day, default: 2026-01-01}, {name: on, default: no}, {name: off, default: false}]
        labels: {a: "1"}
        prompt: null
    """
    assert read(tmp_path, text).given() == {
        "model": "openai/gpt-4.1",
        "messages": [{"role": "ASSISTANT", "content": "Hi"}],
        "variables": [
            {"name": "day", "default": "2026-01-01"},
            {"name": "on", "default": "no"},
            {"name": "off", "default": False},
        ],
        "temperature": 1.0,
        "toolChoice": {"mode": "AUTO"},
        "labels": [{"name": "a", "value": "1"}],
    }


def test_line_ends_and_marks_of_another_system_are_the_same(tmp_path: Path) -> None:
    text = "model: a/b\nprompt: |\n  one\n  two\n"
    other = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert read(tmp_path, other).text() == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: a/b\ntemprature: 1", "temprature: unknown key"),
        ("model: a/b\ntop_p: 1", "top_p: unknown key"),
        ("prompt: hi", "model: is missing"),
        ("model: 7", "model: Input should be a valid string"),
        ("model: a/b\ntemperature: warm", "temperature: Input should be a valid number"),
        ("model: a/b\ntemperature: true", "temperature: Input should be a valid number"),
        ("model: a/b\nmaxTokens: 1.5", "maxTokens: Input should be a valid integer"),
        ("model: a/b\nmaxTokens: 3000000000", "maxTokens: Input should be less than 2147483648"),
        ("model: a/b\nmessages: [{role: person, content: x}]", "messages.0.role: Input should be 'system'"),
        ("model: a/b\nmessages: [{role: user}]", "messages.0.content: is missing"),
        ("model: a/b\nmessages: hello", "messages: Input should be a valid list"),
        ("model: a/b\nvariables: [{name: x, deflt: 1}]", "variables.0.deflt: unknown key"),
        ("model: a/b\ntoolChoice: {}", "toolChoice: either mode or name"),
        ("model: a/b\ntoolChoice: {mode: auto, name: x}", "toolChoice: either mode or name"),
        ("model: a/b\nlabels: {a: 1}", "labels.a: Input should be a valid string"),
        ("model: a/b\nproviderOptions: {openai: 1}", "providerOptions.openai: Input should be a valid dictionary"),
        ("model: a/b\nresponseFormat: json", "responseFormat: Input should be a valid dictionary"),
        ("model: a/b\nlabels: {1: x}", "labels: has something in it that JSON can't hold"),
        ("model: a/b\ncache: {at: !!timestamp 2026-01-01}", "line 2: a tag"),
        ("model: a/b\nmaxTokens: !!int abc", "line 2: a tag"),
        ("!!map\nmodel: a/b", "line 1: a tag"),
        ("model: a/b\nstop: ! [x]", "line 2: a tag"),
        (f"model: a/b\ncache: {{large: {'9' * 5000}}}", "has a number in it that JSON can't hold"),
        ("model: a/b\ncache: {large: 1e999}", "cache: has something in it that JSON can't hold"),
        (f"model: a/b\ncache: {{large: {2**64}}}", "cache: has something in it that JSON can't hold"),
        ('model: a/b\nprompt: "\\ud800"', "prompt: has something in it that JSON can't hold"),
        ("model: a/b\nmodel: c/d", "line 2: the key 'model' twice"),
        ("model: a/b\ncache: &x {a: 1}\nresponseFormat: *x", "line 3: an alias"),
        ("model: a/b\ncache: !!python/name:os.system", "line 2: a tag"),
        ("model: a/b\n? [x]\n: 1", "line 2: found unhashable key"),
        ("model: [", "line 1: expected the node content"),
        ("model: a\n---\nmodel: b", "line 2: but found another document"),
        ("model: \x07", "special characters are not allowed"),
        (b"model: \xff", "is not text in UTF-8"),
        ("", "is not a mapping of keys"),
        ("- model: a/b", "is not a mapping of keys"),
        ("model: a/b\ncache: " + "[" * 5000, "is nested too deep"),
        ("#" * (1024 * 1024 + 1), "has more than 1048576 bytes"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(ConfigFileError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'greet.yaml'}: {told}")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    contents, problems = read_folder(tmp_path)
    assert contents == {}
    assert [str(each) for each in problems] == [
        f"{tmp_path / name}: is not a file" for name in ("folder.yaml", "pipe.yaml")
    ]


def test_a_folder_is_read_by_the_files_names(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.c.yaml", ".hidden.yaml", "README.md"):
        (tmp_path / name).write_text("model: a/b\n")
    contents, problems = read_folder(tmp_path)
    assert (set(contents), problems) == ({"a", "b.c"}, [])
    (tmp_path / "c.yml").write_text("model: a/b\n")
    (tmp_path / "Large.yaml").write_text("model: a/b\n")
    (tmp_path / "d.yaml").mkdir()
    contents, problems = read_folder(tmp_path)
    assert set(contents) == {"a", "b.c"}
    assert [str(problem).partition(": ")[0] for problem in problems] == [
        str(tmp_path / name) for name in ("Large.yaml", "c.yml", "d.yaml")
    ]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    _, problems = read_folder(tmp_path / "none")
    assert [str(problem) for problem in problems] == [f"{tmp_path / 'none'}: can't be read: No such file or directory"]


def test_a_file_is_written_only_where_it_differs(tmp_path: Path) -> None:
    content = FileContent.of(PLAIN)
    path = file_of(tmp_path, "greet")
    assert [write_file(path, content) for _ in range(2)] == [True, False]
    assert path.read_text() == "model: openai/gpt-4.1\n"
    assert write_file(path, FileContent.of({**PLAIN, "description": "Greets"}))


@pytest.mark.parametrize("slug", ["../greet", "/tmp/greet", "Greet", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, slug: str) -> None:
    with pytest.raises(ConfigFileError):
        file_of(tmp_path, slug)


def test_any_yaml_reads_the_same_texts(tmp_path: Path) -> None:
    labels = [{"name": str(index), "value": text} for index, text in enumerate(("no", "012", "1e5", "~", "2026-01-01"))]
    text = FileContent.of({**PLAIN, "labels": labels}).text()
    assert yaml.safe_load(text)["labels"] == {each["name"]: each["value"] for each in labels}
