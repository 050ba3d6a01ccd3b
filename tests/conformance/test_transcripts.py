"""Every codec against every transcript: encoding, decoding, folding, errors; in memory and over real HTTP."""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapter import CodecProvider, retry_after
from providers.errors import ProviderError
from providers.fold import fold
from providers.http import HttpTransport, open_transport
from providers.ports import Codec
from providers.sse import SSEDecoder
from providers.types import Credentials, ProviderCompletion, StreamEvent
from tests.fake_vendor import FakeVendor, running

from .added_vendor import ROWS
from .transcripts import ROOT, Transcript, transcripts, vendors

CODECS: dict[str, Codec] = {row.name: row.codec() for row in ROWS}
ALL = transcripts()
PLAIN = [each for each in ALL if each.succeeds and not each.streamed]
STREAMED = [each for each in ALL if each.succeeds and each.streamed]
FAILED = [each for each in ALL if not each.succeeds]
PAIRS = [
    (each, other)
    for each in ALL
    if (other := Transcript(each.provider, f"{each.scenario}_stream")) in ALL and each.succeeds
]
_LISTED = (ROOT / "README.md").read_text().partition("Scenarios:")[2].partition("What a vendor")[0]
SCENARIOS = frozenset(re.findall(r"`([a-z_]+)`", _LISTED)) - {"max_tokens"}
KEY = Credentials("test-key")


def decoded(codec: Codec, body: bytes, size: int) -> Iterator[StreamEvent]:
    sse, decoder = SSEDecoder(), codec.decoder()
    for start in range(0, len(body), size):
        for event in sse.feed(body[start : start + size]):
            yield from decoder.feed(event)
    assert decoder.done


def assert_expected(error: ProviderError, transcript: Transcript) -> None:
    for name, value in transcript.expected["error"].items():
        assert getattr(error, name) == value, name
    assert error.provider == transcript.provider
    assert "test-key" not in str(error)


def test_every_vendor_has_transcripts_and_every_transcript_a_vendor() -> None:
    assert set(vendors()) - {"scripted"} == set(CODECS)


@pytest.mark.parametrize("provider", CODECS)
def test_every_scenario_is_shown_or_declared_absent(provider: str) -> None:
    absent = ROOT / provider / "ABSENT.md"
    declared = set(re.findall(r"`([a-z_]+)`", absent.read_text())) if absent.exists() else set()
    shown = {each.scenario for each in ALL if each.provider == provider}
    assert "text_stream" in SCENARIOS
    assert SCENARIOS - shown <= declared
    assert all((ROOT / provider / scenario / "SOURCE.md").exists() for scenario in shown)


@pytest.mark.parametrize("transcript", ALL, ids=str)
def test_encodes_the_request(transcript: Transcript) -> None:
    codec = CODECS[transcript.provider]
    call = codec.encode(transcript.call, stream=transcript.streamed)
    request = transcript.request
    assert request["path"].endswith(call.path)
    assert orjson.loads(orjson.dumps(call.body)) == request["body"]
    sent = {**call.headers, **codec.headers(KEY), "content-type": "application/json"}
    for name, value in request.get("headers", {}).items():
        assert name == "accept" or sent.get(name) == value


@pytest.mark.parametrize("transcript", PLAIN, ids=str)
def test_decodes_the_plain_answer(transcript: Transcript) -> None:
    assert CODECS[transcript.provider].decode(transcript.response["body"]) == transcript.completion


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("transcript", STREAMED, ids=str)
def test_folds_the_stream_whatever_its_chunks(transcript: Transcript, size: int) -> None:
    assert fold(decoded(CODECS[transcript.provider], transcript.events, size)) == transcript.completion


@pytest.mark.parametrize("transcript", STREAMED, ids=str)
@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_folds_the_stream_wherever_it_is_cut(transcript: Transcript, cuts: list[float]) -> None:
    codec, body = CODECS[transcript.provider], transcript.events
    sse, decoder = SSEDecoder(), codec.decoder()
    bounds = [0, *sorted(round(cut * len(body)) for cut in cuts), len(body)]
    pieces = (body[start:end] for start, end in pairwise(bounds))
    events = [each for piece in pieces for event in sse.feed(piece) for each in decoder.feed(event)]
    assert fold(events) == transcript.completion
    assert decoder.done


@pytest.mark.parametrize(("plain", "streamed"), PAIRS, ids=str)
def test_plain_and_streamed_say_the_same(plain: Transcript, streamed: Transcript) -> None:
    assert plain.expected == streamed.expected
    assert plain.call == streamed.call


@pytest.mark.parametrize("transcript", [each for each in STREAMED if "usage" in each.expected], ids=str)
def test_a_stream_that_is_cut_off_is_never_taken_for_whole(transcript: Transcript) -> None:
    """Cut before any event: either the end is still to come, or the answer is complete."""
    body = transcript.events
    for end in [match.end() for match in re.finditer(rb"\r?\n\r?\n", body)][:-1]:
        sse, decoder = SSEDecoder(), CODECS[transcript.provider].decoder()
        events = [each for event in sse.feed(body[:end]) for each in decoder.feed(event)]
        assert not decoder.done or fold(events) == transcript.completion


# Over HTTP: the same through the adapter, the transport and a server that refuses any other request.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vendor() -> AsyncIterator[FakeVendor]:
    async with running() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def transport() -> AsyncIterator[HttpTransport]:
    async with open_transport(trust_env=False) as opened:
        yield opened


async def ask(transcript: Transcript, vendor: FakeVendor, transport: HttpTransport) -> ProviderCompletion:
    codec = CODECS[transcript.provider]
    prefix = transcript.request["path"].removesuffix(codec.encode(transcript.call, stream=transcript.streamed).path)
    provider = CodecProvider(codec, f"{vendor.url}/t/{transcript.provider}/{transcript.scenario}{prefix}")
    if not transcript.streamed:
        return await provider.complete(transcript.call, credentials=KEY, transport=transport)
    events: list[StreamEvent] = []
    async for batch in provider.stream(transcript.call, credentials=KEY, transport=transport):
        assert batch
        events += batch
    return fold(events)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("transcript", ALL, ids=str)
async def test_over_http(transcript: Transcript, vendor: FakeVendor, transport: HttpTransport) -> None:
    vendor.mismatches.clear()
    if transcript.succeeds:
        try:
            answer = await ask(transcript, vendor, transport)
        finally:
            assert not vendor.mismatches
        assert answer == transcript.completion
        return
    with pytest.raises(ProviderError) as raised:
        await ask(transcript, vendor, transport)
    assert not vendor.mismatches
    assert_expected(raised.value, transcript)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_base_url_and_the_transcripts_agree(row: Any) -> None:
    """Transcripts show the path from the host on: what the base URL ends in must be its beginning."""
    for transcript in (each for each in ALL if each.provider == row.name and row.base_url):
        call = CODECS[row.name].encode(transcript.call, stream=transcript.streamed)
        url = httpx.URL(row.base_url.rstrip("/") + call.path)
        assert url.raw_path.decode() == transcript.request["path"]


# What no vendor should send must still end in an error of the project's own.


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def changed(payload: Any, path: tuple[Any, ...], value: Any) -> Any:
    payload = copy.deepcopy(payload)
    node = payload
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return payload


ODD = st.sampled_from([None, "", "x", -1, 2**62, 1.5, True, [], {}, [None], ["x"], {"x": None}, [[]], [{}]])


@given(st.data())
def test_no_plain_answer_breaks_a_codec(data: st.DataObject) -> None:
    transcript = data.draw(st.sampled_from(PLAIN))
    body = transcript.response["body"]
    path = data.draw(st.sampled_from(list(places(body))))
    with suppress(ProviderError):
        CODECS[transcript.provider].decode(changed(body, path, data.draw(ODD)))


@given(st.data())
def test_no_error_body_breaks_a_codec(data: st.DataObject) -> None:
    transcript = data.draw(st.sampled_from([each for each in FAILED if not each.streamed and "body" in each.response]))
    body = transcript.response["body"]
    path = data.draw(st.sampled_from(list(places(body))))
    status = data.draw(st.sampled_from([301, 400, 401, 403, 404, 408, 418, 429, 500, 503, 504, 529]))
    payload = data.draw(st.one_of(ODD, st.just(changed(body, path, data.draw(ODD)))))
    error = CODECS[transcript.provider].error(status, payload, retry_after({}))
    assert (error.provider, error.status) == (transcript.provider, status)


@given(st.data())
def test_no_event_breaks_a_stream_decoder(data: st.DataObject) -> None:
    transcript = data.draw(st.sampled_from(STREAMED))
    events = SSEDecoder().feed(transcript.events)
    parsed = [(index, orjson.loads(each.data)) for index, each in enumerate(events) if each.data.startswith("{")]
    index, payload = data.draw(st.sampled_from(parsed))
    path = data.draw(st.sampled_from(list(places(payload))))
    odd = orjson.dumps(changed(payload, path, data.draw(ODD)) if data.draw(st.booleans()) else data.draw(ODD))
    decoder = CODECS[transcript.provider].decoder()
    with suppress(ProviderError):
        for at, event in enumerate(events):
            decoder.feed(type(event)(odd.decode() if at == index else event.data, event.event))
