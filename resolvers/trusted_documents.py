"""Registered documents, asked for by their hash; where nothing else is trusted, they alone are run."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256 as digest
from typing import TypeVar

from persistence.ports import StoreUnavailableError, TrustedDocumentStore

from .errors import BadUserInputError, PersistedQueryNotFoundError, ServiceUnavailableError
from .principal import Principal
from .query_costs import CostBuckets, caller_of

FRESH_S = 5.0
"""For so long a document that has been removed is run, and for UNKNOWN_S one that is new is not found."""
UNKNOWN_S = 1.0
MAX_KEPT = 2_000
MAX_UNKNOWN = 10_000
LOOK_UP_POINTS = 2

Kept = TypeVar("Kept")

_SHA256 = re.compile(r"[0-9a-f]{64}")


def hash_of(text: str) -> str:
    return digest(text.encode()).hexdigest()


class TrustedDocuments:
    """`clock` is monotonic, in seconds. `alone`: a text that is not registered is refused."""

    def __init__(
        self, store: TrustedDocumentStore, buckets: CostBuckets, clock: Callable[[], float], *, alone: bool
    ) -> None:
        self._store = store
        self._buckets = buckets
        self._clock = clock
        self._alone = alone
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()

    async def text(self, principal: Principal, query: str | None, sha256: str | None) -> str | None:
        """What to run, for a request with one of them or both; None for one with neither.

        Raises PersistedQueryNotFoundError for a hash that is not registered, BadUserInputError for one that is none or
        is not the query's, ServiceUnavailableError where the store is away and the document not known, and
        RateLimitedError.
        """
        if sha256 is not None:
            sha256 = sha256.lower()
            if _SHA256.fullmatch(sha256) is None:
                raise BadUserInputError("a document's hash is its SHA-256, in 64 hexadecimal digits")
        if query is not None and sha256 is not None and hash_of(query) != sha256:
            raise BadUserInputError("the hash is not the SHA-256 of `query`")
        if query is not None and not self._alone:
            return query
        if sha256 is None:
            if query is None:
                return None
            sha256 = hash_of(query)
        text = await self._registered(principal, sha256)
        if text is None:
            raise PersistedQueryNotFoundError(
                "only registered documents are run here, and this is none"
                if self._alone
                else "no document is registered by this hash: send it as `query`"
            )
        return text

    async def _registered(self, principal: Principal, sha256: str) -> str | None:
        now = self._clock()
        text, fresh_until = self._known.get(sha256, (None, 0.0))
        if now < max(fresh_until, self._unknown.get(sha256, 0.0)):
            return text
        self._buckets.take(caller_of(principal), LOOK_UP_POINTS)
        try:
            found = await self._store.text(sha256)
        except StoreUnavailableError:
            if text is None:
                raise ServiceUnavailableError("registered documents can't be read now: ask again") from None
            found = text
        _put(self._known, sha256, None if found is None else (found, now + FRESH_S), MAX_KEPT)
        _put(self._unknown, sha256, now + UNKNOWN_S if found is None else None, MAX_UNKNOWN)
        return found


def _put(entries: OrderedDict[str, Kept], key: str, kept: Kept | None, at_most: int) -> None:
    """None: forget it. The one longest unasked goes first."""
    entries.pop(key, None)
    if kept is not None:
        entries[key] = kept
        if len(entries) > at_most:
            entries.popitem(last=False)
