"""How deep JSON may be nested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MAX_JSON_DEPTH = 64
"""What a caller gives."""
MAX_PARSED_DEPTH = 200
"""What a model gives: the writer of our answers ends at 254, and what is around it is a part of that."""


def nested_beyond(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth + 1):
        level = [inner for each in level for inner in _within(each)]
    return bool(level)


def _within(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
