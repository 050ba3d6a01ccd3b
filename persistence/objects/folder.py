"""What a folder needs beside its client: a look at it, and an end of what killed processes left in it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

_UNFINISHED = re.compile(r".+#\d+")
"""What the client calls a file until it is whole. No file's own name has a #."""


def private(folder: Path) -> None:
    """Made where there is none, for its owner alone. One that is there stays as it is, and what can't be made will be
    told by a look at it. Blocks."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def trouble(folder: Path) -> str | None:
    """What keeps files from being kept there. Blocks."""
    if not folder.is_dir():
        return "is not there"
    return None if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "can't be written"


def forget_unfinished(folder: Path, than: datetime) -> None:
    """Delete what has been half a file since before then. Blocks. Raises OSError."""
    for inside, _, names in os.walk(folder):
        for name in filter(_UNFINISHED.fullmatch, names):
            path = Path(inside, name)
            try:
                if path.stat().st_mtime < than.timestamp():
                    path.unlink()
            except FileNotFoundError:
                continue  # it has been finished meanwhile
