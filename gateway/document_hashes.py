"""Requests that name a registered document: `documentId`, or `extensions.persistedQuery.sha256Hash`.

The first is of GraphQL over HTTP's appendix on persisted documents
(https://github.com/graphql/graphql-over-http/pull/264), the second is Apollo's
(https://www.apollographql.com/docs/apollo-server/performance/apq).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resolvers.principal import Principal
from resolvers.trusted_documents import TrustedDocuments

from .exchange import RequestError

_PREFIX = "sha256:"
_APOLLO_VERSION = 1


def names_document(call: Mapping[str, Any]) -> bool:
    """Whether it says what to run without a `query`; not yet, whether it says so as it should."""
    extensions = call.get("extensions")
    return "documentId" in call or (isinstance(extensions, dict) and "persistedQuery" in extensions)


async def with_document(call: Any, documents: TrustedDocuments, principal: Principal) -> Any:
    """The call with the text of the document that is to be run as its `query`. What is no call, or names none, is left
    as it is. Raises RequestError, and as `TrustedDocuments.text` does."""
    if not isinstance(call, dict):
        return call
    query, sha256 = call.get("query"), _hash_of(call)
    if not isinstance(query, str | None):
        return call
    text = await documents.text(principal, query or None, sha256)
    return call if text is None else {**call, "query": text}


def _hash_of(call: Mapping[str, Any]) -> str | None:
    named = call.get("documentId")
    if not isinstance(named, str | None):
        raise RequestError("`documentId` must be a string: a document's SHA-256")
    extensions = call.get("extensions")
    persisted = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
    if persisted is None:
        return None if named is None else named.removeprefix(_PREFIX)
    if not isinstance(persisted, dict) or persisted.get("version") != _APOLLO_VERSION:
        raise RequestError("`extensions.persistedQuery` must be an object, with version 1 and sha256Hash")
    sha256 = persisted.get("sha256Hash")
    if not isinstance(sha256, str) or named is not None:
        raise RequestError("a document is named once: by `documentId`, or by `extensions.persistedQuery.sha256Hash`")
    return sha256
