"""uvicorn's HTTP protocol with a bound that it lacks: on what a client may send before anybody asks for its token."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024  # request line and headers, or trailers


class BoundedHeads(HttpToolsProtocol):
    """The parser keeps heads of any length: past MAX_HEAD_BYTES the answer is 400, and the connection is closed."""

    _head_bytes = 0  # since a head or a piece of a body was complete; over by less than one read where they share it

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head is larger than {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)
