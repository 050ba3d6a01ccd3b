"""A way to a server that can be cut and slowed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress


class Proxy:
    """Passes bytes on, both ways, each `delay_s` late. `cut` ends what is open; new connections are taken as before."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.opened = 0
        self.delay_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._open: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._swallowed: set[asyncio.Task[None] | None] = set()

    async def cut(self) -> int:
        """How many connections that were."""
        cut = list(self._open)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        return len(cut)

    def swallow(self) -> None:
        """What is open stays open, and nothing comes through it any more: as where a firewall forgets a connection."""
        self._swallowed.update(self._passing)

    def cut_now(self) -> int:
        """The same, from a thread that is not the proxy's own."""
        return asyncio.run_coroutine_threadsafe(self.cut(), self._loop).result(timeout=30)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.opened += 1
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
            await self._between((reader, writer), there)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _between(
        self,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        ways = [asyncio.create_task(self._pass(here[0], there[1])), asyncio.create_task(self._pass(there[0], here[1]))]
        self._passing.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._passing.difference_update(ways)
            there[1].transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if asyncio.current_task() in self._swallowed:
                    continue
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.cut()
        await server.wait_closed()
        await asyncio.sleep(0.01)  # what is aborted is closed a turn of the loop later


@contextmanager
def proxy_beside(port: int) -> Iterator[Proxy]:
    """One in a thread of its own, which outlives a test's loop."""
    started: list[Proxy] = []
    is_there, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with proxy_to(port) as proxy:
            started.append(proxy)
            is_there.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=[serve()], name=f"proxy to {port}")
    thread.start()
    try:
        assert is_there.wait(timeout=30)
        yield started[0]
    finally:
        over.set()
        thread.join(timeout=30)
