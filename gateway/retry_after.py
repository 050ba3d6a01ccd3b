"""When it is worth to ask again, as HTTP says it: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any


def retry_after(answer: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """The header, in whole seconds, for an answer that is errors alone, each of which says when: the longest of them.
    GraphQL answers with 200 all the same; clients and proxies that know the header need not read the body."""
    if any(value is not None for value in (answer.get("data") or {}).values()):
        return ()
    waits = [error["extensions"].get("retryAfterMs") for error in answer.get("errors", ())]
    if not waits or None in waits:
        return ()
    return ((b"retry-after", str(ceil(max(waits) / 1000)).encode()),)
