"""uvicorn's WebSocket protocol with bounds that it lacks: on handshakes, and on what is kept for a peer that does not
read; and with an end that lets running operations end."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_UNREAD_BYTES = 8 * 1024 * 1024  # more than any one message of ours


_NO_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 54\r\n"
    b"connection: close\r\n\r\nA WebSocket handshake has no body, and a small head.\r\n"
)


class BoundedSocket(WebSocketsSansIOProtocol):
    """Pongs are written however many wait unread, and a close waits for a peer that reads nothing: both end in an
    abort here, and the application hears of it as of any other disconnect. The first data is a whole head
    (`gateway.connections`); one that the library doesn't take as a handshake it would leave without a word."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None:
            self._refuse()
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()

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
