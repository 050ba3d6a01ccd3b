"""The form of API keys: `aim_`, 40 random characters, and 6 that are their checksum; and their keyed hashes.

The checksum (CRC-32, as zlib has it) tells a key from a slip of the pen, and lets scanners of source code know one, as
GitHub's do: https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX = "aim_"
RANDOM_CHARACTERS = 40  # of 62 each: 238 bits
HINT_CHARACTERS = 6
_CHECK_CHARACTERS = 6
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PURPOSE = b"ai-middleware api key v1"
_FORM = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_CHARACTERS}}})([0-9A-Za-z]{{{_CHECK_CHARACTERS}}})")


class KeyForms:
    """Implements `resolvers.api_keys.KeyMaker`. `masters`: the deployment's encryption keys, the present one first;
    from each a key of its own is derived (HKDF, RFC 5869) for HMAC-SHA256 (RFC 2104)."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        self._keys = [HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(master) for master in masters]

    def make(self) -> tuple[str, str]:
        random = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
        return f"{PREFIX}{random}{_checksum(random)}", f"{PREFIX}{random[:HINT_CHARACTERS]}"

    def digests(self, key: str) -> Sequence[str]:
        found = _FORM.fullmatch(key)
        if found is None or _checksum(found[1]) != found[2]:
            return ()
        return [hmac.digest(each, key.encode(), "sha256").hex() for each in self._keys]


def _checksum(random: str) -> str:
    number, text = zlib.crc32(random.encode()), ""
    for _ in range(_CHECK_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text
