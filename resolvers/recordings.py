"""What streams have told, kept for a while: for who has lost one and comes back, in this process or another.

Events wait here for up to FLUSH_S and go to the replays many at a time, as one entry with the last one's number. No
stream waits for that. In an entry nothing is merged, so that a reader can go on behind any number; and it names the
event before it, so that a reader sees where one is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress

import structlog

from persistence.ports import Replays, StoreUnavailableError
from persistence.shared_records import Replayed

from .beside import beside
from .event_json import encoded
from .principal import Principal
from .sessions import Sessions
from .types import CompletionEvent

FLUSH_S = 0.25
RETRY_S = 1.0
LIVE_S = 30.0
"""For so long a stream is kept of which nothing is heard: its process is gone."""
KEPT_S = 300.0
"""The same, once it has ended."""
HEARTBEAT_S = LIVE_S / 3
END = 2**31
"""The number of a stream's last entry: greater than any that a client can name."""
MAX_UNSENT = 2**20
"""Characters of a stream that wait while the replays are away; past that its recording is given up."""
MAX_DETACHED = 1_000
MAX_DETACHED_OF_ONE = 250
"""Of one organisation's, in a process: others find room too."""
AT_ONCE = 8
LAST_FLUSH_S = 1.0

log = structlog.get_logger("replays")


def stream_name(subject: str, completion_id: str) -> str:
    """Who asked is part of it, so that nobody else finds it."""
    return f"{subject} {completion_id}"


class Recording:
    """One stream's. What comes after its end is not kept."""

    def __init__(self, organisation: str, stream: str, woken: Callable[[Recording], None]) -> None:
        self.organisation = organisation
        self.stream = stream
        self.given_up = False
        self.unsent: list[Replayed] = []
        self._waiting: list[CompletionEvent] = []
        self._newest = 0
        self._ended = False
        self._ending = False
        self._woken = woken

    def put(self, event: CompletionEvent) -> None:
        if not self.given_up:
            if not self._waiting:  # the others are gathered with the first
                self._woken(self)
            self._waiting.append(event)

    def end(self, event: CompletionEvent) -> None:
        self.put(event)
        self._ending = self._ended = True

    def end_when(self, commits: Sequence[asyncio.Future[None]], event: CompletionEvent) -> None:
        """As `end`, once they are done; where one fails there is no end to be told of."""

        def committed(done: asyncio.Future[list[BaseException | None]]) -> None:
            if any(isinstance(each, Exception) for each in done.result()):
                self.give_up()
            else:
                self.end(event)

        self._ending = True
        asyncio.gather(*commits, return_exceptions=True).add_done_callback(committed)

    def close(self) -> None:
        """A stream without an end is left as it is."""
        if not self._ending:
            self.give_up()

    def give_up(self) -> None:
        """What is kept of it goes by itself, as nothing more is heard."""
        self.given_up = True
        self.unsent.clear()
        self._waiting.clear()

    def gather(self) -> None:
        """Make one entry of what has come since the last time. One that can't be written is the end of it."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                self.unsent.append(Replayed(waiting[-1].sequence, encoded(self._newest, waiting)))
            except ValueError as error:
                log.warning("a stream can't be kept", reason=str(error))
                self.give_up()
            self._newest = waiting[-1].sequence
        if self._ended and not self.given_up and not self.whole:
            self.unsent.append(Replayed(END, ""))
        if sum(len(each.event) for each in self.unsent) > MAX_UNSENT:
            self.give_up()

    @property
    def whole(self) -> bool:
        """Whether nothing is missing when `unsent` is sent."""
        return bool(self.unsent) and self.unsent[-1].sequence == END


class Recordings:
    """Opened by `open_recordings`. Owns the streams, too, that go on without a reader."""

    def __init__(self, replays: Replays, sessions: Sessions, clock: Callable[[], float]) -> None:
        self.replays = replays
        self._sessions = sessions
        self._clock = clock
        self._running: dict[Recording, float] = {}  # when each was last written
        self._detached: dict[asyncio.Task[None], str] = {}  # whose each is
        self._wake = asyncio.Event()
        self._away = False  # the replays, when they were last asked

    def recording(self, organisation: str, subject: str, completion_id: str) -> Recording:
        return Recording(organisation, stream_name(subject, completion_id), self._woken)

    def _woken(self, recording: Recording) -> None:
        self._running.setdefault(recording, self._clock())
        self._wake.set()

    def end_with_key(self, principal: Principal, writer: asyncio.Task[None]) -> None:
        """A stream that may be without a connection, by which others end when the key is revoked that opened them."""

        async def end() -> None:
            writer.cancel()

        session = ExitStack()
        session.enter_context(self._sessions.session(principal, end))
        writer.add_done_callback(lambda _: session.close())

    def adopt(self, organisation: str, writer: asyncio.Task[None]) -> bool:
        """Let a stream go on without a reader, up to its deadline; False where there is no room for one more."""
        own = sum(each == organisation for each in self._detached.values())
        if len(self._detached) >= MAX_DETACHED or own >= MAX_DETACHED_OF_ONE:
            return False
        self._detached[writer] = organisation
        writer.add_done_callback(self._ended)
        return True

    def _ended(self, writer: asyncio.Task[None]) -> None:
        del self._detached[writer]
        if not writer.cancelled() and (error := writer.exception()) is not None:
            log.error("a stream without a reader has failed", exc_info=error)

    async def write(self) -> None:
        """Endlessly."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), HEARTBEAT_S if self._running else None)
            self._wake.clear()
            await asyncio.sleep(RETRY_S if self._away else FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """All that waits, and a sign of life of those that are silent."""
        turns, self._away = asyncio.Semaphore(AT_ONCE), False
        async with asyncio.TaskGroup() as group:
            for recording in [*self._running]:
                recording.gather()
                if recording.given_up:
                    del self._running[recording]
                elif recording.unsent or self._clock() - self._running[recording] >= HEARTBEAT_S:
                    group.create_task(self._send(recording, turns))

    async def _send(self, recording: Recording, turns: asyncio.Semaphore) -> None:
        entries, whole = [*recording.unsent], recording.whole
        seconds = KEPT_S if whole else LIVE_S
        async with turns:
            try:
                if self._away:  # as another has just found out
                    raise StoreUnavailableError
                await self.replays.append(recording.organisation, recording.stream, entries, seconds=seconds)
            except StoreUnavailableError:
                self._away = True
                if whole and self._clock() - self._running[recording] > LIVE_S:
                    recording.give_up()  # nobody waits for it any more
                self._wake.set()  # once more
                return
        del recording.unsent[: len(entries)]
        self._running[recording] = self._clock()
        if whole:
            del self._running[recording]

    async def close(self) -> None:
        for writer in self._detached:
            writer.cancel()
        if self._detached:
            await asyncio.wait([*self._detached])
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_FLUSH_S):
                while self._running:
                    await self.flush()
                    await asyncio.sleep(FLUSH_S / 10)


@asynccontextmanager
async def open_recordings(
    replays: Replays, sessions: Sessions, clock: Callable[[], float]
) -> AsyncIterator[Recordings]:
    """At its end detached streams are cancelled, and what waits is written once more. `clock` is monotonic, in
    seconds."""
    recordings = Recordings(replays, sessions, clock)
    async with beside("stream-recorder", recordings.write):
        yield recordings
    await recordings.close()
