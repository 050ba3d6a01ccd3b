"""The completions that are running in this process: so that they can be cancelled, and none is asked for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from .errors import ConflictError
from .types import CompletionRef


class Running:
    """One completion in flight. Its `deadline` scope is what stops it: at its time, or at once by `cancel()`."""

    def __init__(self, completion_id: str, deadline: asyncio.Timeout, *, streamed: bool = False) -> None:
        self.completion_id = completion_id
        self.streamed = streamed
        self.cancelled = False
        self.interrupted = False
        self.ended = False
        self._deadline = deadline

    def cancel(self) -> bool:
        """Stop it as if its time were up; `cancelled` tells the two apart. False where it had already ended."""
        if self.ended or self._deadline.expired():
            return self.cancelled
        if not self.cancelled:
            self.cancelled = True
            self._deadline.reschedule(asyncio.get_running_loop().time())
        return True

    def interrupt(self) -> None:
        """Stop it because the process ends: `interrupted`, unless it was cancelled before."""
        if not self.cancelled:
            self.interrupted = self.cancel()

    @property
    def timed_out(self) -> bool:
        return self._deadline.expired() and not self.cancelled


class RunningCompletions:
    """By organisation and id, and by organisation and idempotency key. Holds what is in flight and nothing else."""

    def __init__(self) -> None:
        self._by_id: dict[tuple[str, str], Running] = {}
        self._by_key: dict[tuple[str, str], str] = {}

    def claim(self, organisation: str, key: str | None, completion_id: str) -> AbstractContextManager[None]:
        """Holds an idempotency key while its completion runs; from then on `Ledger.key_holder` tells of it. Entering
        raises ConflictError while another completion of the organisation holds it."""
        return nullcontext() if key is None else self._hold(organisation, key, completion_id)

    @contextmanager
    def _hold(self, organisation: str, key: str, completion_id: str) -> Iterator[None]:
        claim = (organisation, key)
        if claim in self._by_key:
            raise ConflictError(f"idempotencyKey {key!r} belongs to {self._by_key[claim]}, which is running")
        self._by_key[claim] = completion_id
        try:
            yield
        finally:
            del self._by_key[claim]

    def add(self, organisation: str, running: Running) -> None:
        self._by_id[organisation, running.completion_id] = running

    def remove(self, organisation: str, running: Running) -> None:
        del self._by_id[organisation, running.completion_id]

    def find(self, organisation: str, ref: CompletionRef) -> Running | None:
        completion_id = ref.id
        if ref.idempotency_key is not None:
            completion_id = self._by_key.get((organisation, ref.idempotency_key))
        return self._by_id.get((organisation, completion_id or ""))

    def interrupt_all(self) -> None:
        """The process ends: each is told so to its caller, and booked."""
        for running in self._by_id.values():
            running.interrupt()

    def __len__(self) -> int:
        return len(self._by_id)

    def streams(self) -> int:
        """How many of them are streams."""
        return sum(running.streamed for running in self._by_id.values())
