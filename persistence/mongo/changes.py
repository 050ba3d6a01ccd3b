"""What any process writes, told to all: MongoDB's change stream of configs, price rules, API keys and provider keys."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ..change_records import AnythingChanged, ApiKeyChanged, Change, ConfigChanged, PricesChanged, ProviderKeysChanged
from .client import Document, HistoryLostError, Mongo

_COLLECTIONS = ["configs", "price_rules", "api_keys", "provider_keys"]
_ONLY_USED = {
    "ns.coll": "api_keys",
    "operationType": "update",
    "updateDescription.updatedFields.revision": {"$exists": False},
}
"""When a key was used last is written often, and concerns no cache."""

_PIPELINE = (
    {"$match": {"$or": [{"ns.coll": {"$in": _COLLECTIONS}}, {"ns.coll": {"$exists": False}}]}},
    {"$match": {"$nor": [_ONLY_USED]}},
    {"$project": {"operationType": 1, "ns": 1, "documentKey": 1}},  # a document's key says whose it is
)


class MongoChanges:
    """`persistence.ports.ChangeFeed`. For one reader."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._token: Document | None = None

    async def changes(self) -> AsyncGenerator[Change, None]:
        try:
            async with self._mongo.watching(_PIPELINE, after=self._token) as watch:
                if self._token is None:
                    yield AnythingChanged()
                    self._token = watch.token
                while watch.alive:
                    event = await watch.next()
                    token = watch.token
                    if event is not None:
                        yield _change(event)
                    self._token = token
                self._token = None
        except HistoryLostError:
            self._token = None
            raise


def _change(event: Document) -> Change:
    key = event.get("documentKey", {}).get("_id")
    if not isinstance(key, dict):
        return AnythingChanged()  # a collection is gone, or its documents are
    if event["ns"]["coll"] == "api_keys":
        return ApiKeyChanged(key["organisation"], key["id"])
    if event["ns"]["coll"] == "provider_keys":
        return ProviderKeysChanged(key["organisation"])
    if "slug" in key:
        return ConfigChanged(key["organisation"], key["slug"])
    return PricesChanged(key["organisation"])
