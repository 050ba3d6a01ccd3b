"""Registered documents for tests: a store of them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persistence.ports import StoreUnavailableError
from persistence.trusted_records import TrustedDocument
from resolvers.trusted_documents import hash_of
from tests.persistence.entries import NOON


def trusted_document(text: str, **changes: Any) -> TrustedDocument:
    values: dict[str, Any] = {"sha256": hash_of(text), "text": text, "name": "Viewer", "registered_at": NOON}
    return TrustedDocument(**values | changes)


class MemoryTrustedDocuments:
    """`persistence.ports.TrustedDocumentStore` in memory. `down` fails every call; `reads` counts texts asked for."""

    def __init__(self) -> None:
        self.documents: dict[str, TrustedDocument] = {}
        self.down = False
        self.reads = 0

    async def register(self, documents: Sequence[TrustedDocument]) -> int:
        self._check()
        if any(each.registered_at.microsecond % 1000 for each in documents):
            raise ValueError("a document's time must be whole milliseconds")
        before = len(self.documents)
        self.documents = {each.sha256: each for each in documents} | self.documents
        return len(self.documents) - before

    async def text(self, sha256: str) -> str | None:
        self._check()
        self.reads += 1
        found = self.documents.get(sha256)
        return None if found is None else found.text

    async def remove(self, sha256: str) -> bool:
        self._check()
        return self.documents.pop(sha256, None) is not None

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[TrustedDocument]:
        self._check()
        if limit < 1:
            raise ValueError("limit must be at least 1")
        return [each for key, each in sorted(self.documents.items()) if key > (after or "")][:limit]

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("down")
