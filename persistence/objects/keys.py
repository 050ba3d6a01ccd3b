"""Where an organisation's file lies in a bucket: `files/ORGANISATION/NAME`, under the bucket's own prefix."""

from __future__ import annotations

import re
from hashlib import sha256

MAX_NAME_CHARACTERS = 200

_NAME = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Keys:
    """Names to keys and back. `prefix`: the bucket's part that is ours; empty, or names with "/" between them."""

    def __init__(self, prefix: str) -> None:
        if prefix:
            _checked(prefix)
        self.root = f"{prefix}/files/".removeprefix("/")

    def key(self, organisation: str, name: str) -> str:
        """Raises ValueError for what is no name."""
        return f"{self.folder(organisation)}{_checked(name)}"

    def folder(self, organisation: str, prefix: str = "") -> str:
        """What the keys of an organisation's files under `prefix` begin with. Raises ValueError for what is none."""
        return f"{self.root}{_organisation(organisation)}/{checked_prefix(prefix)}"

    def name(self, key: str) -> str:
        """Without the organisation that is part of the key."""
        return key.removeprefix(self.root).partition("/")[2]


def checked_prefix(prefix: str) -> str:
    """Raises ValueError."""
    if prefix and not prefix.endswith("/"):
        raise ValueError("a prefix of files' names ends with /")
    if prefix:
        _checked(prefix.removesuffix("/"))
    return prefix


def _checked(name: str) -> str:
    plain = len(name) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(name) and ".." not in name
    if not plain or "." in name.split("/"):
        raise ValueError('a file\'s name is of letters, digits and "-_./", without "..", at most 200 characters')
    return name


def _organisation(organisation: str) -> str:
    """Of no two the same, also where the store doesn't tell capitals apart. A plain id stays readable."""
    if _PLAIN.fullmatch(organisation):
        return f"o-{organisation}"
    return f"x-{sha256(organisation.encode(errors='surrogatepass')).hexdigest()}"
