"""What the values of settings have to look like."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import urlsplit

from .sealing import Sealer, SealError, is_sealed

MAX_WEIGHT = 1000


class SettingsError(Exception):
    """One line that names the variable and what is wrong with it; never its value where that is a secret."""


def decode_key(text: str) -> bytes:
    """Raises ValueError unless `text` is 32 bytes in base64."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ValueError("is not 32 bytes in base64; `openssl rand -base64 32` makes them")
    return key


def decode_keys(text: str) -> list[bytes]:
    """The keys between commas, the present one first. Raises ValueError as `decode_key`, and for the same one twice."""
    keys = [decode_key(each.strip()) for each in text.split(",")]
    if len(set(keys)) < len(keys):
        raise ValueError("has the same key twice")
    return keys


def is_plain_address(text: str) -> bool:
    """Without a user and password: addresses are logged and printed, and keys have their own variables."""
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").encode("idna"), parts.port  # each raises for what can't be one
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(host)
        and port != 0
        and is_plain(text)
        and not any(mark in text for mark in "@?#")
    )


def is_safe_address(text: str) -> bool:
    """Plain, and https, or of this machine."""
    return is_plain_address(text) and (
        urlsplit(text).scheme == "https" or urlsplit(text).hostname in ("localhost", "127.0.0.1", "::1")
    )


def is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def read_key(variable: str, text: str, sealer: Sealer) -> tuple[str, int]:
    """One of the list, plain or sealed, and how many calls it gets to another's one: `key*3`."""
    text, star, weight = (part.strip() for part in text.partition("*"))
    if star and not (weight.isascii() and weight.isdigit() and 1 <= int(weight) <= MAX_WEIGHT):
        raise SettingsError(f"{variable}: a key's weight is a whole number, 1 to {MAX_WEIGHT}, as in key*3")
    if is_sealed(text):
        try:
            text = sealer.open(text).strip()
        except SealError as error:
            raise SettingsError(f"{variable}: {error}") from None
    if not is_plain(text):
        raise SettingsError(f"{variable}: has characters that no HTTP header may carry")
    return text, int(weight or 1)
