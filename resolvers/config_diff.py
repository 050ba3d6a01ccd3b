"""What two versions of a config differ in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher, unified_diff
from itertools import chain, islice, starmap, zip_longest
from typing import Any

import orjson

from persistence.config_records import ConfigContent, decoded

MAX_CHANGES = 1000
MAX_COMPARISONS = 150_000  # of lines: some 30 ms

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
    """`changes`: down to the single values, or where these are more than MAX_CHANGES, the fields that differ.

    `text`: the prompt and the messages as a unified diff, empty where they are the same. Where finding what they share
    would take more than MAX_COMPARISONS, one text after the other.
    """

    changes: tuple[Change, ...]
    text: str


def diff(before: bytes, after: bytes, *, names: tuple[str, str]) -> ConfigDiff:
    """Of two contents as they are kept. `names` say in the text what is compared. It may take a tenth of a second."""
    was, now = orjson.loads(before), orjson.loads(after)
    fields = [((_as_in_the_api(name),), was[name], now[name]) for name in was]
    changes = tuple(islice(chain.from_iterable(starmap(_changes, fields)), MAX_CHANGES + 1))
    if len(changes) > MAX_CHANGES:
        changes = tuple(Change(*field) for field in fields if any(_changes(*field)))
    return ConfigDiff(changes, "\n".join(_text(_lines(decoded(before)), _lines(decoded(after)), names)))


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
    if _Counting(before, after).ends():
        yield from unified_diff(before, after, *names, lineterm="")
    elif before != after:
        yield from (f"--- {names[0]}", f"+++ {names[1]}", f"@@ -1,{len(before)} +1,{len(after)} @@")
        yield from (f"-{line}" for line in before)
        yield from (f"+{line}" for line in after)


class _TooManyError(Exception):
    """More than MAX_COMPARISONS."""


class _Counting(SequenceMatcher[str]):
    """`difflib`'s search for what two texts share: with lines that repeat themselves it is cubic."""

    def __init__(self, before: Sequence[str], after: Sequence[str]) -> None:
        super().__init__(None, before, after)
        self._before = before
        self._left = MAX_COMPARISONS

    def ends(self) -> bool:
        """Whether it comes to its end within MAX_COMPARISONS."""
        try:
            self.get_opcodes()
        except _TooManyError:
            return False
        return True

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        lines = self._before[alo:ahi]
        places = self.b2j  # type: ignore[attr-defined]  # where each line stands in `after`; the stubs leave it out
        self._left -= len(lines) + sum(len(places.get(line, ())) for line in lines)
        if self._left < 0:
            raise _TooManyError
        return super().find_longest_match(alo, ahi, blo, bhi)
