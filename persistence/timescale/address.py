"""What names a database. Apart from the driver, so that a start without one does not load it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit, urlunsplit

_SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg")
_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def dsn(url: str) -> str:
    """`url` in libpq's form (https://www.postgresql.org/docs/current/libpq-connect.html), which may have parameters:
    `sslmode` and `sslrootcert` among them say whether and how TLS is used. Raises ValueError without repeating it."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in _SCHEMES and len(parts.path) > 1 and parts.port != 0
        named = named and bool((parts.hostname or "").encode("idna"))
    except ValueError:  # of a host that is no name too
        named = False
    if not named:
        raise ValueError("is not an address such as postgresql://user:password@host:5432/database")
    if parse_qs(parts.query).get("sslmode", ["prefer"])[-1] not in _TLS_MODES:
        raise ValueError(f"has an sslmode that is none of {', '.join(_TLS_MODES)}")
    return urlunsplit(parts._replace(scheme="postgresql"))
