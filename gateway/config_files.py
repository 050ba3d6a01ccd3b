"""Configs as files: one YAML file a config, `<slug>.yaml`. Strict to read (`strict_yaml`), and always written the
same."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, Field, JsonValue, model_validator

from resolvers.configs import SLUG

from .strict_yaml import RESOLVERS, STRICT, Resolvers, UnreadableFileError, read_yaml

SUFFIX = ".yaml"

Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Object = dict[str, JsonValue]


class ConfigFileError(Exception):
    """One line: the file, the key in it, and what is wrong there."""


class _Part(BaseModel):
    model_config = STRICT


class _Message(_Part):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class _Variable(_Part):
    name: str
    description: str | None = None
    default: JsonValue = None


class _Tool(_Part):
    name: str
    description: str | None = None
    parameters: Object = {"type": "object", "properties": {}}  # the API's own default


class _ToolChoice(_Part):
    mode: Literal["auto", "none", "required"] | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.mode is None) is (self.name is None):
            raise ValueError("either mode or name")
        return self


class FileContent(_Part):
    """What a file says, in the order in which it is written. The names are the API's."""

    model: str
    description: str = ""
    prompt: str | None = None
    messages: list[_Message] = []
    variables: list[_Variable] = []
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: Whole | None = None
    stop: list[str] = []
    seed: Whole | None = None
    tools: list[_Tool] = []
    tool_choice: _ToolChoice | None = None
    response_format: Object | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    fallbacks: list[str] = []
    timeout_ms: Whole | None = None
    cache: Object | None = None
    labels: dict[str, str] = {}
    provider_options: dict[str, Object] = {}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """From the API's ConfigContent."""
        choice = content["toolChoice"]
        if choice is not None:
            choice = {"mode": choice["mode"].lower()} if choice["name"] is None else {"name": choice["name"]}
        messages = [{**each, "role": each["role"].lower()} for each in content["messages"]]
        labels = {each["name"]: each["value"] for each in content["labels"]}
        effort = content["reasoningEffort"] and content["reasoningEffort"].lower()
        return cls.model_validate(
            {**content, "toolChoice": choice, "messages": messages, "labels": labels, "reasoningEffort": effort}
        )

    def given(self) -> dict[str, Any]:
        """As the API's ConfigContentInput."""
        given: dict[str, Any] = self.model_dump(by_alias=True, exclude_defaults=True)
        if self.messages:
            given["messages"] = [{"role": each.role.upper(), "content": each.content} for each in self.messages]
        if self.tool_choice is not None and self.tool_choice.mode is not None:
            given["toolChoice"] = {"mode": self.tool_choice.mode.upper()}
        if self.reasoning_effort is not None:
            given["reasoningEffort"] = self.reasoning_effort.upper()
        if self.labels:
            given["labels"] = [{"name": name, "value": value} for name, value in self.labels.items()]
        return given

    def text(self) -> str:
        """The file. Two contents with the same text are the same."""
        written: dict[str, Any] = self.model_dump(by_alias=True, exclude_defaults=True)
        if self.labels:
            written["labels"] = dict(sorted(self.labels.items()))
        text: str = yaml.dump(written, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)
        return text


def read_folder(folder: Path) -> tuple[dict[str, FileContent], list[ConfigFileError]]:
    """By slug, the files that can be read, and what is wrong with the others. Files that begin with a dot are left
    out."""
    contents: dict[str, FileContent] = {}
    problems: list[ConfigFileError] = []
    for path in _paths(folder, problems):
        try:
            contents[path.stem] = read_file(file_of(folder, path.stem))
        except ConfigFileError as problem:
            problems.append(problem)
    return contents, problems


def read_file(path: Path) -> FileContent:
    """Raises ConfigFileError."""
    try:
        return read_yaml(path, FileContent, such_as="model: openai/gpt-4.1")
    except UnreadableFileError as error:
        raise ConfigFileError(str(error)) from None


def file_of(folder: Path, slug: str) -> Path:
    """Raises ConfigFileError for what no config is named: it might lead out of the folder."""
    if SLUG.fullmatch(slug) is None:
        raise ConfigFileError(
            f"{folder / slug}{SUFFIX}: is not named as a config can be: lower-case letters, digits, '.', '_' and '-', "
            "up to 64"
        )
    return folder / f"{slug}{SUFFIX}"


def write_file(path: Path, content: FileContent) -> bool:
    """Whether it had to be written: one that says so already stays untouched. Raises OSError."""
    text = content.text().encode()
    if path.exists() and path.read_bytes() == text:
        return False
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_bytes(text)
    unfinished.replace(path)  # whole or not at all
    return True


def _paths(folder: Path, problems: list[ConfigFileError]) -> Iterator[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        problems.append(ConfigFileError(f"{folder}: can't be read: {error.strerror}"))
        return
    for path in paths:
        if path.suffix == ".yml":
            problems.append(ConfigFileError(f"{path}: a config's file is named <slug>{SUFFIX}"))
        elif path.suffix == SUFFIX:
            yield path


_BREAKS = ("\x85", "\u2028", "\u2029")


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if any(mark in text for mark in _BREAKS):  # which PyYAML folds where they are not escaped
        style = '"'
    elif "\n" in text:
        style = "|" if text.strip() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks. What an older YAML would not take for text is quoted too."""

    yaml_representers: ClassVar[dict[Any, Any]] = {**yaml.SafeDumper.yaml_representers, str: _text}
    yaml_implicit_resolvers: ClassVar[Resolvers] = {  # type: ignore[misc]  # the stubs say otherwise
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()), *RESOLVERS.get(first, ())]
        for first in (*yaml.SafeDumper.yaml_implicit_resolvers, *RESOLVERS)
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)
