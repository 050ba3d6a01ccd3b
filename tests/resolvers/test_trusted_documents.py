"""Documents by their hash, and which are run where they alone are."""

from __future__ import annotations

import pytest

from resolvers import trusted_documents
from resolvers.errors import (
    BadUserInputError,
    PersistedQueryNotFoundError,
    RateLimitedError,
    ServiceUnavailableError,
)
from resolvers.principal import Principal
from resolvers.query_costs import CostBuckets, caller_of
from resolvers.trusted_documents import FRESH_S, UNKNOWN_S, TrustedDocuments, hash_of
from tests.persistence.trusted import MemoryTrustedDocuments, trusted_document

KNOWN, OTHER = "{ viewer { subject } }", "{ viewer { organisation } }"
ANNA = Principal("anna", "acme", frozenset(), 4_000_000_000)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Scene:
    def __init__(self, *, alone: bool) -> None:
        self.store, self.clock = MemoryTrustedDocuments(), Clock()
        self.store.documents[hash_of(KNOWN)] = trusted_document(KNOWN)
        self.buckets = CostBuckets(1_000, 1, self.clock)
        self.documents = TrustedDocuments(self.store, self.buckets, self.clock, alone=alone)

    async def text(self, query: str | None = None, sha256: str | None = None) -> str | None:
        return await self.documents.text(ANNA, query, sha256)


@pytest.fixture
def scene() -> Scene:
    return Scene(alone=False)


@pytest.fixture
def alone() -> Scene:
    return Scene(alone=True)


async def test_a_hash_stands_for_its_document(scene: Scene, alone: Scene) -> None:
    for each in (scene, alone):
        assert await each.text(sha256=hash_of(KNOWN)) == KNOWN
        assert await each.text(sha256=hash_of(KNOWN).upper()) == KNOWN
        assert await each.text(KNOWN, hash_of(KNOWN)) == KNOWN
        assert await each.text() is None


async def test_an_unknown_hash_is_told_so_that_the_client_sends_the_query(scene: Scene) -> None:
    with pytest.raises(PersistedQueryNotFoundError, match="send it as `query`"):
        await scene.text(sha256=hash_of(OTHER))
    assert await scene.text(OTHER, hash_of(OTHER)) == OTHER
    with pytest.raises(PersistedQueryNotFoundError):
        await scene.text(sha256=hash_of(OTHER))


async def test_where_nothing_else_is_trusted_nothing_else_is_run(alone: Scene) -> None:
    for asked in ((OTHER, None), (None, hash_of(OTHER)), (OTHER, hash_of(OTHER)), (KNOWN + " ", None)):
        with pytest.raises(PersistedQueryNotFoundError, match="only registered"):
            await alone.text(*asked)
    assert await alone.text(KNOWN) == KNOWN


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, hash_of(KNOWN)[:-1], hash_of(KNOWN) + "\n", "é" * 64])
async def test_what_is_no_hash_is_the_callers_fault(scene: Scene, sha256: str) -> None:
    with pytest.raises(BadUserInputError, match="64 hexadecimal digits"):
        await scene.text(sha256=sha256)
    assert scene.store.reads == 0


async def test_a_hash_must_be_its_querys(scene: Scene, alone: Scene) -> None:
    for each in (scene, alone):
        with pytest.raises(BadUserInputError, match="not the SHA-256 of `query`"):
            await each.text(OTHER, hash_of(KNOWN))


async def test_what_is_known_is_looked_up_again_now_and_then(alone: Scene) -> None:
    for _ in range(5):
        await alone.text(KNOWN)
    assert alone.store.reads == 1
    alone.clock.now += FRESH_S
    await alone.text(KNOWN)
    assert alone.store.reads == 2
    alone.store.documents.clear()
    assert await alone.text(KNOWN) == KNOWN
    alone.clock.now += FRESH_S
    with pytest.raises(PersistedQueryNotFoundError):
        await alone.text(KNOWN)


async def test_what_is_registered_is_found_within_a_second(alone: Scene) -> None:
    for _ in range(5):
        with pytest.raises(PersistedQueryNotFoundError):
            await alone.text(OTHER)
    assert alone.store.reads == 1
    alone.store.documents[hash_of(OTHER)] = trusted_document(OTHER)
    alone.clock.now += UNKNOWN_S
    assert await alone.text(OTHER) == OTHER


async def test_while_the_store_is_away_what_is_known_goes_on(alone: Scene) -> None:
    await alone.text(KNOWN)
    alone.clock.now += FRESH_S
    alone.store.down = True
    assert await alone.text(KNOWN) == KNOWN
    with pytest.raises(ServiceUnavailableError):
        await alone.text(OTHER)


async def test_looking_up_costs_its_caller_something(alone: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted_documents, "MAX_UNKNOWN", 10)
    for number in range(500):
        with pytest.raises(PersistedQueryNotFoundError):
            await alone.text(f"{{ a{number} }}")
    with pytest.raises(RateLimitedError):
        await alone.text("{ b }")
    assert alone.store.reads == 500
    assert len(alone.documents._unknown) == 10
    assert alone.buckets.throttle(caller_of(ANNA)).currently_available == 0


async def test_what_is_kept_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted_documents, "MAX_KEPT", 2)
    texts = [f"{{ a{number} }}" for number in range(4)]
    await scene.store.register([trusted_document(text) for text in texts])
    for text in texts:
        assert await scene.text(sha256=hash_of(text)) == text
    assert len(scene.documents._known) == 2
