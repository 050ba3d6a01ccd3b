"""Server-sent events, sans-IO: bytes in whatever chunks → events.

Follows the HTML standard, "9.2.6 Interpreting an event stream"
(https://html.spec.whatwg.org/multipage/server-sent-events.html). `id` and `retry`, meant for reconnecting browsers,
are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


class SSELimitError(Exception):
    """One event is larger than the decoder was told to hold."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One dispatched event. `event` is "message" unless the stream names another."""

    data: str
    event: str = "message"


class SSEDecoder:
    """Feed it chunks; it returns the events that became whole. An event still open at the end of the body is dropped,
    as the standard says. `max_event_bytes` bounds what one unfinished event may hold."""

    def __init__(self, max_event_bytes: int = 8 * 1024 * 1024) -> None:
        self._max = max_event_bytes
        self._rest = bytearray()  # of a line: it grows in place, for a copy with every chunk would cost its square
        self._data: list[str] = []
        self._held = 0
        self._event = ""
        self._started = False

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Raises SSELimitError. Invalid UTF-8 becomes U+FFFD, as the standard's decode does."""
        events: list[ServerSentEvent] = []
        for line in self._lines(chunk):
            if line:
                self._field(line)
            elif self._data:
                events.append(ServerSentEvent("\n".join(self._data), self._event or "message"))
                self._reset()
            else:
                self._reset()
        if self._held + len(self._rest) > self._max:
            raise SSELimitError(f"an event of more than {self._max} bytes")
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk makes whole."""
        if self._started and b"\n" not in chunk and b"\r" not in chunk and not self._rest.endswith(b"\r"):
            self._rest += chunk
            return []
        buffer = bytes(self._rest) + chunk if self._rest else chunk
        if not self._started:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._rest = bytearray(buffer)
                return []
            buffer = buffer.removeprefix(_BOM)
            self._started = True
        lines, rest = _split_lines(buffer)
        self._rest = bytearray(rest)
        return lines

    def _reset(self) -> None:
        self._data = []
        self._held = 0
        self._event = ""

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._held += len(value) + 1
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        elif name == b"event":
            self._event = value.removeprefix(b" ").decode("utf-8", "replace")


def _split_lines(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines and the unfinished rest. A CR at the very end waits: an LF may follow in the next chunk."""
    if b"\r" not in buffer:
        *lines, rest = buffer.split(b"\n")
        return lines, rest
    held = b""
    if buffer.endswith(b"\r"):
        buffer, held = buffer[:-1], b"\r"
    *lines, rest = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return lines, rest + held
