"""A connection to RabbitMQ with its one channel. Every call has a time-out, and every fault is told as one error.

Source: https://www.rabbitmq.com/docs/confirms.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ChannelAccessRefused
from yarl import URL

from ..ports import StoreUnavailableError

TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
GIVEN_BACK_INTERVAL_S = 0.01
BLOCKED = "RabbitMQ: it takes no messages, for its memory or its disk is short"
_AT_ONCE = 200  # messages that wait for their confirms
_UNKNOWN_USER = (AuthenticationError, ProbableAuthenticationError)
_REFUSALS = (*_UNKNOWN_USER, ChannelAccessRefused, ChannelPreconditionFailed)
"""Of a queue, too: for its name, its user's rights, or one of that name that is another sort."""
_FAULTS = (AMQPError, OSError, TimeoutError, RuntimeError, StopAsyncIteration)
"""The client has RuntimeError for a channel that is closed, StopAsyncIteration for an end amid the handshake."""

_T = TypeVar("_T")


class RabbitRefusedError(StoreUnavailableError):
    """It was reached, and it is the settings that keep us from it. Waiting mends nothing."""


class Link:
    """`lost` once the connection is, or the channel. Opened by `open_link`. Every method raises
    StoreUnavailableError."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self.lost = False
        self._connection = connection
        self._channel = channel
        self._tell: Callable[[], None] | None = None
        connection.close_callbacks.add(self._lose)
        channel.close_callbacks.add(self._lose)

    async def blocked(self) -> bool:
        """Whether the broker takes no messages, its memory or its disk being short: which it tells those that have sent
        one. The client keeps that to itself, and waits (https://www.rabbitmq.com/docs/connection-blocked)."""
        transport = self._connection.transport
        if self.lost or transport is None:
            return False
        try:
            async with asyncio.timeout(0):
                await transport.ready()
        except TimeoutError:
            return True
        return False

    async def send(self, where: str, messages: Sequence[aio_pika.Message]) -> None:
        """Each is confirmed by a majority of the queue's nodes when this returns."""
        if await self.blocked():
            raise StoreUnavailableError(BLOCKED)
        exchange = self._channel.default_exchange
        for start in range(0, len(messages), _AT_ONCE):
            some = messages[start : start + _AT_ONCE]
            await _all([exchange.publish(message, where, timeout=TIMEOUT_S) for message in some])

    async def consume(
        self,
        name: str,
        take: Callable[[AbstractIncomingMessage], Awaitable[None]],
        lose: Callable[[], None],
        *,
        prefetch: int,
    ) -> None:
        """`take` gets messages as they come; `lose` is called when no more will."""
        self._tell = lose
        if self.lost:
            lose()
        with _told_apart():
            await self._channel.set_qos(prefetch_count=prefetch, timeout=TIMEOUT_S)
            (await self._channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda *_: lose())
            queue = await self._channel.get_queue(name, ensure=False)
            await queue.consume(take, timeout=TIMEOUT_S)

    async def taken(self, name: str) -> AsyncGenerator[AbstractIncomingMessage, None]:
        """What is in a queue. What was not acknowledged is given back by `give_back`, or with the link, later."""
        queue = await asked(self._channel.get_queue(name, ensure=False))
        while (message := await asked(queue.get(no_ack=False, fail=False, timeout=TIMEOUT_S))) is not None:
            yield message

    async def give_back(self, name: str, count: int) -> None:
        """So many were taken and not acknowledged. Who looks at the queue from now on finds them; but where that takes
        longer than TIMEOUT_S, or others take some meanwhile, it is not waited for."""
        channel = await self._channel.get_underlay_channel()
        await asked(channel.basic_nack(0, multiple=True, requeue=True))  # 0: all of them
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                while await self._told_count(name) < count:  # noqa: ASYNC110  # the broker tells nobody
                    await asyncio.sleep(GIVEN_BACK_INTERVAL_S)

    async def count(self, name: str) -> int:
        """A quorum queue whose leader does not answer within a quarter of a second is told as empty (RabbitMQ's
        `rabbit_quorum_queue:stat`): what seems empty is asked once more."""
        return await self._told_count(name) or await self._told_count(name)

    async def _told_count(self, name: str) -> int:
        queue = await asked(self._channel.declare_queue(name, passive=True, timeout=TIMEOUT_S))
        return queue.declaration_result.message_count or 0

    async def declare(self, name: str, arguments: dict[str, Any]) -> None:
        await asked(self._channel.declare_queue(name, durable=True, arguments=arguments, timeout=TIMEOUT_S))

    async def close(self) -> None:
        await _closed(self._connection)

    def _lose(self, *_: object) -> None:
        self.lost = True
        if self._tell is not None:
            self._tell()


async def open_link(url: URL, ca_file: Path | None, *, confirms: bool) -> Link:
    """Raises StoreUnavailableError: RabbitRefusedError for a wrong password or virtual host, or a file that is none."""
    tls: Any = {"cafile": str(ca_file)} if ca_file else None
    try:
        connection = await asked(aio_pika.connect(url, timeout=TIMEOUT_S, ssl_options=tls))
    except StoreUnavailableError as error:
        raise _refused_at_once(error.__cause__) or error from None
    try:
        opening = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        return Link(connection, await asked(opening))
    except BaseException:  # whatever it is, the connection must not outlive it
        await _closed(connection)
        raise


def _refused_at_once(cause: BaseException | None) -> RabbitRefusedError | None:
    if isinstance(cause, InvalidFrameError):  # which is all that the client tells of how it was refused
        return RabbitRefusedError("RabbitMQ: it refuses this virtual host, or has none of that name")
    if isinstance(cause, FileNotFoundError):
        return RabbitRefusedError("RabbitMQ: a file that the address names is not there")
    return None


async def asked(call: Awaitable[_T]) -> _T:
    with _told_apart():
        async with asyncio.timeout(2 * TIMEOUT_S):
            return await call


async def _all(calls: Sequence[Awaitable[Any]]) -> None:
    """Waits for each of them, so that none is left behind."""
    results = await asyncio.gather(*(asked(call) for call in calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


@contextmanager
def _told_apart() -> Iterator[None]:
    """The client waits by `asyncio.wait_for`, which with Python 3.11 may swallow a cancellation
    (https://github.com/python/cpython/issues/86296): it is heeded here."""
    before = _cancellations()
    try:
        yield
    except _FAULTS as error:
        if _cancellations() > before:
            raise asyncio.CancelledError from error
        told = RabbitRefusedError if isinstance(error, _REFUSALS) else StoreUnavailableError
        raise told(f"RabbitMQ: {_reason(error)}") from error
    if _cancellations() > before:
        raise asyncio.CancelledError


def _cancellations() -> int:
    """How often the running task was told to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _reason(error: BaseException) -> str:
    """Of a refused connection the client's text names the address with its password."""
    if isinstance(error, _UNKNOWN_USER):
        return "it refuses this user, password or virtual host"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason}"
    return type(cause).__name__ if isinstance(error, OSError) else str(error)[:200] or type(error).__name__


async def _closed(connection: AbstractConnection) -> None:
    with suppress(*_FAULTS):  # it is being left anyway
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
