"""`results.md`: a chapter by each of the `make bench…` targets, which writes its own anew and leaves the others."""

from __future__ import annotations

import re
from pathlib import Path

_FILE = Path(__file__).with_name("results.md")
_TITLE = re.compile(r"^(?=# )", re.MULTILINE)


def write_chapter(text: str, file: Path = _FILE) -> None:
    """`text` begins with its title, a line of "# ", by which the chapter is known; it has no other such line."""
    chapters = _TITLE.split(file.read_text())[1:] if file.exists() else []
    title = text.partition("\n")[0]
    others = [chapter for chapter in chapters if chapter.partition("\n")[0] != title]
    place = next((n for n, chapter in enumerate(chapters) if chapter.partition("\n")[0] == title), len(others))
    others.insert(place, text)
    file.write_text("\n".join(f"{chapter.rstrip()}\n" for chapter in others))
