"""uvicorn's HTTP protocol with bounds that it lacks: on what a client may send, and how slowly, before anybody asks for
its token."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024  # request line and headers, or trailers
HEAD_TIMEOUT_S = 20.0  # from the connection's start, or a later request's first byte, to the end of its head


class BoundedHeads(HttpToolsProtocol):
    """The parser keeps heads of any length: past MAX_HEAD_BYTES the answer is 400, and the connection is closed. So is
    one that has not brought a whole head within HEAD_TIMEOUT_S; between requests uvicorn's keep-alive timeout rules."""

    _patience: asyncio.TimerHandle | None = None

    _head_bytes = 0  # since a head or a piece of a body was complete; over by less than one read where they share it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._expect_head()
        super().on_message_begin()

    def _expect_head(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _head_is_here(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head is larger than {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._head_is_here()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)
