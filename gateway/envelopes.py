"""Envelope encryption of what the stores keep for organisations: a key of its own for each text, which a master key
wraps. A new master key wraps those keys anew, and the texts stay as they are.

AES-256-GCM (NIST SP 800-38D) for both. Whose the text is, and for what, is associated data: an envelope that is put
into another's place does not open.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from hashlib import sha256

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from resolvers.provider_keys import SealedElsewhereError

_PREFIX = "env:v1:"
_NAME, _NONCE, _KEY, _TAG = 8, 12, 32, 16  # bytes
_HEAD = _NAME + _NONCE + _KEY + _TAG

PROVIDER_KEY, WEBHOOK_SECRET = "provider key", "webhook secret"  # kinds, no secrets


class Envelopes:
    """Implements `resolvers.provider_keys.Sealing`. `masters`: the present one first. `kind`: what the secrets are, one
    of those below."""

    def __init__(self, masters: Sequence[bytes], kind: str = PROVIDER_KEY) -> None:
        self._kind = kind
        self._masters = {sha256(b"ai-middleware master v1" + each).digest()[:_NAME]: AESGCM(each) for each in masters}
        self._present = next(iter(self._masters))

    def seal(self, text: str, *, organisation: str, name: str) -> str:
        key, bound = secrets.token_bytes(_KEY), self._bound(organisation, name)
        nonce = secrets.token_bytes(_NONCE)
        return _written(self._wrapped(key, bound), nonce + AESGCM(key).encrypt(nonce, text.encode(), bound))

    def open(self, sealed: str, *, organisation: str, name: str) -> str:
        bound = self._bound(organisation, name)
        key, rest = self._unwrapped(sealed, bound)
        try:
            return AESGCM(key).decrypt(rest[:_NONCE], rest[_NONCE:], bound).decode()
        except (InvalidTag, ValueError):
            raise SealedElsewhereError from None

    def resealed(self, sealed: str, *, organisation: str, name: str) -> str | None:
        bound = self._bound(organisation, name)
        key, rest = self._unwrapped(sealed, bound)
        if _read(sealed)[:_NAME] == self._present:
            return None
        return _written(self._wrapped(key, bound), rest)

    def _bound(self, organisation: str, name: str) -> bytes:
        return orjson.dumps([self._kind, organisation, name])

    def _wrapped(self, key: bytes, bound: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return self._present + nonce + self._masters[self._present].encrypt(nonce, key, bound)

    def _unwrapped(self, sealed: str, bound: bytes) -> tuple[bytes, bytes]:
        raw = _read(sealed)
        master = self._masters.get(raw[:_NAME])
        if master is None:
            raise SealedElsewhereError
        try:
            return master.decrypt(raw[_NAME : _NAME + _NONCE], raw[_NAME + _NONCE : _HEAD], bound), raw[_HEAD:]
        except (InvalidTag, ValueError):
            raise SealedElsewhereError from None


def _written(wrapped: bytes, rest: bytes) -> str:
    return _PREFIX + base64.b64encode(wrapped + rest).decode()


def _read(sealed: str) -> bytes:
    try:
        return base64.b64decode(sealed.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise SealedElsewhereError from None
