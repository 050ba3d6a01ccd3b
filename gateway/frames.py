"""uvicorn's WebSocket protocol with bounds that it lacks: on handshakes, on messages, and on what is kept for a peer
that does not read; and with an end that lets running operations end."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from .capacity import BYTES_A_PLACE, OverloadedError, Place
from .connections import BODY_TIMEOUT_S, MAX_LATE_BYTES, MAX_READS, MIN_BODY_BYTES

MAX_UNREAD_BYTES = 8 * 1024 * 1024  # more than any one message of ours
MAX_STRANGER_BYTES = 32 * 1024  # after the handshake, until it is known who the peer is: messages in it take 20 ms
MAX_STRANGER_READS = 500  # of the same: with a message in each they take 20 ms
MAX_FRAGMENTS = 1024  # of one message: empty ones would be no bytes, and memory all the same
CLOSE_TIMEOUT_S = 10.0


_NO_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 54\r\n"
    b"connection: close\r\n\r\nA WebSocket handshake has no body, and a small head.\r\n"
)


class BoundedSocket(WebSocketsSansIOProtocol):
    """Pongs are written however many wait unread, and a close waits for a peer that reads nothing: both end in an
    abort here, and the application hears of it as of any other disconnect. The first data is a whole head
    (`gateway.connections`); one that the library doesn't take as a handshake it would leave without a word. Text that
    is not UTF-8 it would log with a traceback. A whole message is kept for a peer that the application has called
    welcome, by the function under WELCOME in the scope's extensions, and no more than MAX_STRANGER_BYTES for others. As
    little is looked at after our close: the library would answer pings to the end. A large message on its way is held
    to the places of the process, and to the time, that a body has.
    """

    WELCOME = "ai_middleware.welcome"
    _is_stranger = True
    _bytes = 0  # of a stranger, or since our close; then of what is dropped
    _reads = 0
    _closing: asyncio.TimerHandle | None = None
    _deaf = False
    _place: Place | None = None  # of a peer that is welcome
    _arrived = 0  # of a large message, since there was patience with it anew
    _patience: asyncio.TimerHandle | None = None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][self.WELCOME] = self._welcome  # type: ignore[assignment]  # ASGI says: a dict

    def _welcome(self, place: Place) -> None:
        self._is_stranger = False
        self._place = place
        self._bytes = self._reads = 0

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and (self._deaf or self._is_stranger or self.close_sent):
            self._count(len(data))
        if self._deaf:
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None:
            self._refuse()
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()
        self._expect_the_end()
        if self._place is not None:
            self._hold_the_rest(self._place, len(data))

    def _hold_the_rest(self, place: Place, size: int) -> None:
        """Of a message that is not whole yet: most are, or are small."""
        unfinished = 0 if self.close_sent else len(self.conn.reader.buffer) + sum(map(len, self.frames))
        if unfinished < BYTES_A_PLACE:
            self._let_go()
            return
        self._arrived += size
        if self._patience is None:
            self._patience = self.loop.call_later(BODY_TIMEOUT_S, self._out_of_patience)
        try:
            place.hold(unfinished)
        except OverloadedError as error:
            self._fail(1013, error.message)
            self._let_go()

    def _out_of_patience(self) -> None:
        if self._arrived >= MIN_BODY_BYTES:
            self._arrived = 0
            self._patience = self.loop.call_later(BODY_TIMEOUT_S, self._out_of_patience)
        else:
            self._fail(1008, "the message took much too long")
            self._let_go()

    def _let_go(self) -> None:
        if self._patience is not None and self._place is not None:
            self._patience.cancel()
            self._patience = None
            self._arrived = 0
            self._place.leave()

    def _count(self, size: int) -> None:
        self._bytes += size
        self._reads += 1
        if self._deaf:
            if self._bytes > MAX_LATE_BYTES or self._reads > MAX_READS:
                self.transport.abort()
        elif self._bytes > MAX_STRANGER_BYTES or self._reads > MAX_STRANGER_READS:
            self._fail(1009, "too much before connection_init")
            self._turn_deaf()

    def _turn_deaf(self) -> None:
        self._deaf = True
        self._bytes = self._reads = 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._let_go()
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)
        self._expect_the_end()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail(1009, "the message has too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(4400, "WebSocket message must be UTF-8")
                return
        super().send_receive_event_to_app()

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        if self.conn.state is State.OPEN:  # else the peer has closed it already, in the same read
            self.conn.send_close(code, reason)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Closing at once would reset a connection on which there is more to read, and the peer would not learn why:
        what comes is read, and dropped, until it has heard."""
        assert self.conn.close_sent is not None  # noqa: S101  # as uvicorn has it
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._turn_deaf()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def _expect_the_end(self) -> None:
        if self._closing is None and (self.close_sent or self.transport.is_closing()):
            self._closing = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def _refuse(self) -> None:
        if not self.handshake_initiated:
            self.transport.write(_NO_HANDSHAKE)
        if self.transport.get_write_buffer_size():  # it reads nothing, and closing would wait for it
            self.transport.abort()
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """An open socket is not closed at once: the application does that, when what runs on it has ended."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()
