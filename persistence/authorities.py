"""Files of the authorities that a server's certificate is held against."""

from __future__ import annotations

import ssl
from pathlib import Path


def check_authorities(path: Path | None) -> None:
    """Raises ValueError for a file that is not there, or holds no certificate as PEM (RFC 7468): every connection would
    fail, and look as if its server were away."""
    try:
        if path is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:  # an SSLError is one
        raise ValueError(f"{path} can't be read as a file of certificates") from None
