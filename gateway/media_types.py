"""What a client takes, by `Accept` (RFC 9110, 12.5.1), and what it sends, by `Content-Type` and `Content-Encoding`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from .exchange import RequestError

JSON = b"application/json"
GRAPHQL_JSON = b"application/graphql-response+json"
EVENT_STREAM = b"text/event-stream"
_CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii"})  # JSON is UTF-8: RFC 8259, 8.1
_MAX_REMEMBERED_BYTES = 512


@dataclass(frozen=True, slots=True)
class Accepted:
    """`result`: the media type for a single result, None where none is taken. `stream`: whether events are."""

    result: bytes | None
    stream: bool


def accepted(header: bytes) -> Accepted:
    """`application/graphql-response+json` for a client that names it and likes nothing better; `application/json` where
    that is taken, as by `*/*` and without the header."""
    if len(header) > _MAX_REMEMBERED_BYTES:
        return _accepted.__wrapped__(header)
    return _accepted(header)


@lru_cache(maxsize=256)
def _accepted(header: bytes) -> Accepted:
    wanted = dict(_ranges(header))
    if not wanted:
        return Accepted(JSON, stream=False)
    others = wanted.get(b"application/*", wanted.get(b"*/*", 0.0))
    plain, modern = wanted.get(JSON, others), wanted.get(GRAPHQL_JSON, 0.0)
    result = None
    if plain > 0 or modern > 0:
        result = GRAPHQL_JSON if modern >= plain else JSON
    elif others > 0 and GRAPHQL_JSON not in wanted:
        result = GRAPHQL_JSON  # all but plain JSON
    return Accepted(result, stream=wanted.get(EVENT_STREAM, 0.0) > 0)


def _ranges(header: bytes) -> list[tuple[bytes, float]]:
    """Each media range and how much it is liked, 0 to 1."""
    return [
        (name.strip().lower(), _quality(parameters))
        for name, _, parameters in (part.partition(b";") for part in header.split(b","))
        if name.strip()
    ]


def _quality(parameters: bytes) -> float:
    for name, _, value in (parameter.partition(b"=") for parameter in parameters.split(b";")):
        if name.strip().lower() == b"q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0


def check_sent(headers: Mapping[bytes, bytes]) -> None:
    """Raises RequestError, 415, unless the body is plain JSON. No form's content type is taken, so that another site's
    page can send nothing without asking first (https://fetch.spec.whatwg.org/#cors-preflight-fetch)."""
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding != b"identity":
        raise RequestError("the body must not be compressed: send it without content-encoding", status=415)
    sent = headers.get(b"content-type", b"")
    if sent == JSON:
        return
    media_type, _, parameters = sent.partition(b";")
    if media_type.strip().lower() != JSON:
        raise RequestError("the body must be JSON, with content-type application/json", status=415)
    for name, _, value in (parameter.partition(b"=") for parameter in parameters.split(b";")):
        if name.strip().lower() == b"charset" and value.strip().strip(b'"').lower() not in _CHARSETS:
            raise RequestError("the body must be UTF-8, as JSON is", status=415)
