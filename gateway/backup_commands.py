"""`ai-middleware backup`: what can't be made anew, encrypted and kept elsewhere."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from persistence.ports import StoreUnavailableError

from .backups import BackupError, Backups, open_backups
from .console import fail
from .settings import Settings, SettingsError, load_settings

DOCUMENTS = "documents"

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `backup list` shows it.")]

_T = TypeVar("_T")

app = typer.Typer(name="backup", help="Encrypted backups of the databases, in BACKUP_URL.")


@app.callback()
def _commands() -> None:
    """What is kept is encrypted for BACKUP_RECIPIENT; only who has its private key can read it."""


@app.command()
def documents() -> None:
    """Keeps all documents of MongoDB, as they are at this moment. Servers go on meanwhile."""
    settings = load_settings()
    uri = _documents_uri(settings)
    from persistence.mongo.archive import write_archive

    with tempfile.TemporaryDirectory(dir=_work_folder(settings)) as folder:
        path = Path(folder) / "documents.bson.gz"
        try:
            count = write_archive(uri, path, ca_file=settings.MONGODB_TLS_CA_FILE)
        except (StoreUnavailableError, OSError) as error:
            fail(f"the documents could not be read: {error}")
        name = _with_backups(settings, lambda backups: backups.keep(path, DOCUMENTS))
    typer.echo(f"{name}: {count} documents")


@app.command()
def keep(
    path: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Such as pg_dump's.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="What it is of; it stands before its name.")] = "ledger",
) -> None:
    """Keeps a file that another program made."""
    if not kind.isascii() or not kind.isalnum():
        fail(f"{kind!r}: a kind is of letters and digits")
    name = _with_backups(load_settings(), lambda backups: backups.keep(path, kind))
    typer.echo(f"{name}: {path.stat().st_size} bytes before")


@app.command(name="list")
def list_kept() -> None:
    """Lists what is kept, the oldest of each kind first, with its bytes."""
    for each in _with_backups(load_settings(), lambda backups: backups.listed()):
        typer.echo(f"{each.name}  {each.size_bytes}")


@app.command()
def fetch(
    name: NameArgument,
    identity: Annotated[
        Path, typer.Option(metavar="FILE", exists=True, help="The private key, as `age-keygen` writes it.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="What to write.")],
) -> None:
    """Decrypts one of them into a file."""
    keys = [line for line in identity.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-")]
    if len(keys) != 1:
        fail(f"{identity} has no line that begins with AGE-SECRET-KEY-, or several")
    _with_backups(load_settings(), lambda backups: backups.fetch(name, keys[0], output))


@app.command()
def restore_documents(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="As `backup fetch` wrote it.")
    ],
) -> None:
    """Puts documents back into a MongoDB that is migrated and empty."""
    settings = load_settings()
    uri = _documents_uri(settings)
    from persistence.mongo.archive import ArchiveError, read_archive

    try:
        count = read_archive(uri, path, ca_file=settings.MONGODB_TLS_CA_FILE)
    except (ArchiveError, StoreUnavailableError) as error:
        fail(str(error))
    typer.echo(f"{count} documents are back")


def _documents_uri(settings: Settings) -> str:
    if settings.MONGODB_CONNECTION_URI is None:
        raise SettingsError(
            "MONGODB_CONNECTION_URI: is not set, and the embedded store is a file in DATA_DIR: copy that"
        )
    return settings.MONGODB_CONNECTION_URI.get_secret_value()


def _work_folder(settings: Settings) -> Path:
    """Where there is room for a file of the whole."""
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
    return settings.DATA_DIR


def _with_backups(settings: Settings, work: Callable[[Backups], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with open_backups(settings) as backups:
            return await work(backups)

    try:
        return asyncio.run(run())
    except (BackupError, StoreUnavailableError, OSError) as error:
        fail(str(error))
