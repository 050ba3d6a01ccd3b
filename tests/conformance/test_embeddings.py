"""Every vendor that has embeddings against its transcript and over real HTTP; the others, and the fake that ships."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import CodecProvider
from providers.errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderRateLimitedError,
    UnsendableRequestError,
    UnsupportedFeatureError,
)
from providers.http import HttpTransport, open_transport
from providers.ports import EmbeddingCodec
from providers.prices import cost_of
from providers.registry import ROWS, ProviderRow
from providers.scripted import EMBED, ScriptedProvider
from providers.types import Credentials, EmbeddingRequest, ProviderEmbeddings, Usage
from tests.fake_vendor import FakeVendor, running

from .test_transcripts import ODD, changed, places
from .transcripts import ROOT

KEY = Credentials("test-key")
CODECS: dict[str, Any] = {row.name: codec for row in ROWS if isinstance(codec := row.codec(), EmbeddingCodec)}
WITHOUT = [row for row in ROWS if row.name not in CODECS]


def folder(vendor: str) -> Path:
    return ROOT / vendor / "embed"


def read(vendor: str, name: str) -> Any:
    return orjson.loads((folder(vendor) / name).read_bytes())


def request_of(vendor: str) -> EmbeddingRequest:
    fields = read(vendor, "embed.json")
    return EmbeddingRequest(**fields | {"inputs": tuple(fields["inputs"])})


def expected(vendor: str) -> ProviderEmbeddings:
    told = read(vendor, "expect.json")
    usage = dict(told["usage"])
    if "cost" in usage:
        usage["cost"] = Decimal(usage["cost"])
    return ProviderEmbeddings(tuple(told["vectors"]), Usage(**usage), told.get("model"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vendor() -> AsyncIterator[FakeVendor]:
    async with running() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def transport() -> AsyncIterator[HttpTransport]:
    async with open_transport(trust_env=False) as opened:
        yield opened


def test_who_has_embeddings_shows_them() -> None:
    assert set(CODECS) == {"openai", "google", "mistral", "openrouter", "azure", "compatible"}
    assert {each.parent.parent.name for each in ROOT.glob("*/embed/embed.json")} == set(CODECS)
    assert all((folder(vendor) / "SOURCE.md").exists() for vendor in CODECS)


@pytest.mark.parametrize("name", CODECS)
def test_the_transcript_is_what_is_sent_and_read(name: str) -> None:
    call = CODECS[name].encode_embeddings(request_of(name))
    wire = read(name, "request.json")
    assert wire["path"].endswith(call.path)
    assert orjson.loads(orjson.dumps(call.body)) == wire["body"]
    assert CODECS[name].decode_embeddings(read(name, "response.json")["body"]) == expected(name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CODECS)
async def test_over_http(name: str, vendor: FakeVendor, transport: HttpTransport) -> None:
    request = request_of(name)
    prefix = read(name, "request.json")["path"].removesuffix(CODECS[name].encode_embeddings(request).path)
    provider = CodecProvider(CODECS[name], f"{vendor.url}/t/{name}/embed{prefix}")
    assert await provider.embed(request, credentials=KEY, transport=transport) == expected(name)
    assert not vendor.mismatches


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CODECS)
async def test_the_vendor_counts_what_is_told(name: str, vendor: FakeVendor, transport: HttpTransport) -> None:
    vendor.reset()
    provider = CodecProvider(CODECS[name], f"{vendor.url}/v/{name}/")
    request = EmbeddingRequest("m", ("one two three", "four"), dimensions=5)
    found = await provider.embed(request, credentials=KEY, transport=transport)
    assert [(vector[0], len(vector)) for vector in found.vectors] == [(3.0, 5), (1.0, 5)]
    assert found.usage is not None
    assert found.usage.input_tokens == vendor.stats()[name]["m"]["input_tokens"] == 4


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CODECS)
async def test_errors_are_those_of_completions(name: str, vendor: FakeVendor, transport: HttpTransport) -> None:
    provider = CodecProvider(CODECS[name], f"{vendor.url}/v/{name}/")
    for prompt, key, kind in (
        ("[[429]][[retry=3]]", KEY, ProviderRateLimitedError),
        ("hi", Credentials(""), ProviderAuthError),
    ):
        with pytest.raises(kind) as caught:
            await provider.embed(EmbeddingRequest("m", (prompt,)), credentials=key, transport=transport)
        assert caught.value.provider == name
        assert caught.value.retryable is (kind is ProviderRateLimitedError)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", WITHOUT, ids=lambda row: row.name)
async def test_the_others_say_that_they_have_none(row: ProviderRow, transport: HttpTransport) -> None:
    provider = CodecProvider(row.codec(), "http://127.0.0.1:9/")
    with pytest.raises(UnsupportedFeatureError, match=rf"{row.name} has no embeddings \(model m\)"):
        await provider.embed(EmbeddingRequest("m", ("x",)), credentials=KEY, transport=transport)


@pytest.mark.asyncio(loop_scope="module")
async def test_fewer_vectors_than_texts_are_no_answer(vendor: FakeVendor, transport: HttpTransport) -> None:
    request = EmbeddingRequest(**{**read("openai", "embed.json"), "inputs": ("a", "b", "c")})

    class Told(type(CODECS["openai"])):  # type: ignore[misc]
        def encode_embeddings(self, _: EmbeddingRequest) -> Any:
            return super().encode_embeddings(request_of("openai"))

    provider = CodecProvider(Told(), f"{vendor.url}/t/openai/embed/v1")
    with pytest.raises(ProviderBadResponseError, match="2 vectors for 3 inputs"):
        await provider.embed(request, credentials=KEY, transport=transport)


def test_gemini_takes_a_hundred_at_once() -> None:
    with pytest.raises(UnsendableRequestError, match="at most 100 inputs at once, not 101"):
        CODECS["google"].encode_embeddings(EmbeddingRequest("m", ("x",) * 101))


@pytest.mark.parametrize("vector", [None, [], ["x"], [None], [float("inf")], [10**400], "x"])
@pytest.mark.parametrize("name", CODECS)
def test_what_is_no_vector_is_malformed(name: str, vector: Any) -> None:
    payload = {"embeddings": [{"values": vector}], "data": [{"index": 0, "embedding": vector}]}
    with pytest.raises(ProviderBadResponseError, match="not a list of numbers"):
        CODECS[name].decode_embeddings(payload)


@pytest.mark.parametrize("places", [[0, 0], [1], [0, 2]])
def test_places_that_are_not_the_inputs_are_malformed(places: list[int]) -> None:
    data = [{"index": place, "embedding": [1.0]} for place in places]
    with pytest.raises(ProviderBadResponseError, match="places"):
        CODECS["openai"].decode_embeddings({"data": data})


@given(st.data())
def test_no_answer_breaks_a_codec(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CODECS)))
    body = read(name, "response.json")["body"]
    path = data.draw(st.sampled_from(list(places(body))))
    with suppress(ProviderError):
        CODECS[name].decode_embeddings(changed(copy.deepcopy(body), path, data.draw(ODD)))


async def test_the_fake_that_ships_embeds_alike_each_time(transport: HttpTransport) -> None:
    async def asked(model: str = EMBED, dimensions: int | None = None) -> ProviderEmbeddings:
        request = EmbeddingRequest(model, ("a b", "a b", "c"), dimensions)
        return await ScriptedProvider().embed(request, credentials=Credentials(""), transport=transport)

    found = await asked()
    assert found.usage == Usage(input_tokens=5)
    assert found.vectors[0] == found.vectors[1] != found.vectors[2]
    assert {len(vector) for vector in found.vectors} == {8}
    assert sum(number**2 for number in found.vectors[0]) == pytest.approx(1)
    assert len((await asked(dimensions=99)).vectors[0]) == 99
    with pytest.raises(ProviderRateLimitedError):
        await asked("fail-rate-limited")


def test_an_embedding_has_the_price_of_its_input() -> None:
    """text-embedding-3-small: 0.02 USD for a million tokens (https://platform.openai.com/docs/pricing), so that five
    are 0.0000001 USD."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    assert cost_of("openai", "text-embedding-3-small", Usage(input_tokens=5), moment).cost == Decimal("0.0000001")
