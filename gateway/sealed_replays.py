"""What streams have told, sealed on its way to a server: answers are nobody else's to read there.

AES-256-GCM (NIST SP 800-38D) with a key for each stream, derived from a master key by HMAC-SHA256 (SP 800-108), so that
random nonces are far too few to meet. An entry's number is associated data: in another's place it does not open.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from persistence.ports import Replays
from persistence.shared_records import Replayed

_NONCE = 12  # bytes


class SealedReplays:
    """Implements `ports.Replays` on others. `masters`: the present one first."""

    def __init__(self, replays: Replays, masters: Sequence[bytes]) -> None:
        self._replays = replays
        self._masters = masters

    async def append(self, organisation: str, stream: str, events: Sequence[Replayed], *, seconds: float) -> None:
        cipher = _cipher(self._masters[0], organisation, stream)
        await self._replays.append(organisation, stream, [_sealed(cipher, event) for event in events], seconds=seconds)

    async def read(self, organisation: str, stream: str, *, after: int, limit: int) -> Sequence[Replayed] | None:
        """None, too, where this deployment's keys don't open it."""
        found = await self._replays.read(organisation, stream, after=after, limit=limit)
        if not found:
            return found
        for master in self._masters:
            cipher = _cipher(master, organisation, stream)
            with suppress(InvalidTag, ValueError):
                return [_opened(cipher, event) for event in found]
        return None


def _cipher(master: bytes, organisation: str, stream: str) -> AESGCM:
    derived = HMAC(master, SHA256())
    derived.update(orjson.dumps(["ai-middleware replay v1", organisation, stream]))
    return AESGCM(derived.finalize())


def _sealed(cipher: AESGCM, event: Replayed) -> Replayed:
    nonce = secrets.token_bytes(_NONCE)
    raw = nonce + cipher.encrypt(nonce, event.event.encode(), b"%d" % event.sequence)
    return replace(event, event=base64.b64encode(raw).decode())


def _opened(cipher: AESGCM, event: Replayed) -> Replayed:
    raw = base64.b64decode(event.event, validate=True)
    return replace(event, event=cipher.decrypt(raw[:_NONCE], raw[_NONCE:], b"%d" % event.sequence).decode())
