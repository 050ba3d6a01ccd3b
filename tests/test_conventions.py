"""The budgets and conventions of ARCHITECTURE.md, held to by a test so that nobody has to remember them."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.settings_table import env_example, in_readme, settings_table
from providers.registry import ROWS
from providers.scripted import ScriptedProvider

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "graph", "resolvers", "providers", "persistence")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
VAGUE_NAMES = {"core", "common", "utils", "util", "helpers", "helper", "misc"}
README = (ROOT / "README.md").read_text()

SHIPPED = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERY = sorted({*SHIPPED, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")})


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def comments(source: str) -> dict[int, str]:
    """Line number → what its comment says, apart from orders to linters."""
    found: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            said = re.sub(r"#\s*(noqa|type:\s*ignore|pragma|fmt)\b[^#]*", "", token.string)
            if words := said.strip("# "):
                found[token.start[0]] = words
    return found


def broad_handlers(source: str) -> Iterator[ast.ExceptHandler]:
    """The handlers of `except:`, `except Exception` and `except BaseException`, also within a tuple."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {part.id for part in caught if isinstance(part, ast.Name)}
            if node.type is None or names & {"Exception", "BaseException"}:
                yield node


def unexplained(source: str) -> list[int]:
    said = comments(source)
    return [
        handler.lineno
        for handler in broad_handlers(source)
        if handler.lineno not in said and handler.lineno - 1 not in said
    ]


def test_there_is_something_to_look_at() -> None:
    assert len(SHIPPED) > 30
    assert {path.relative_to(ROOT).parts[0] for path in SHIPPED} == set(PACKAGES)


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in EVERY}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    long = {
        f"{name(path)}:{function.lineno} {function.name}": length
        for path in SHIPPED
        for function in functions(path)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_whoever_catches_everything_says_why() -> None:
    assert [f"{name(path)}:{line}" for path in SHIPPED for line in unexplained(path.read_text())] == []


@pytest.mark.parametrize(
    ("handler", "explained"),
    [
        ("except Exception:", False),
        ("except:", False),
        ("except (ValueError, BaseException) as error:", False),
        ("except Exception:  # noqa: BLE001", False),
        ("except Exception:  # noqa: BLE001  # told to the caller", True),
        ("except Exception:  # told to the caller", True),
        ("# told to the caller\nexcept Exception:", True),
        ("except ValueError:", True),
    ],
)
def test_the_rule_about_catching_everything(handler: str, explained: bool) -> None:
    assert (unexplained(f"try:\n    pass\n{handler}\n    pass\n") == []) is explained


def test_every_name_says_something() -> None:
    parts = {part for path in EVERY for part in path.relative_to(ROOT).with_suffix("").parts}
    assert parts & VAGUE_NAMES == set()


def test_every_folder_of_modules_is_a_package() -> None:
    """`tests/__init__.py` above all: without it `tests/graph` shadows `graph`."""
    folders = {path.parent for path in EVERY if path.parent.name != "versions"}
    assert {name(folder) for folder in folders if not (folder / "__init__.py").exists()} == set()
    assert (ROOT / "tests" / "__init__.py").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_names_are_ours_alone(package: str) -> None:
    assert package not in sys.stdlib_module_names
    assert set(packages_distributions().get(package, ())) <= {"ai-middleware"}


def test_only_the_settings_read_the_environment() -> None:
    reading = re.compile(r"\bos\.environ\b|\bgetenv\b|\bfrom os import .*environ")
    named_there = ["gateway/metrics/processes.py"]  # prometheus-client takes the folder of its files from there alone
    assert [name(path) for path in SHIPPED if reading.search(path.read_text())] == named_there


def test_every_ignored_warning_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    ignored = [
        entry for entry in tomllib.loads(text)["tool"]["pytest"]["ini_options"]["filterwarnings"] if entry != "error"
    ]
    lines = text.splitlines()
    for entry in ignored:
        (place,) = [number for number, line in enumerate(lines) if entry in line.replace("\\\\", "\\")]
        explained = "#" in lines[place].rpartition(",")[2] or lines[place - 1].lstrip().startswith("#")
        assert explained, f"filterwarnings: {entry!r} is ignored without a reason"


def test_every_provider_has_its_settings() -> None:
    fields = set(Settings.model_fields)
    keys = {row.key_variable for row in ROWS}
    addresses = {row.base_url_variable for row in ROWS}
    assert len(keys) == len(addresses) == len({row.name for row in ROWS}) == len(ROWS)
    assert {field for field in fields if field.endswith("_API_KEY")} == keys
    assert {field for field in fields if field.endswith("_BASE_URL")} == addresses


@pytest.mark.parametrize("row", [row for row in ROWS if row.base_url], ids=lambda row: row.name)
def test_the_settings_name_the_address_that_they_replace(row: object) -> None:
    assert f"`{row.base_url}`" in Settings.model_fields[row.base_url_variable].description


def test_the_readme_lists_every_provider() -> None:
    _, _, section = README.partition("## Providers")
    listed = {
        cells[0]: (cells[1], cells[2])
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("| `") and (cells := re.findall(r"[^|]+", line.replace(" ", "")))
    }
    assert set(listed) == {f"`{row.name}`" for row in ROWS} | {f"`{ScriptedProvider().name}`"}
    for row in ROWS:
        key, address = listed[f"`{row.name}`"]
        assert key.startswith(f"`{row.key_variable}`")
        assert address.startswith(f"`{row.base_url_variable}`")


def test_the_readme_has_the_settings_of_today() -> None:
    assert in_readme(README) == README, "`make schema` writes the table"
    assert (ROOT / ".env.example").read_text() == env_example(), "`make schema` writes it"


def test_every_setting_is_described() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, "a description with a bar in it breaks the table"
        assert cells[0].strip("`") in Settings.model_fields
        assert cells[2].endswith(".")


def test_a_readme_without_a_place_for_the_tables() -> None:
    providers = "<!-- providers -->\nold\n<!-- /providers -->"
    with pytest.raises(ValueError, match="<!-- settings -->"):
        in_readme(f"# AI Middleware\n{providers}\n<!-- settings -->\n")
    before, after = "# AI Middleware\n\n", "\n\n## More\n"
    written = in_readme(f"{before}{providers}\n<!-- settings -->\nold\n<!-- /settings -->{after}")
    assert written.startswith(before)
    assert written.endswith(after)
    assert "\nold\n" not in written
    assert in_readme(written) == written
