"""Settings that are secrets may be sealed: `enc:v1:` and base64 of nonce and AES-256-GCM ciphertext."""

from __future__ import annotations

import base64
import binascii
import secrets
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX = "enc:v1:"
_NONCE_BYTES = 12  # NIST SP 800-38D, 8.2
_PURPOSE = b"ai-middleware setting v1"


class SealError(Exception):
    """A sealed value that doesn't open. Says why, and nothing of the value."""


def is_sealed(text: str) -> bool:
    return text.startswith(_PREFIX)


class Sealer:
    """Seals with one key of 32 bytes, and opens what it or a former one has sealed."""

    def __init__(self, key: bytes, *former: bytes) -> None:
        self._ciphers = [AESGCM(each) for each in (key, *former)]

    def seal(self, text: str) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[0].encrypt(nonce, text.encode(), _PURPOSE)
        return _PREFIX + base64.b64encode(nonce + sealed).decode()

    def open(self, text: str) -> str:
        """Raises SealError."""
        try:
            raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
            for cipher in self._ciphers:
                with suppress(InvalidTag):
                    return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _PURPOSE).decode()
        except (binascii.Error, ValueError):
            raise SealError("the value after enc:v1: is not what `ai-middleware encrypt` prints") from None
        raise SealError("was sealed with another ENCRYPTION_KEY, or has been changed") from None
