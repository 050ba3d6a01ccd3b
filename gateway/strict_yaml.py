"""Files that people write, read strictly: YAML as in version 1.2's JSON schema
(https://yaml.org/spec/1.2.2/#102-json-schema): `no`, `2026-01-01` and `012` are texts. Without aliases, tags and keys
given twice.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

MAX_FILE_BYTES = 1024 * 1024

Resolvers = dict[str, list[tuple[str, re.Pattern[str]]]]


class UnreadableFileError(Exception):
    """One line: the file, the key in it, and what is wrong there."""


STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, alias_generator=to_camel)
"""Of what a mapping in a file may hold: these keys and no others, each of its own type."""

_Content = TypeVar("_Content", bound=BaseModel)


def read_yaml(path: Path, kind: type[_Content], *, such_as: str) -> _Content:
    """`such_as`: a line that such a file may have. Raises UnreadableFileError."""
    try:
        if not path.is_file():
            raise UnreadableFileError(f"{path}: is not a file")
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise UnreadableFileError(f"{path}: has more than {MAX_FILE_BYTES} bytes")
        document = yaml.load(text.decode("utf-8-sig"), Loader=_Loader)  # noqa: S506  # a SafeLoader, and stricter
        if not isinstance(document, dict):
            raise UnreadableFileError(f"{path}: is not a mapping of keys such as `{such_as}`")
        _check_json(path, document)
        return kind.model_validate(document)
    except OSError as error:
        raise UnreadableFileError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnreadableFileError(f"{path}: is not text in UTF-8") from None
    except ValidationError as error:
        raise UnreadableFileError(f"{path}: {_first(error)}") from None
    except ValueError:  # of int(): https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
        raise UnreadableFileError(f"{path}: has a number in it that JSON can't hold") from None
    except yaml.YAMLError as error:
        raise UnreadableFileError(f"{path}: {_where(error)}") from None
    except RecursionError:
        raise UnreadableFileError(f"{path}: is nested too deep") from None


def _check_json(path: Path, document: dict[Any, Any]) -> None:
    """What YAML can say and JSON can't: a date, a number too large, a key that is no text."""
    for key, value in document.items():
        try:
            same = orjson.loads(orjson.dumps(value)) == value
        except orjson.JSONEncodeError:
            same = False
        if not same:
            raise UnreadableFileError(f"{path}: {key}: has something in it that JSON can't hold")


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "is not YAML"
    return str(problem) if mark is None else f"line {mark.line + 1}: {problem}"


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    told = {"extra_forbidden": "unknown key", "missing": "is missing"}
    message = told.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(str(part) for part in first['loc'])}: {message}"


_SCALARS = (
    ("null", re.compile(r"(?:null|~|)\Z"), ["n", "~", ""]),
    ("bool", re.compile(r"(?:true|false)\Z"), ["t", "f"]),
    ("int", re.compile(r"-?(?:0|[1-9][0-9]*)\Z"), list("-0123456789")),
    ("float", re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z"), list("-0123456789")),
)
RESOLVERS = {
    first: [(f"tag:yaml.org,2002:{tag}", pattern) for tag, pattern, firsts in _SCALARS if first in firsts]
    for first in ("", *"~ntf-0123456789")
}
"""How a plain text is told from the other scalars, by its first character."""


class _Loader(yaml.SafeLoader):
    """As the module says."""

    yaml_implicit_resolvers: ClassVar[Resolvers] = RESOLVERS  # type: ignore[misc]  # the stubs say otherwise

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs say nothing of it
            raise yaml.composer.ComposerError(None, None, "an alias: write out what it stands for", mark)
        if getattr(self.peek_event(), "tag", None) is not None:  # type: ignore[no-untyped-call]  # as above
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # as above
            raise yaml.composer.ComposerError(None, None, "a tag: leave it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # else it is refused below
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} twice", key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep=deep)
