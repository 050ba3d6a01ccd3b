"""What names a Redis. Apart from the client, so that a start without one does not load it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ADDRESS = re.compile(r"(rediss?://(?:[^/?#]*@)?)([^@/?#]+)((?:/\d{0,9})?(?:\?[^#]*)?)")
_HOST = re.compile(r"(?:[^\s:\[\]]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")


def addresses_of(uri: str) -> Sequence[str]:
    """`redis://user:password@one:6379,two:6379/0`: each of the nodes that it names, alone. Form:
    https://www.iana.org/assignments/uri-schemes/prov/redis. Raises ValueError without repeating it."""
    parts = _ADDRESS.fullmatch(uri)
    hosts = [] if parts is None else parts[2].split(",")
    if parts is None or not all(_is_host(host) for host in hosts):
        raise ValueError(
            "an address is written redis://user:password@host:6379/0, or rediss:// with TLS; in the password '/', '?', "
            "'#' and '%' are percent-encoded"
        )
    return [f"{parts[1]}{host}{parts[3]}" for host in hosts]


def _is_host(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and (found[1] is None or 0 < int(found[1]) < 65536)
