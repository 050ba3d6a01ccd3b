"""How the tables write texts: PostgreSQL's hold every character but NUL."""

from __future__ import annotations

_ESCAPE, _ITSELF = "\ue000", "\ue001"  # of the private use area

NOTHING = _ESCAPE + "\ue002"
"""In a key, which takes no null: the entry has no value, or the cell is not of that dimension. No stored text is it."""


def stored(text: str) -> str:
    """Raises ValueError for half a surrogate pair."""
    if not text.isascii():
        text.encode()
        text = text.replace(_ESCAPE, _ESCAPE + _ITSELF)
    return text.replace("\x00", _ESCAPE + _ESCAPE) if "\x00" in text else text


def plain(text: str) -> str:
    """What was stored."""
    if _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE + _ESCAPE, "\x00").replace(_ESCAPE + _ITSELF, _ESCAPE)
