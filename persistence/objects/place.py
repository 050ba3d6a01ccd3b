"""What the address of a bucket or a folder says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAMES: Mapping[str, str] = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure"}
"""By the address's scheme."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an address says: `bucket` is a folder's path where `scheme` is "file"."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def is_folder(self) -> bool:
        return self.scheme == "file"


def place(url: str | Path) -> Place:
    """Raises ValueError. The text doesn't quote the address."""
    if isinstance(url, Path):
        return Place("file", str(url.absolute()), "")
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return Place("file", unquote(parts.path), "")
    named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", parts.netloc)
    if parts.scheme not in NAMES or not named or parts.query or parts.fragment:
        raise ValueError("is one of s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///FOLDER")
    return Place(parts.scheme, parts.netloc, parts.path.strip("/"))
