"""uvicorn's HTTP protocol with bounds that it lacks: on what a client may send, how slowly it may send and read, and on
requests that come before the last one is answered."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .exchange import Departure

MAX_HEAD_BYTES = 64 * 1024  # request line and headers, or trailers
HEAD_TIMEOUT_S = 20.0  # from the connection's start, or a later request's first byte, to the end of its head
BODY_TIMEOUT_S = 60.0  # from there to the end of the request, or to MIN_BODY_BYTES of it, and from these on anew
MIN_BODY_BYTES = 512 * 1024  # with 70 kbit/s it is in time; a file of 1 GiB takes hours, and is still wanted
STALL_TIMEOUT_S = 60.0  # for a client that takes nothing of what waits for it
MAX_READS = 2_000  # of one head, or of a body whose answer is out: they take 25 ms, however little each one brings
MAX_LATE_BYTES = 32 * 1024 * 1024  # of such a body: as extensions of chunks, the dearest, they take 40 ms
MAX_LATE_PIECES = 50_000  # of such a body: in chunks of a byte they take 10 ms

_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 28\r\n"
    b"connection: close\r\n\r\nThe body took much too long."
)


class _Wait:
    """One wait for a part of one request, told from others by its identity."""

    __slots__ = ("for_body", "seconds")

    def __init__(self, seconds: float, *, for_body: bool) -> None:
        self.seconds = seconds
        self.for_body = for_body


class BoundedConnection(HttpToolsProtocol):
    """The parser keeps heads of any length: past MAX_HEAD_BYTES, or MAX_READS, the answer is 400, and the connection is
    closed. So is one that has not brought a whole head within HEAD_TIMEOUT_S (uvicorn's keep-alive timeout rules
    between an answer and the next byte), or the body, or MIN_BODY_BYTES more of it, within BODY_TIMEOUT_S (408), and
    one whose client reads nothing for STALL_TIMEOUT_S. What comes of a body after its answer, as where a stranger was
    refused by the head, is read so that the client sees the answer, but only so much of it. A request that one read
    brings whole, as most do, is neither timed nor counted.

    A request behind one that is being answered is not taken: the connection closes after the answer, as RFC 9112, 9.3.2
    allows. uvicorn would stop reading, and not notice that the client has left; each request's Departure tells of that.
    """

    _missing: _Wait | None = None  # for what is missing of the request that has begun
    _timed: _Wait | None = None  # the wait that `_patience` was set for
    _patience: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _unread = 0  # bytes, when the reader was looked at last
    _head_bytes = 0  # since a head or a piece of a body was complete; over by less than one read where they share it
    _reads = 0  # of the head, or of the body since its answer
    _body_bytes = 0  # since there was patience with it anew
    _late_bytes = 0
    _late_pieces = 0
    _deaf = False
    _departure: Departure | None = None  # of the last request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._expect_head()
        self._time_the_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._missing = None
        self._time_the_rest()
        self._reader_is_here()
        super().connection_lost(exc)
        if self._departure is not None:
            self._departure.happen()

    def data_received(self, data: bytes) -> None:
        if self._answering():
            self._turn_deaf()
        if self._deaf:
            return
        if self._missing is None:
            self._expect_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head is larger than {MAX_HEAD_BYTES} bytes.")
        if self._missing is not None:
            self._count_the_rest(self._missing, len(data))
        if self._missing is not self._timed:
            self._time_the_rest()

    def _expect_head(self) -> None:
        self._reads = 0
        self._missing = _Wait(HEAD_TIMEOUT_S, for_body=False)

    def _count_the_rest(self, missing: _Wait, size: int) -> None:
        """Of a head, or of a body that nobody waits for any more."""
        if not missing.for_body:
            self._reads += 1
            if self._reads > MAX_READS and not self.transport.is_closing():
                self.send_400_response(f"The head came in more than {MAX_READS} pieces.")
        elif self.cycle is not None and self.cycle.response_complete:
            self._reads += 1
            self._late_bytes += size
            if self._reads > MAX_READS or self._late_bytes > MAX_LATE_BYTES or self._late_pieces > MAX_LATE_PIECES:
                self.transport.abort()

    def _answering(self) -> bool:
        """Whether a request is here as a whole, and its answer is not."""
        return self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete)

    def _turn_deaf(self) -> None:
        self._deaf = True
        self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        if self._answering():  # one read brought both requests
            self._turn_deaf()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes = self._reads = self._body_bytes = self._late_bytes = self._late_pieces = 0
        if not self._deaf:
            self._missing = _Wait(BODY_TIMEOUT_S, for_body=True)
            self._departure = Departure()
            self.scope["extensions"] = {Departure.EXTENSION: self._departure}  # type: ignore[dict-item]  # ASGI says: a dict
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._deaf:
            return
        if self.cycle.response_complete:
            self._late_pieces += 1
        else:
            self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if (
            self.cycle is not None and self.cycle.response_complete
        ):  # before its body was here: nobody else times what follows
            self._expect_head()
        else:
            self._missing = None
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._missing = None
        if not self._deaf:
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()  # the text would become a part of the answer that is on its way
        else:
            super().send_400_response(msg)
            self._expect_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._reader_is_here()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_reader()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_reader()

    def _time_the_rest(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._timed = self._missing
        if self._timed is None:
            self._patience = None
        else:
            self._patience = self.loop.call_later(self._timed.seconds, self._out_of_patience, self._timed)

    def _out_of_patience(self, wait: _Wait) -> None:
        if wait.for_body and self._body_bytes >= MIN_BODY_BYTES and not self.cycle.response_complete:
            self._body_bytes = 0
            self._time_the_rest()
        elif wait.for_body and self.cycle is not None and not self.cycle.response_started:
            self.transport.write(_TOO_SLOW)
            self.transport.close()
            self._expect_reader()
        else:
            self.transport.abort()

    def _expect_reader(self) -> None:
        """Closing, like writing more, waits for the client to take what is left; some never do."""
        if self._stalled is None:
            self._unread = self.transport.get_write_buffer_size()
            self._stalled = self.loop.call_later(STALL_TIMEOUT_S, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self._stalled = None
        if 0 < self._unread <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._expect_reader()

    def _reader_is_here(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
