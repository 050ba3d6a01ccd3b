"""Traces, as far as the use cases know of them: what belongs together, written as a W3C `traceparent`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Tracer(Protocol):
    def current(self) -> str | None:
        """The `traceparent` of what runs now (https://www.w3.org/TR/trace-context/); None where nothing is traced."""
        ...

    def committing(self, origins: Sequence[str | None]) -> AbstractContextManager[None]:
        """The commit of entries that are of these traces."""
        ...

    def working(self, kind: str, origins: Sequence[str]) -> AbstractContextManager[None]:
        """A worker's work at jobs of a kind, which were published in these traces."""
        ...


class Untraced:
    """Implements `Tracer`."""

    def current(self) -> str | None:
        return None

    def committing(self, origins: Sequence[str | None]) -> AbstractContextManager[None]:
        return _NOTHING

    def working(self, kind: str, origins: Sequence[str]) -> AbstractContextManager[None]:
        return _NOTHING


_NOTHING = nullcontext()
UNTRACED = Untraced()
