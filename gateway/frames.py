"""uvicorn's WebSocket protocol with bounds that it lacks: on what is kept for a peer that does not read."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_UNREAD_BYTES = 8 * 1024 * 1024  # more than any one message of ours


class BoundedSocket(WebSocketsSansIOProtocol):
    """Pongs are written however many wait unread, and a close waits for a peer that reads nothing: both end in an
    abort here, and the application hears of it as of any other disconnect."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()
