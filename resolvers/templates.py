r"""Texts with places for variables: `{{name}}`, and nothing else. No code, no conditions, no spaces within.

`\{{` is a literal `{{`; before a `{{`, and only there, `\\` is a literal backslash. Single braces and `}}` are
themselves, and of three braces the inner two count: `{{{name}}}` is a value within braces. A value is put in as it is:
what looks like a place in it stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from persistence.config_records import Variable

from .errors import BadUserInputError

MAX_RENDERED = 1_000_000  # characters, of all that one completion has rendered
MAX_VARIABLES = 100

Path = tuple[str | int, ...]

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
# Looks behind so that a run of backslashes is met once, at its beginning.
_OPENING = re.compile(rf"(?<!\\)(?P<slashes>\\*+)\{{\{{(?!\{{)(?:(?P<name>{_NAME})\}}\}})?")


def check_variables(variables: Sequence[Variable], *, path: Path) -> None:
    """The declarations by themselves. Raises BadUserInputError."""
    if len(variables) > MAX_VARIABLES:
        raise BadUserInputError(f"at most {MAX_VARIABLES} variables, not {len(variables)}", path=path)
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        place = (*path, index, "name")
        if re.fullmatch(_NAME, variable.name) is None:
            raise BadUserInputError(
                f"a variable's name has letters, digits and _ and no digit first, up to 64: {variable.name[:100]!r}",
                path=place,
            )
        if variable.name in seen:
            raise BadUserInputError(f"the variable {variable.name!r} is declared twice", path=place)
        seen.add(variable.name)
        if variable.default is not None:
            _text(variable.name, variable.default, (*path, index, "default"))


def check_template(template: str, variables: Sequence[Variable], *, path: Path) -> None:
    """Raises BadUserInputError for a place that is malformed, or names what is not declared."""
    declared = {variable.name for variable in variables}
    for piece in _pieces(template, path):
        if isinstance(piece, _Place) and piece not in declared:
            raise BadUserInputError(f"the template names {piece!s}, which is not a declared variable", path=path)


def values_of(variables: Sequence[Variable], given: Mapping[str, Any], *, path: Path) -> Mapping[str, str]:
    """What stands in for each declared variable. A text stands for itself, all else for its JSON.

    Raises BadUserInputError, its path ending in the variable's name, for one that is not declared, one that is given
    neither here nor by default, and a null.
    """
    declared = {variable.name: variable.default for variable in variables}
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise BadUserInputError(f"unknown variable {name[:100]!r}; declared: {known}", path=(*path, name))
    values: dict[str, str] = {}
    for name, default in declared.items():
        if name not in given and default is None:
            raise BadUserInputError(f"the variable {name!r} is missing", path=(*path, name))
        values[name] = _text(name, given.get(name, default), (*path, name))
    return values


def rendered(template: str, values: Mapping[str, str], *, path: Path, most: int = MAX_RENDERED) -> str:
    """The template with every place filled. Raises BadUserInputError for what `check_template` refuses, and for a text
    of more than `most` characters, before it is built."""
    pieces: list[str] = []
    size = 0
    for piece in _pieces(template, path):
        if isinstance(piece, _Place):
            if piece not in values:
                raise BadUserInputError(f"the template names {piece!s}, which is not a declared variable", path=path)
            text = values[piece]
        else:
            text = piece
        size += len(text)
        if size > most:
            raise BadUserInputError(f"with its variables the config has more than {MAX_RENDERED} characters", path=path)
        pieces.append(text)
    return "".join(pieces)


def escaped(text: str) -> str:
    """A template whose rendering is the text."""
    return re.sub(r"(?<!\\)(\\*+)((?:\{\{)++)(?!\{)", lambda found: found[1] * 2 + r"\{{" * (len(found[2]) // 2), text)


class _Place(str):
    """The name of a variable, where its value goes."""

    __slots__ = ()


def _pieces(template: str, path: Path) -> Iterator[str]:
    end = 0
    for found in _OPENING.finditer(template):
        yield template[end : found.start()]
        slashes = len(found["slashes"])
        yield "\\" * (slashes // 2)
        name = found["name"]
        if slashes % 2:
            yield "{{" + template[found.start() + slashes + 2 : found.end()]
        elif name is not None:
            yield _Place(name)
        else:
            start = found.start() + slashes
            raise BadUserInputError(
                rf"no place for a variable: {template[start : start + 40]!r} (write {{{{name}}}}, or \{{{{ for braces)",
                path=path,
            )
        end = found.end()
    yield template[end:]


def _text(name: str, value: Any, path: Path) -> str:
    if value is None:
        raise BadUserInputError(f"the variable {name!r} is null; give it a value, or leave it out", path=path)
    if isinstance(value, str):
        text = value
    else:
        try:
            text = orjson.dumps(value).decode()
        except orjson.JSONEncodeError:
            raise BadUserInputError(f"the variable {name!r} can't be written as JSON", path=path) from None
    if len(text) > MAX_RENDERED:
        raise BadUserInputError(f"the variable {name!r} has more than {MAX_RENDERED} characters", path=path)
    return text
