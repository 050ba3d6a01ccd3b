"""The documents in files: `.graphql`, and the manifests that clients' tools write.

Apollo's persisted query manifest (https://www.npmjs.com/package/@apollo/generate-persisted-query-manifest), and the
JSON object from hash to text that graphql-codegen's client preset
(https://the-guild.dev/graphql/codegen/plugins/presets/preset-client#persisted-documents) and Relay's compiler write.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from resolvers.trusted_documents import hash_of

APOLLO = "apollo-persisted-query-manifest"
_SUFFIXES = frozenset({".graphql", ".gql", ".json"})


class ManifestError(Exception):
    """What is wrong with a file, for people."""


def documents_in(path: Path) -> dict[str, str]:
    """The texts by where each is from. Of a folder, all files of the three kinds in it and below. Raises
    ManifestError."""
    try:
        files = sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES) if path.is_dir() else [path]
        found = {place: text for file in files for place, text in _read(file)}
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
    if not found:
        raise ManifestError(f"{path}: there is no document")
    return found


def _read(file: Path) -> Iterator[tuple[str, str]]:
    text = file.read_bytes().decode()
    if file.suffix != ".json":
        yield str(file), text
        return
    try:
        manifest = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ManifestError(f"{file} is not JSON: {error}") from None
    for name, document in _entries(manifest, file):
        if not isinstance(document, str):
            raise ManifestError(f"{file}: {name}: a document is a text")
        if hash_of(document) != name:
            raise ManifestError(
                f"{file}: {name} is not the SHA-256 of its document: let the tool that writes the file hash by sha256 "
                "(graphql-codegen: `persistedDocuments: { hashAlgorithm: 'sha256' }`)"
            )
        yield f"{file}: {name}", document


def _entries(manifest: Any, file: Path) -> Iterator[tuple[Any, Any]]:
    if isinstance(manifest, dict) and manifest.get("format") == APOLLO:
        operations = manifest.get("operations")
        if manifest.get("version") == 1 and isinstance(operations, list):
            for each in operations:
                yield (each.get("id"), each.get("body")) if isinstance(each, dict) else (None, None)
            return
    elif isinstance(manifest, dict):
        yield from manifest.items()
        return
    raise ManifestError(f"{file} is neither {APOLLO} of version 1 nor an object from hashes to documents")
