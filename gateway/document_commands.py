"""`ai-middleware documents`: what is run where registered documents are run alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from graph.documents import DocumentCache, RefusedError
from graph.schema import build_schema
from persistence.migrations.sqlite import migrate
from persistence.ports import StoreUnavailableError, TrustedDocumentStore
from persistence.trusted_records import TrustedDocument
from resolvers.trusted_documents import hash_of

from .console import fail
from .document_manifests import ManifestError, documents_in
from .settings import Settings, SettingsError, load_settings
from .stores import DATABASE_FILE, open_documents

PAGE = 200

T = TypeVar("T")

app = typer.Typer(name="documents", help="Registered documents: with TRUSTED_DOCUMENTS they are run alone.")


@app.callback()
def _commands() -> None:
    """Works on the store of the settings, beside the servers that run: they learn of a change within seconds."""


@app.command()
def register(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            help="A .graphql file, or a manifest of Apollo's or graphql-codegen's tools; or a folder of these.",
        ),
    ],
) -> None:
    """Registers documents, all of them or none: each must be one that the schema takes."""
    try:
        texts = documents_in(path)
    except ManifestError as error:
        fail(str(error))
    documents = _checked(texts)
    added = _on_store(lambda store: store.register(documents))
    typer.echo(f"registered {added}, known before {len(documents) - added}")


@app.command(name="list")
def list_all() -> None:
    """Prints each document's hash, the day of its registration and its operations."""
    for each in _on_store(_every):
        typer.echo(f"{each.sha256}  {each.registered_at:%Y-%m-%d}  {each.name}")


@app.command()
def remove(
    hashes: Annotated[list[str], typer.Argument(metavar="HASH...", help="As `documents list` shows them.")],
) -> None:
    """Removes documents; a server runs one for some seconds more."""

    async def run(store: TrustedDocumentStore) -> Sequence[str]:
        return [each for each in hashes if not await store.remove(each)]

    missing = _on_store(run)
    if missing:
        fail(f"not registered: {', '.join(missing)}")
    typer.echo(f"removed {len(hashes)}")


def _checked(texts: dict[str, str]) -> Sequence[TrustedDocument]:
    cache = DocumentCache(build_schema()._schema)
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    found: dict[str, TrustedDocument] = {}
    wrong = []
    for place, text in texts.items():
        try:
            operations = cache.get(text).operations
        except RefusedError as error:
            wrong.append(f"{place}: {error.errors[0].message}")
            continue
        name = ", ".join(each or "(unnamed)" for each in operations)
        found[hash_of(text)] = TrustedDocument(hash_of(text), text, name, now)
    if wrong:
        fail("\n".join(["nothing is registered: the schema does not take", *wrong]))
    return list(found.values())


async def _every(store: TrustedDocumentStore) -> Sequence[TrustedDocument]:
    found: list[TrustedDocument] = []
    while page := await store.page(limit=PAGE, after=found[-1].sha256 if found else None):
        found.extend(page)
    return found


def _on_store(work: Callable[[TrustedDocumentStore], Awaitable[T]]) -> T:
    settings = load_settings()
    _migrated(settings)

    async def run() -> T:
        async with AsyncExitStack() as stack:
            return await work((await open_documents(settings, stack)).trusted)

    try:
        return asyncio.run(run())
    except StoreUnavailableError as error:
        raise SettingsError(f"registered documents can't be reached: {error}") from None


def _migrated(settings: Settings) -> None:
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        migrate(settings.DATA_DIR / DATABASE_FILE)
    except (OSError, StoreUnavailableError) as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
