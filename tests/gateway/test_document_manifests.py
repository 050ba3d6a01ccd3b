"""The files that documents are registered from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.document_manifests import ManifestError, documents_in
from resolvers.trusted_documents import hash_of

ONE, OTHER = "query One { viewer { subject } }", "mutation Other { revokeApiKey { id } }"


def apollo(*operations: Any, **changes: Any) -> dict[str, Any]:
    """As generate-persisted-query-manifest writes it."""
    return {"format": "apollo-persisted-query-manifest", "version": 1, "operations": list(operations)} | changes


def operation(text: str, **changes: Any) -> dict[str, Any]:
    return {"id": hash_of(text), "name": "One", "type": "query", "body": text} | changes


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return path


def test_a_document_is_the_whole_file_byte_by_byte(tmp_path: Path) -> None:
    path = written(tmp_path, "one.graphql", b"# \xc3\xa9\r\n" + ONE.encode() + b"\n\n")
    assert list(documents_in(path).values()) == [f"# é\r\n{ONE}\n\n"]


@pytest.mark.parametrize(
    "manifest",
    [
        apollo(operation(ONE), operation(OTHER, name="Other", type="mutation")),
        {hash_of(ONE): ONE, hash_of(OTHER): OTHER},
    ],
    ids=["apollo", "graphql-codegen"],
)
def test_a_manifest_holds_several(tmp_path: Path, manifest: Any) -> None:
    assert list(documents_in(written(tmp_path, "manifest.json", manifest)).values()) == [ONE, OTHER]


def test_a_folder_holds_all_that_is_in_it_and_below(tmp_path: Path) -> None:
    written(tmp_path, "a/one.gql", ONE.encode())
    written(tmp_path, "b/c/persisted-documents.json", {hash_of(OTHER): OTHER})
    written(tmp_path, "README.md", b"# no document")
    assert sorted(documents_in(tmp_path).values()) == sorted([ONE, OTHER])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", b"{", "is not JSON"),
        ("m.json", [], "is neither"),
        ("m.json", apollo(operation(ONE), version=2), "is neither"),
        ("m.json", apollo(operations={}), "is neither"),
        ("m.json", apollo(7), "a document is a text"),
        ("m.json", apollo(operation(ONE, body=None)), "a document is a text"),
        ("m.json", apollo(operation(ONE, id=hash_of(OTHER))), "is not the SHA-256 of its document"),
        ("m.json", {"5e1c9a3d0b7f3a8e2d4c6b1a0f9e8d7c6b5a4f3e": ONE}, "hashAlgorithm: 'sha256'"),
        ("m.json", {}, "there is no document"),
        ("m.graphql", b"\xff", "it is not UTF-8"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(ManifestError, match=message) as caught:
        documents_in(path)
    assert str(path) in str(caught.value)


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        documents_in(tmp_path / "missing.json")
    with pytest.raises(ManifestError, match="there is no document"):
        documents_in(tmp_path)
