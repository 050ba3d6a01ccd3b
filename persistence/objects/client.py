"""Connections to object storage: bounded in number and in time. The one importer of obstore.

Sources: https://developmentseed.org/obstore/latest/api/store/config/ (timeouts), .../api/store/aws/, .../gcs/ and
.../azure/ (the vendors' options, which it also reads from the environment), .../api/sign/.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime, timedelta
from heapq import nsmallest
from pathlib import Path
from typing import Any, Literal, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from ..object_records import StoredObject
from ..ports import StoreUnavailableError
from .folder import forget_unfinished, trouble
from .place import NAMES, Place
from .uploads import PART_BYTES

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0  # for what is one small request
IDLE_TIMEOUT_S = 10.0  # a part, and each read of an answer
TRANSFER_TIMEOUT_S = 3600.0  # one file's reading
FINISH_TIMEOUT_S = 120.0  # an upload's putting together, as S3 says: it may take minutes
READ_BYTES = 1024 * 1024
LISTED_AT_ONCE = 1000
_TRIES_TIMEOUT_S = 4.0
_PARTS_AT_ONCE = 2

_FOLDER = "the folder of files"
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_KIND = re.compile(r"kind: ([A-Z][A-Za-z]{1,40})\b")
_CAUSE = re.compile(r"source: ([A-Z][A-Za-z]{1,40})\b")
_TOLD = {
    "UnknownIssuer": "the server's certificate is not of an authority that is trusted",
    "kind: Connect": "can't be reached",
    "kind: Timeout": "does not answer",
}
_REFUSALS = {"301", "400", "401", "403", "404"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}

_T = TypeVar("_T")


class ObjectsRefusedError(StoreUnavailableError):
    """It was reached, and it is the settings that keep us from it. Waiting mends nothing."""


class Bucket:
    """Whole keys, and no more errors than StoreUnavailableError (ObjectsRefusedError where the settings are at fault)
    and FileNotFoundError. Neither holds an address, a credential or a signature, which the library's own texts do."""

    def __init__(self, where: Place, options: Mapping[str, str], ca_file: Path | None) -> None:
        """Raises ValueError for options that can't be used. Connects when it is first used."""
        self._name = NAMES.get(where.scheme, _FOLDER)
        self._folder = Path(where.bucket) if where.is_folder else None
        self._in_order = where.scheme in ("s3", "gs")  # Azure has an order of its own where it has real folders
        try:
            self._store: Any = _store(where, options, ca_file)
        except (BaseError, ValueError, OSError) as error:
            cause = _CAUSE.search(str(error))
            raise ValueError(f"{self._name}: {cause[1] if cause else type(error).__name__}") from None

    async def check(self, prefix: str) -> None:
        """Raises what keeps it from its work on keys that begin so."""
        if self._folder is not None and (told := await asyncio.to_thread(trouble, self._folder)):
            raise StoreUnavailableError(f"{self._name}: {told}")
        await self.first(f"{prefix}look/", 1)

    async def put(self, key: str, content: bytes) -> None:
        await self._asked(self._store.put_async(key, content, use_multipart=False), FINISH_TIMEOUT_S)

    async def put_parts(self, key: str, parts: AsyncIterator[bytes]) -> None:
        """Not to be cancelled: see `uploads.send_in_parts`. What `parts` raises is raised."""
        sending = self._store.put_async(key, parts, chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        await self._asked(sending, None)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        found = await self._asked(self._store.get_async(key), IDLE_TIMEOUT_S)
        chunks = found.stream(min_chunk_size=READ_BYTES)
        while (chunk := await self._asked(anext(chunks, None), IDLE_TIMEOUT_S)) is not None:
            yield bytes(chunk)

    async def about(self, key: str) -> StoredObject | None:
        try:
            found = await self._asked(self._store.head_async(key))
        except FileNotFoundError:
            return None
        return StoredObject(found["path"], found["size"], found["last_modified"])

    async def listed(self, prefix: str, after: str | None = None) -> AsyncGenerator[StoredObject, None]:
        """Those whose keys begin with `prefix`, which ends with "/", and are greater than `after`. Named by keys."""
        pages = self._store.list(prefix.removesuffix("/"), offset=after, chunk_size=LISTED_AT_ONCE)
        while (page := await self._asked(anext(pages, None))) is not None:
            for each in page:
                yield StoredObject(each["path"], each["size"], each["last_modified"])

    async def first(self, prefix: str, limit: int, after: str | None = None) -> Sequence[StoredObject]:
        """The same by their keys."""
        found: list[StoredObject] = []
        async with aclosing(self.listed(prefix, after)) as listed:
            async for each in listed:
                if self._in_order and len(found) == limit:
                    break
                found.append(each)
                if len(found) >= limit + LISTED_AT_ONCE:
                    found = nsmallest(limit, found, key=_key)
        return nsmallest(limit, found, key=_key)

    async def forget_unfinished(self, than: datetime) -> None:
        if self._folder is not None:
            try:
                await asyncio.to_thread(forget_unfinished, self._folder, than)
            except OSError as error:
                raise self._told_apart(error) from None

    async def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            await self._asked(self._store.delete_async(key))

    async def link(self, method: Literal["GET", "PUT"], key: str, seconds: float) -> str:
        lasting = timedelta(seconds=max(1, round(seconds)))
        link: str = await self._asked(obstore.sign_async(self._store, method, key, lasting))
        return link

    async def _asked(self, call: Awaitable[_T], timeout_s: float | None = ANSWER_TIMEOUT_S) -> _T:
        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError:
            raise StoreUnavailableError(f"{self._name}: does not answer") from None
        except (BaseError, FileNotFoundError, OSError, ValueError) as error:
            raise self._told_apart(error) from None  # the chain would show addresses and signatures

    def _told_apart(self, error: Exception) -> Exception:
        text = str(error)
        code, status = _CODE.search(text), _STATUS.search(text)
        no_bucket = code is not None and code[1] in _NO_BUCKET
        if isinstance(error, FileNotFoundError) and not no_bucket:
            return FileNotFoundError("there is no such file")
        if status is not None:
            refused = status[1] in _REFUSALS
            reason = f"HTTP {status[1]}" + (f" {code[1]}" if code else "")
            return (ObjectsRefusedError if refused else StoreUnavailableError)(f"{self._name}: {reason}")
        for told, reason in _TOLD.items():
            if told in text:
                return StoreUnavailableError(f"{self._name}: {reason}")
        cause = _KIND.search(text) or _CAUSE.search(text)
        return StoreUnavailableError(f"{self._name}: {cause[1] if cause else type(error).__name__}")


def _store(where: Place, options: Mapping[str, str], ca_file: Path | None) -> Any:
    if where.is_folder:
        return LocalStore(where.bucket, mkdir=True, automatic_cleanup=True)
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=IDLE_TIMEOUT_S),
        "timeout": timedelta(seconds=TRANSFER_TIMEOUT_S),
        "allow_http": True,  # of an endpoint that is written so; the vendors' own are https
    }
    if ca_file is not None:
        client["root_certificate"] = ca_file.read_bytes()
    retries: Any = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=_TRIES_TIMEOUT_S),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
    }
    kinds: Mapping[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    return kinds[where.scheme](where.bucket, config=dict(options), client_options=client, retry_config=retries)


def _key(found: StoredObject) -> str:
    return found.name
