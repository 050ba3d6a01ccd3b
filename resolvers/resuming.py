"""Back to a stream that was lost: what it has told since, and what it tells from then on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from persistence.ports import Replays, StoreUnavailableError
from persistence.shared_records import Replayed

from .errors import BadUserInputError, NotFoundError, ServiceUnavailableError
from .event_json import decoded
from .mailbox import Mailbox
from .principal import Principal
from .recordings import END, FLUSH_S, LIVE_S, stream_name
from .run import Services
from .types import CompletionEvent

POLL_S = 0.1
APPEARS_S = 2 * FLUSH_S
"""How long a stream that has just begun may take to be seen."""
ENTRIES_AT_ONCE = 20


async def resume(
    services: Services, principal: Principal, completion_id: str, after: int
) -> AsyncGenerator[CompletionEvent, None]:
    """The events of a stream of the principal's with greater sequences than `after`, until it ends; deltas that are
    there together come as one. While the store of them is away none come.

    Raises BadUserInputError; NotFoundError where no such stream is kept, or not all of it behind `after`;
    ServiceUnavailableError where its process has ended without an end, or the store stays away.
    """
    if after < 0:
        raise BadUserInputError("a sequence is 0 or more", path=("after",))
    organisation, name = principal.organisation, stream_name(principal.subject, completion_id)
    reader = _Reader(services.recordings.replays, organisation, name, after)
    async with aclosing(reader.entries()) as entries:
        async for entry in entries:
            if entry.sequence == END:
                return
            async for event in reader.unseen(entry):
                yield event


class _Reader:
    """`position` is the sequence of the last event that was handed on."""

    def __init__(self, replays: Replays, organisation: str, name: str, after: int) -> None:
        self.position = after
        self._replays = replays
        self._organisation = organisation
        self._name = name

    async def entries(self) -> AsyncGenerator[Replayed, None]:
        """Those behind the position, as they come. Endless but for errors."""
        found = await self._first()
        while True:
            for entry in found:
                yield entry
            await asyncio.sleep(0 if found else POLL_S)
            found = await self._next()

    async def unseen(self, entry: Replayed) -> AsyncIterator[CompletionEvent]:
        """Raises NotFoundError where something is missing before the entry."""
        before, told = _events_of(entry)
        if before > self.position:
            raise NotFoundError(f"what the stream told after {self.position} is not kept any more")
        mailbox = Mailbox()
        for event in told:
            if event.sequence > self.position:
                mailbox.put(event)
        mailbox.close()
        async with aclosing(mailbox.events()) as events:
            async for event in events:
                self.position = event.sequence
                yield event

    async def _first(self) -> Sequence[Replayed]:
        clock = asyncio.get_running_loop().time
        until = clock() + APPEARS_S
        while (found := await self._first_try()) is None:
            if clock() > until:
                raise NotFoundError(
                    "no such stream is kept: it has to be one's own, and to have ended minutes ago at most"
                )
            await asyncio.sleep(POLL_S)
        return found

    async def _first_try(self) -> Sequence[Replayed] | None:
        try:
            return await self._read()
        except StoreUnavailableError as error:
            raise ServiceUnavailableError("what streams have told can't be read at the moment") from error

    async def _next(self) -> Sequence[Replayed]:
        clock = asyncio.get_running_loop().time
        until = clock() + LIVE_S
        while True:
            try:
                found = await self._read()
            except StoreUnavailableError as error:
                if clock() > until:
                    raise ServiceUnavailableError("what streams have told can't be read any more") from error
                await asyncio.sleep(POLL_S)
                continue
            if found is None:
                raise ServiceUnavailableError(
                    "the stream goes no further here: its process has ended; `completion` tells what was booked"
                )
            return found

    async def _read(self) -> Sequence[Replayed] | None:
        return await self._replays.read(self._organisation, self._name, after=self.position, limit=ENTRIES_AT_ONCE)


def _events_of(entry: Replayed) -> tuple[int, Sequence[CompletionEvent]]:
    try:
        return decoded(entry.event)
    except ValueError as error:
        raise ServiceUnavailableError("this process does not know what another release of it has kept") from error
