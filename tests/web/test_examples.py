"""Every example, GraphiQL's and the README's, is a document that the schema takes, and its tests are what runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from graphql import OperationDefinitionNode, parse, validate

from graph.schema import build_schema

FOLDER = Path(__file__).parents[2] / "web" / "src" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.graphql"))
README = FOLDER.parents[2] / "README.md"
SCHEMA = build_schema()._schema


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_takes_it(path: Path) -> None:
    document = parse(path.read_text())
    assert validate(SCHEMA, document) == []
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name, "the name is the tab's title"
    assert operation.variable_definitions


def test_every_example_has_its_place() -> None:
    listed = (FOLDER.parent / "examples.ts").read_text()
    assert len(EXAMPLES) == listed.count(".graphql?raw")
    assert [path.name for path in EXAMPLES if f"./examples/{path.name}?raw" not in listed] == []


@pytest.mark.parametrize("text", re.findall(r"```graphql\n(.*?)```", README.read_text(), re.DOTALL))
def test_the_schema_takes_the_readmes(text: str) -> None:
    assert validate(SCHEMA, parse(text)) == []
