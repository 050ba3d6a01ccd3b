"""Organisations' files on a bucket or in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import structlog

from ..authorities import check_authorities
from ..object_records import StoredObject
from ..ports import LINK_SECONDS_AT_MOST, StoreUnavailableError
from .client import Bucket, ObjectsRefusedError
from .folder import private
from .keys import Keys, checked_prefix
from .place import place
from .uploads import PART_BYTES, parts_of, send_in_parts

log = structlog.get_logger("objects")


class FolderLinks(Protocol):
    """Links to a folder's files, which has no server of its own."""

    def link(self, method: Literal["GET", "PUT"], organisation: str, name: str, *, seconds: float) -> str: ...


class Objects:
    """Implements `ports.ObjectStore`. Opened by `open_objects`.

    The parts of an upload whose process was killed stay unseen: in a folder until `forget_older`, in a bucket until its
    own rule (S3's AbortIncompleteMultipartUpload) ends them.
    """

    def __init__(self, bucket: Bucket, keys: Keys, links: FolderLinks | None) -> None:
        self._bucket = bucket
        self._keys = keys
        self._links = links

    async def look(self) -> str | None:
        """What keeps it from its work, in a line; None where nothing does."""
        try:
            await self._bucket.check(self._keys.root)
        except StoreUnavailableError as error:
            return str(error)
        return None

    async def put(self, organisation: str, name: str, content: AsyncIterable[bytes]) -> int:
        key = self._keys.key(organisation, name)
        async with aclosing(parts_of(content)) as parts:
            first = await anext(parts, b"")
            if len(first) == PART_BYTES:
                return await send_in_parts(partial(self._bucket.put_parts, key), first, parts)
        await self._bucket.put(key, first)
        return len(first)

    async def get(self, organisation: str, name: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._bucket.read(self._keys.key(organisation, name))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def about(self, organisation: str, name: str) -> StoredObject | None:
        found = await self._bucket.about(self._keys.key(organisation, name))
        return None if found is None else replace(found, name=name)

    async def page(
        self, organisation: str, *, prefix: str = "", limit: int, after: str | None = None
    ) -> Sequence[StoredObject]:
        start = None if after is None else self._keys.key(organisation, after)
        found = await self._bucket.first(self._keys.folder(organisation, prefix), limit, start)
        return [replace(each, name=self._keys.name(each.name)) for each in found]

    async def delete(self, organisation: str, name: str) -> None:
        await self._bucket.delete(self._keys.key(organisation, name))

    async def upload_link(self, organisation: str, name: str, *, seconds: float) -> str:
        return await self._link("PUT", organisation, name, seconds)

    async def download_link(self, organisation: str, name: str, *, seconds: float) -> str:
        return await self._link("GET", organisation, name, seconds)

    async def forget_older(self, than: datetime, *, prefix: str = "") -> int:
        """Looks at every file there is."""
        checked_prefix(prefix)
        await self._bucket.forget_unfinished(than)
        forgotten = 0
        async with aclosing(self._bucket.listed(self._keys.root)) as files:
            async for each in files:
                if each.written_at < than and self._keys.name(each.name).startswith(prefix):
                    await self._bucket.delete(each.name)
                    forgotten += 1
        return forgotten

    async def _link(self, method: Literal["GET", "PUT"], organisation: str, name: str, seconds: float) -> str:
        key = self._keys.key(organisation, name)
        if not 0 < seconds <= LINK_SECONDS_AT_MOST:
            raise ValueError(f"a link lasts for {LINK_SECONDS_AT_MOST} seconds at most")
        if self._links is not None:
            return self._links.link(method, organisation, name, seconds=seconds)
        return await self._bucket.link(method, key, seconds)


@asynccontextmanager
async def open_objects(
    url: str | Path, *, links: FolderLinks, options: Mapping[str, str] | None = None, ca_file: Path | None = None
) -> AsyncIterator[Objects]:
    """`url` is s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or a folder: file:///FOLDER, made where
    there is none. `options` are a vendor's own (`aws_access_key_id`, `google_service_account_key`,
    `azure_storage_account_name`); what they leave open, its environment variables and the machine's identity say.
    `links` are a folder's. Raises ValueError for what can't be used, or what the store refuses; StoreUnavailableError
    for a folder that can't be written. A bucket that nobody answers for is waited for."""
    check_authorities(ca_file)
    where = place(url)
    if where.is_folder:
        await asyncio.to_thread(private, Path(where.bucket))
    bucket = Bucket(where, options or {}, ca_file)
    keys = Keys(where.prefix)
    try:
        await bucket.check(keys.root)
    except ObjectsRefusedError as error:
        raise ValueError(f"it refuses: {error}") from None
    except StoreUnavailableError as error:
        if where.is_folder:
            raise
        log.warning("files can't be reached yet", reason=str(error))
    yield Objects(bucket, keys, links if where.is_folder else None)
