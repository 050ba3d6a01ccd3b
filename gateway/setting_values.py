"""What the values of settings have to look like."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import urlsplit


def decode_key(text: str) -> bytes:
    """Raises ValueError unless `text` is 32 bytes in base64."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ValueError("is not 32 bytes in base64; `openssl rand -base64 32` makes them")
    return key


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
