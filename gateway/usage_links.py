"""Signed links to usage as CSV: whose, which query and until when stand in the link itself, so nothing is stored.

HMAC-SHA256 (RFC 2104) with a key of their own, which HKDF (RFC 5869) derives from the signing secret.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from persistence.usage_records import Dimension, LabelName, UsageField, UsageFilter
from resolvers.calendar import Bucket
from resolvers.errors import BadUserInputError
from resolvers.principal import UNLIMITED, Limits, Principal, Scope
from resolvers.usage import UsageQuery
from resolvers.usage_links import UsageLink

from .exchange import RequestError

PATH = "/usage.csv"
LIFETIME_S = 15 * 60
MAX_QUERY_CHARACTERS = 8 * 1024  # as the link has it; a link must fit in a request's head, also that of a proxy
_PURPOSE = b"ai-middleware usage link v1"
_ALTERED = "this link is not one that this server has made, or it has been changed: ask for a new one"


class SignedLinks:
    """Implements `resolvers.usage_links.UsageLinks`, and opens the links again. `clock`: seconds since the epoch."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._key = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
        self._clock = clock

    def link(self, principal: Principal, query: UsageQuery) -> UsageLink:
        expires_at = int(min(self._clock() + LIFETIME_S, principal.expires_at))
        whose = {"org": principal.organisation, "sub": principal.subject, "key": principal.key_id}
        content = {**whose, "networks": principal.limits.networks, "exp": expires_at, **_written(query)}
        text = base64.urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=")
        if len(text) > MAX_QUERY_CHARACTERS:
            raise BadUserInputError(
                "the query is too long for a link: filter by fewer values, or ask `usage`", path=("input", "filter")
            )
        parameters = urlencode({"query": text.decode(), "signature": self._signature(text).decode()})
        return UsageLink(f"{PATH}?{parameters}", datetime.fromtimestamp(expires_at, UTC))

    def opened(self, query_string: bytes) -> tuple[Principal, UsageQuery]:
        """Who asked for the link, and for what. Whether his key still opens, and from where, is the caller's to ask.
        Raises RequestError: 403 for none of ours, 410 for an old one."""
        text, signature = _parameters(query_string)
        if not hmac.compare_digest(signature, self._signature(text)):
            raise RequestError(_ALTERED, status=403)
        content = orjson.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
        if content["exp"] <= self._clock():
            raise RequestError("this link has expired: ask for a new one", status=410)
        networks = content.get("networks")
        principal = Principal(
            content["sub"],
            content["org"],
            frozenset({Scope.USAGE_READ.value}),
            float(content["exp"]),
            limits=UNLIMITED if networks is None else Limits(networks=tuple(networks)),
            key_id=content.get("key"),
        )
        return principal, _read(content)

    def _signature(self, text: bytes) -> bytes:
        return base64.urlsafe_b64encode(hmac.digest(self._key, text, "sha256")).rstrip(b"=")


def _parameters(query_string: bytes) -> tuple[bytes, bytes]:
    try:
        given = dict(parse_qsl(query_string.decode(), strict_parsing=True, max_num_fields=2))
        return given["query"].encode(), given["signature"].encode()
    except (ValueError, KeyError):
        raise RequestError(_ALTERED, status=403) from None


def _written(query: UsageQuery) -> dict[str, Any]:
    """As JSON; what `_read` makes a query of again."""
    return {
        "since": query.since.isoformat(),
        "until": query.until.isoformat(),
        "bucket": query.bucket,
        "zone": query.time_zone,
        "by": [{"label": each.name} if isinstance(each, LabelName) else each.value for each in query.group_by],
        "fields": {name.value: list(values) for name, values in query.where.fields.items()},
        "labels": [list(label) for label in query.where.labels],
    }


def _read(content: dict[str, Any]) -> UsageQuery:
    return UsageQuery(
        since=datetime.fromisoformat(content["since"]),
        until=datetime.fromisoformat(content["until"]),
        bucket=None if content["bucket"] is None else Bucket(content["bucket"]),
        time_zone=content["zone"],
        group_by=tuple(_dimension(each) for each in content["by"]),
        where=UsageFilter(
            fields={UsageField(name): values for name, values in content["fields"].items()},
            labels=[(name, value) for name, value in content["labels"]],
        ),
    )


def _dimension(written: Any) -> Dimension:
    return LabelName(written["label"]) if isinstance(written, dict) else UsageField(written)
