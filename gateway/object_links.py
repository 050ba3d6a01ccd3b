"""Signed links to files that this server keeps itself: which file, what for and until when stand in the link itself.

HMAC-SHA256 (RFC 2104) with a key of their own, which HKDF (RFC 5869) derives from the signing secret.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal
from urllib.parse import parse_qsl, urlencode

import orjson
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .exchange import RequestError

PATH = "/files"
_PURPOSE = b"ai-middleware file link v1"
_ALTERED = "this link is not one that this server has made, or it has been changed: ask for a new one"


@dataclass(frozen=True, slots=True)
class Opened:
    """What a link is for."""

    organisation: str
    name: str


class ObjectLinks:
    """Implements `persistence.objects.store.FolderLinks`, and opens the links again. `clock`: seconds since the
    epoch."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._key = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
        self._clock = clock

    def link(self, method: Literal["GET", "PUT"], organisation: str, name: str, *, seconds: float) -> str:
        """Relative to this server's own address."""
        expires_at = ceil(self._clock() + seconds)
        content = {"method": method, "org": organisation, "name": name, "exp": expires_at}
        text = base64.urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=")
        return f"{PATH}?{urlencode({'file': text.decode(), 'signature': self._signature(text).decode()})}"

    def opened(self, method: str, query_string: bytes) -> Opened:
        """Raises RequestError: 403 for none of ours, or one for another method, 410 for an old one."""
        text, signature = _parameters(query_string)
        if not hmac.compare_digest(signature, self._signature(text)):
            raise RequestError(_ALTERED, status=403)
        content = orjson.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
        if content["method"] != method:
            raise RequestError(f"this link is for {content['method']} alone", status=403)
        if content["exp"] <= self._clock():
            raise RequestError("this link has expired: ask for a new one", status=410)
        return Opened(content["org"], content["name"])

    def _signature(self, text: bytes) -> bytes:
        return base64.urlsafe_b64encode(hmac.digest(self._key, text, "sha256")).rstrip(b"=")


def _parameters(query_string: bytes) -> tuple[bytes, bytes]:
    try:
        given = dict(parse_qsl(query_string.decode(), strict_parsing=True, max_num_fields=2))
        return given["file"].encode(), given["signature"].encode()
    except (ValueError, KeyError):
        raise RequestError(_ALTERED, status=403) from None
