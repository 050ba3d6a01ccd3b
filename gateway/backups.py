"""Backups: encrypted for one public key (https://age-encryption.org/v1), kept in a bucket for so many days."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage

from persistence.object_records import StoredObject
from persistence.objects.store import Objects, open_objects
from persistence.ports import StoreUnavailableError

from .keys import deployment_keys
from .object_links import ObjectLinks
from .settings import Settings, SettingsError

OWNER = "deployment"  # files belong to somebody: these to no organisation
CHUNK = 1024 * 1024
PAGE = 1000


class BackupError(Exception):
    """It could not be encrypted, found or opened. The text says why."""


class Backups:
    """Opened by `open_backups`. Every method raises StoreUnavailableError, and OSError for its files."""

    def __init__(self, objects: Objects, recipient: str, kept: timedelta) -> None:
        self._objects = objects
        self._recipient = pyrage.x25519.Recipient.from_str(recipient)
        self._kept = kept

    async def keep(self, path: Path, kind: str) -> str:
        """Encrypts the file and keeps it as `kind/TIME.age`, which is returned; then what is too old goes. Raises
        BackupError; then nothing was kept and nothing goes."""
        name = f"{kind}/{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}{''.join(path.suffixes)}.age"
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            sealed = Path(folder) / "sealed"
            try:
                await asyncio.to_thread(pyrage.encrypt_file, str(path), str(sealed), [self._recipient])
            except pyrage.EncryptError as error:  # a full disk too
                raise BackupError(f"{path} could not be encrypted: {error}") from None
            await self._objects.put(OWNER, name, _chunks(sealed))
        await self._objects.forget_older(datetime.now(UTC) - self._kept, prefix=f"{kind}/")
        return name

    async def listed(self) -> Sequence[StoredObject]:
        found: list[StoredObject] = []
        while page := await self._objects.page(OWNER, limit=PAGE, after=found[-1].name if found else None):
            found += page
        return found

    async def fetch(self, name: str, identity: str, path: Path) -> None:
        """Decrypts it into the file, which is there when all of it is. Raises BackupError."""
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            sealed, opened = Path(folder) / "sealed", Path(folder) / "opened"
            await self._download(name, sealed)
            try:
                key = pyrage.x25519.Identity.from_str(identity)
                await asyncio.to_thread(pyrage.decrypt_file, str(sealed), str(opened), [key])
            except (pyrage.IdentityError, pyrage.DecryptError):
                raise BackupError(f"{name}: this identity does not open it") from None
            except OSError as error:  # of the file's end and of each 64 KiB it holds a proof
                raise BackupError(f"{name} is not whole, or there is no room for it here: {error}") from None
            opened.replace(path)

    async def _download(self, name: str, path: Path) -> None:
        try:
            with path.open("wb") as file:
                async for chunk in self._objects.get(OWNER, name):
                    await asyncio.to_thread(file.write, chunk)
        except (FileNotFoundError, ValueError):  # no file's name, either
            raise BackupError(f"there is no {name}: `ai-middleware backup list` shows what there is") from None


async def _chunks(path: Path) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk


@asynccontextmanager
async def open_backups(settings: Settings) -> AsyncIterator[Backups]:
    """Raises SettingsError."""
    if settings.BACKUP_URL is None or settings.BACKUP_RECIPIENT is None:
        raise SettingsError("BACKUP_URL: is not set: say where backups are kept, and BACKUP_RECIPIENT for whom")
    opening = open_objects(
        settings.BACKUP_URL,
        links=ObjectLinks(deployment_keys(settings).signing_secret),
        ca_file=settings.OBJECT_STORE_TLS_CA_FILE,
    )
    async with AsyncExitStack() as stack:
        try:
            objects = await stack.enter_async_context(opening)
            backups = Backups(objects, settings.BACKUP_RECIPIENT, timedelta(days=settings.BACKUP_KEEP_DAYS))
        except (ValueError, StoreUnavailableError) as error:
            raise SettingsError(f"BACKUP_URL: {error}") from None
        except pyrage.RecipientError:
            raise SettingsError("BACKUP_RECIPIENT: is not a public key of age's") from None
        yield backups
