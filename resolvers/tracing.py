"""Traces, as far as the use cases know of them: what belongs together, written as a W3C `traceparent`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from persistence.batch_records import Batch

if TYPE_CHECKING:
    from .types import Target

ONE_TRACE_AT_MOST = 1_000
"""Items of a batch that is one trace with its submission. In a larger one each publishing of tickets, with the work at
them, and each call to the vendor's batch API is a trace of its own, with a link: backends cut off traces that grow on.
"""


class VendorStep(StrEnum):
    """What a vendor's batch API is asked for."""

    UPLOAD = "upload"
    POLL = "poll"
    COLLECT = "collect"


class Tracer(Protocol):
    def current(self) -> str | None:
        """The `traceparent` of what runs now (https://www.w3.org/TR/trace-context/); where nothing is traced the
        caller's own, or None."""
        ...

    def committing(self, origins: Sequence[str | None]) -> AbstractContextManager[None]:
        """The commit of entries that are of these traces."""
        ...

    def working(self, kind: str, origins: Sequence[str]) -> AbstractContextManager[None]:
        """A worker's work at jobs of a kind, which were published in these traces."""
        ...

    def sending(self, kind: str, batch: Batch, count: int) -> AbstractContextManager[str | None]:
        """The publishing of so many jobs of a kind for a batch. Gives the `traceparent` that they carry."""
        ...

    def at_vendor(self, step: VendorStep, batch: Batch, target: Target) -> AbstractContextManager[None]:
        """A call to a vendor's batch API, and what is done with its answer."""
        ...


class Untraced:
    """Implements `Tracer`."""

    def current(self) -> str | None:
        return None

    def committing(self, origins: Sequence[str | None]) -> AbstractContextManager[None]:
        return _NOTHING

    def working(self, kind: str, origins: Sequence[str]) -> AbstractContextManager[None]:
        return _NOTHING

    def sending(self, kind: str, batch: Batch, count: int) -> AbstractContextManager[str | None]:
        return nullcontext(batch.submitter.trace)

    def at_vendor(self, step: VendorStep, batch: Batch, target: Target) -> AbstractContextManager[None]:
        return _NOTHING


_NOTHING = nullcontext()
UNTRACED = Untraced()
