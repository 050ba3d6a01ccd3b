"""How much work it is to hold an answer against a JSON Schema (https://json-schema.org/draft/2020-12).

A small one whose references double at every step is as good as one of a million subschemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

MAX_DEPTH: Final = 100
"""Of subschemas in one another, references followed."""
_DEFINITIONS: Final = ("$defs", "definitions")  # count where they are referred to
_BY_NAME: Final = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_SAID: Final = ("default", "example", "examples")
_VALUES: Final = ("const", "enum", "required")
_ELSEWHERE: Final = ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor")


@dataclass(frozen=True, slots=True)
class Effort:
    """`size`: the subschemas, and values in lists, with every reference followed; one that leads back into itself
    counts once, and makes it `recursive`."""

    size: int
    recursive: bool


def effort_of(schema: Mapping[str, Any]) -> Effort:
    """Raises ValueError where a reference leads elsewhere than to a place of this document ("#", "#/…"), or they go
    deeper than MAX_DEPTH."""
    measure = _Measure(schema)
    return Effort(measure.of(schema), measure.recursive)


@dataclass(slots=True)
class _Measure:
    root: Mapping[str, Any]
    recursive: bool = False
    _known: dict[str, int] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)
    _depth: int = 0

    def of(self, schema: object) -> int:
        if self._depth == MAX_DEPTH:
            raise ValueError(f"with its references followed it is more than {MAX_DEPTH} subschemas deep")
        self._depth += 1
        size = self._subschema(schema) if isinstance(schema, Mapping) else 1
        self._depth -= 1
        return size

    def _subschema(self, schema: Mapping[str, Any]) -> int:
        if any(isinstance(schema.get(word), str) for word in _ELSEWHERE):
            raise ValueError("references are of the form #/$defs/name")
        if schema is not self.root and isinstance(schema.get("$id"), str):
            raise ValueError("only the whole schema has an $id")
        return 1 + sum(self._keyword(word, value) for word, value in schema.items())

    def _keyword(self, word: str, value: object) -> int:
        if word in _DEFINITIONS or word in _SAID:
            return 0
        if word == "$ref" and isinstance(value, str):
            return self._followed(value)
        if word in _VALUES:
            return _values(value)
        if word in _BY_NAME and isinstance(value, Mapping):
            return sum(self.of(each) for each in value.values())
        if isinstance(value, list):
            return sum(self.of(each) for each in value)
        return self.of(value) if isinstance(value, Mapping) else 0

    def _followed(self, reference: str) -> int:
        if reference in self._open:
            self.recursive = True
            return 1
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self.of(_target(self.root, reference))
            self._open.remove(reference)
        return self._known[reference]


def _target(root: Mapping[str, Any], reference: str) -> object:
    """JSON pointers, RFC 6901."""
    if reference != "#" and not reference.startswith("#/"):
        raise ValueError("references are of the form #/$defs/name")
    found: Any = root
    for step in _steps(reference):
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"there is nothing at {reference}") from None
    return found


def _steps(reference: str) -> Iterator[str]:
    for step in reference.split("/")[1:]:
        yield unquote(step).replace("~1", "/").replace("~0", "~")


def _values(value: object) -> int:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 1 + sum(_values(each) for each in inner)
