from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.sse import ServerSentEvent, SSEDecoder, SSELimitError


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [("a", "message"), ("b", "message")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("a", "message"), ("b", "message")]),
        (b"data: a\r\rdata: b\r\r\n", [("a", "message"), ("b", "message")]),
        (b"event: ping\ndata: {}\n\n", [("{}", "ping")]),
        (b"event: ping\n\ndata: a\n\n", [("a", "message")]),  # an event without data is dropped, and its name with it
        (b"data: a\ndata:b\ndata\ndata:  c\n\n", [("a\nb\n\n c", "message")]),
        (b": comment\n:\ndata: a\n: in between\n\n", [("a", "message")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("a", "message")]),
        (b"id: 7\nretry: 10\nunknown: x\ndata: a\n\n", [("a", "message")]),
        (b"data:\n\n", [("", "message")]),
        (b"data: open at the end\n", []),
        (b"data: a\n\n\n\n\n", [("a", "message")]),
        ("data: Grüße 🌸\n\n".encode(), [("Grüße 🌸", "message")]),
        (b"data: \xff\n\n", [("�", "message")]),
        (b"data: a:b: c\n\n", [("a:b: c", "message")]),
        (b"", []),
    ],
)
def test_bodies(body: bytes, expected: list[tuple[str, str]]) -> None:
    found = [(event.data, event.event) for event in decode(body)]
    assert found == expected
    assert [(event.data, event.event) for event in decode(*(body[at : at + 1] for at in range(len(body))))] == expected


def test_events_come_as_soon_as_they_are_whole() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\ndata: b") == [ServerSentEvent("a")]
    assert decoder.feed(b"\n\n") == [ServerSentEvent("b")]


def test_a_character_split_between_chunks_is_whole() -> None:
    flower = "🌸".encode()
    assert decode(b"data: " + flower[:1], flower[1:3], flower[3:] + b"\n\n") == [ServerSentEvent("🌸")]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 90, b"data: " + b"x" * 40 + b"\ndata: " + b"x" * 50 + b"\n"])
def test_an_event_without_end_hits_the_limit(chunk: bytes) -> None:
    decoder = SSEDecoder(max_event_bytes=80)
    with pytest.raises(SSELimitError, match="80 bytes"):
        decoder.feed(chunk)


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    decoder = SSEDecoder(max_event_bytes=80)
    assert sum(len(decoder.feed(b"data: " + b"x" * 40 + b"\n\n")) for _ in range(100)) == 100


def test_a_long_line_in_small_pieces_costs_what_it_is_long() -> None:
    """A hundredth of this, by the processor's time; where each piece is joined to the rest, many times as much."""
    decoder, begun = SSEDecoder(), time.process_time()
    for _ in range(50_000):
        decoder.feed(b"x" * 100)
    assert time.process_time() - begun < 2


LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


@given(
    st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=3), TEXT), max_size=5),
    LINE_ENDS,
    st.lists(st.integers(0, 400), max_size=12),
    st.booleans(),
)
def test_any_events_survive_any_chunking(
    events: list[tuple[list[str], str]], end: str, cuts: list[int], bom: bool
) -> None:
    lines = [
        f": note{end}event: {name}{end}" + "".join(f"data: {line}{end}" for line in data) + end for data, name in events
    ]
    body = (b"\xef\xbb\xbf" if bom else b"") + "".join(lines).encode()
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:stop] for start, stop in pairwise(bounds)]
    expected = [ServerSentEvent("\n".join(data), name or "message") for data, name in events]
    if end == "\r" and body:  # a CR at the very end waits for the LF that may follow
        chunks.append(b"\n")
    assert decode(*chunks) == expected
