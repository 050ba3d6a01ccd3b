"""What two versions of a config differ in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import zip_longest
from typing import Any

import orjson

from persistence.config_records import ConfigContent, encoded

MAX_MATCHED_LINES = 1000  # finding the common lines of longer texts takes too long

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """A field as the API names it, down to the value that differs: ("labels", "team"), ("stop", 0). `before` and
    `after` are JSON; None where there is no such value."""

    path: tuple[str | int, ...]
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """`text`: the prompt and the messages as a unified diff, empty where they are the same."""

    changes: tuple[Change, ...]
    text: str


def diff(before: ConfigContent, after: ConfigContent, *, names: tuple[str, str]) -> ConfigDiff:
    """`names` say in the text what is compared."""
    was, now = orjson.loads(encoded(before)), orjson.loads(encoded(after))
    changes = [change for name in was for change in _changes((_as_in_the_api(name),), was[name], now[name])]
    return ConfigDiff(tuple(changes), "\n".join(_text(_lines(before), _lines(after), names)))


def _changes(path: tuple[str | int, ...], before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _changes((*path, key), before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(zip_longest(before, after, fillvalue=_ABSENT)):
            yield from _changes((*path, index), one, other)
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):
        yield Change(path, *(None if each is _ABSENT else each for each in (before, after)))


def _as_in_the_api(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def _lines(content: ConfigContent) -> list[str]:
    lines = [] if content.prompt is None else ["[prompt]", *content.prompt.split("\n")]
    for message in content.messages:
        lines += [f"[{message.role}]", *message.content.split("\n")]
    return lines


def _text(before: Sequence[str], after: Sequence[str], names: tuple[str, str]) -> Iterator[str]:
    if max(len(before), len(after)) <= MAX_MATCHED_LINES:
        yield from unified_diff(before, after, *names, lineterm="")
    elif before != after:
        yield from (f"--- {names[0]}", f"+++ {names[1]}", f"@@ -1,{len(before)} +1,{len(after)} @@")
        yield from (f"-{line}" for line in before)
        yield from (f"+{line}" for line in after)
