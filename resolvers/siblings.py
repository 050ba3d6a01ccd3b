"""The other processes of a deployment: asked, over the events that all hear, to cancel what runs there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import structlog
from uuid_utils import uuid7

from persistence.ports import Events, StoreUnavailableError

from .heeding import heeding
from .running import RunningCompletions
from .types import CompletionRef

ANSWER_TIMEOUT_S = 1.0
ORDER_S = 3.0
"""For so long an order is obeyed that was held up on its way: longer than clocks are apart."""
_ORDERS = "cancel"

log = structlog.get_logger("siblings")


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a process says of a completion that runs there. `cancelled` is False where it ended just before."""

    completion_id: str
    cancelled: bool


@dataclass(slots=True)
class Siblings:
    """Opened by `open_siblings`. A process that is killed answers nothing: what ran there ends with it."""

    _events: Events
    _running: RunningCompletions
    channel: str = field(default_factory=lambda: f"cancelled:{uuid7().hex}")
    _asked: dict[str, asyncio.Future[Cancelled]] = field(default_factory=dict)

    async def cancel(self, organisation: str, ref: CompletionRef) -> Cancelled | None:
        """None where no process says within ANSWER_TIMEOUT_S that it runs there. Raises StoreUnavailableError."""
        question = uuid7().hex
        answer: asyncio.Future[Cancelled] = asyncio.get_running_loop().create_future()
        self._asked[question] = answer
        order = {
            "question": question,
            "answer_to": self.channel,
            "organisation": organisation,
            "id": ref.id,
            "key": ref.idempotency_key,
            "until": time.time() + ORDER_S,
        }
        published = False
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._events.publish(_ORDERS, orjson.dumps(order).decode())
                published = True
                return await answer
        except TimeoutError:
            if published:
                return None
            raise StoreUnavailableError(
                f"the other processes could not be asked within {ANSWER_TIMEOUT_S:g} s"
            ) from None
        finally:
            del self._asked[question]

    async def obey(self, message: str) -> None:
        """An order of any process, this one's own too."""
        order = orjson.loads(message)
        if order["until"] < time.time():
            return  # whoever asked has been told that it could not be done
        ref = CompletionRef(id=order["id"], idempotency_key=order["key"])
        running = self._running.find(order["organisation"], ref)
        if running is None:
            return
        answer = {"question": order["question"], "id": running.completion_id, "cancelled": running.cancel()}
        try:
            await self._events.publish(order["answer_to"], orjson.dumps(answer).decode())
        except StoreUnavailableError as error:  # it is cancelled all the same
            log.warning("who asked for a cancellation is not told of it", reason=str(error))

    async def hear(self, message: str) -> None:
        """An answer to a question of this process; one that comes too late is nobody's."""
        answer = orjson.loads(message)
        asked = self._asked.get(answer["question"])
        if asked is not None and not asked.done():
            asked.set_result(Cancelled(answer["id"], answer["cancelled"]))


@asynccontextmanager
async def open_siblings(events: Events, running: RunningCompletions) -> AsyncIterator[Siblings]:
    """Listens while it is open; where the server is away, from when it is back."""
    siblings = Siblings(events, running)
    async with heeding(events, _ORDERS, siblings.obey), heeding(events, siblings.channel, siblings.hear):
        yield siblings
