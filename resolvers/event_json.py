"""Events of a stream as JSON and back, for whoever comes back for them: money and times lose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import orjson
from pydantic import TypeAdapter

from .types import CompletionEvent, ReasoningProduced, TextProduced

_KINDS: dict[str, TypeAdapter[Any]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(CompletionEvent)}


def encoded(after: int, events: Sequence[CompletionEvent]) -> str:
    """A list: the sequence of the event before them, then of each [kind, fields]. Raises ValueError for what JSON can't
    hold."""
    parts = [b"%d" % after, *map(_encoded, events)]
    return (b"[" + b",".join(parts) + b"]").decode()


def decoded(text: str) -> tuple[int, list[CompletionEvent]]:
    """Raises ValueError for what another release has written, and this one doesn't know."""
    try:
        after, *events = orjson.loads(text)
        return after, [_KINDS[name].validate_python(fields) for name, fields in events]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no events of this release: {error}") from None


def _encoded(event: CompletionEvent) -> bytes:
    name = type(event).__name__
    if not isinstance(event, TextProduced | ReasoningProduced):
        return b'["%s",%s]' % (name.encode(), _KINDS[name].dump_json(event))
    try:  # most are of texts alone, which is quicker
        return b'["%s",%s]' % (name.encode(), orjson.dumps(event))
    except TypeError as error:
        raise ValueError(str(error)) from None
