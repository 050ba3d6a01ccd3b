"""Whether a worker is alive, for who would restart it: it answers, and no job has been in hand for too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fastapi import FastAPI, Response

from persistence.queue_records import Job
from resolvers.worker import Handler

STUCK_AFTER_S = 900.0
"""Three times what the longest completion takes."""


class Heartbeat:
    """`clock` is monotonic, in seconds. A worker that waits for jobs, or for a server that is away, is alive."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun: float | None = None

    def over(self, handlers: Mapping[str, Handler]) -> Mapping[str, Handler]:
        """The same handlers, watched."""
        return {kind: partial(self._handle, handler) for kind, handler in handlers.items()}

    def trouble(self) -> str | None:
        """In a line, if any."""
        if self._begun is None or (seconds := self._clock() - self._begun) < STUCK_AFTER_S:
            return None
        return f"jobs have been in hand for {seconds:.0f} s"

    async def _handle(self, handler: Handler, jobs: Sequence[Job]) -> None:
        self._begun = self._clock()
        try:
            await handler(jobs)
        finally:
            self._begun = None


def add_liveness(pages: FastAPI, heartbeat: Heartbeat) -> None:
    """`/healthcheck`: 200, or 503 where only a restart helps."""

    async def alive() -> Response:
        trouble = heartbeat.trouble()
        return Response(f"{trouble or 'alive'}\n", status_code=503 if trouble else 200, media_type="text/plain")

    pages.add_api_route("/healthcheck", alive, methods=["GET"])
