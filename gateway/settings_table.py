"""The README's tables and `.env.example`, from the code: `python -m gateway.settings_table`
writes them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

from providers.registry import ROWS, ProviderRow
from providers.scripted import ScriptedProvider

from .settings import Settings, vendor_fields


def settings_table() -> str:
    """Markdown: a row for each setting, its name, its default and what it means. The vendors' come last."""
    rows = [f"| `{name}` | {_default(field)} | {field.description} |" for name, field in _ordered()]
    return "\n".join(["| name | default | meaning |", "|---|---|---|", *rows])


def providers_table() -> str:
    """Markdown: a row for each provider, its name, and the settings that hold its key and its address."""
    scripted = f"| `{ScriptedProvider().name}` | none; with `ENVIRONMENT=LOCAL` only | none: a development fake |"
    head = ["| name | key | address, when not the vendor's own |", "|---|---|---|"]
    return "\n".join([*head, *map(_provider, ROWS), scripted])


TABLES: Mapping[str, Callable[[], str]] = {"providers": providers_table, "settings": settings_table}


def env_example() -> str:
    """A file for `docker run --env-file`: every setting with its meaning and its default, all commented out."""
    head = "# The settings, as `docker run --env-file` takes them. An empty value counts as not set."
    return "\n".join([head, *map(_example, _ordered()), ""])


def in_readme(text: str) -> str:
    """`text` with the tables of today between their markers. Raises ValueError where these are not there."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found_begin or not found_end:
            raise ValueError(f"the README has no place for the {name}: {begin} and {end}")
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


def _ordered() -> Sequence[tuple[str, FieldInfo]]:
    vendors = vendor_fields(ROWS)
    return sorted(Settings.model_fields.items(), key=lambda item: item[0] in vendors)


def _example(setting: tuple[str, FieldInfo]) -> str:
    name, field = setting
    meaning = textwrap.fill(field.description or "", width=118, initial_indent="# ", subsequent_indent="# ")
    return f"\n{meaning}\n#{name}={_default(field).strip('`')}"


def _provider(row: ProviderRow) -> str:
    key = f"`{row.key_variable}`" + (", where it takes one" if row.keyless else "")
    address = f"`{row.base_url_variable}`" + ("" if row.base_url else ", needed")
    return f"| `{row.name}` | {key} | {address} |"


def _default(field: FieldInfo) -> str:
    return "" if field.default in (None, ()) else f"`{field.default}`"


def main() -> None:
    readme = Path("README.md")
    readme.write_text(in_readme(readme.read_text()))
    Path(".env.example").write_text(env_example())


if __name__ == "__main__":
    main()
