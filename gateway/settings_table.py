"""The README's table of settings, from the settings class: `python -m gateway.settings_table` writes it."""

from __future__ import annotations

from pathlib import Path

from pydantic.fields import FieldInfo

from .settings import Settings

BEGIN, END = "<!-- settings -->", "<!-- /settings -->"


def settings_table() -> str:
    """Markdown: a row for each setting, its name, its default and what it means."""
    rows = [f"| `{name}` | {_default(field)} | {field.description} |" for name, field in Settings.model_fields.items()]
    return "\n".join(["| name | default | meaning |", "|---|---|---|", *rows])


def in_readme(text: str) -> str:
    """`text` with the table of today between its markers. Raises ValueError where they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no place for the settings: {BEGIN} and {END}")
    return f"{before}{begin}\n{settings_table()}\n{end}{after}"


def _default(field: FieldInfo) -> str:
    return "" if field.default in (None, ()) else f"`{field.default}`"


def main() -> None:
    readme = Path("README.md")
    readme.write_text(in_readme(readme.read_text()))


if __name__ == "__main__":
    main()
