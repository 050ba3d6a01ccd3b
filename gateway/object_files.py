"""`/files`: files behind signed links, where this server keeps them in a folder."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from persistence.ports import ObjectStore, StoreUnavailableError
from resolvers.errors import ServiceUnavailableError

from .capacity import Capacity
from .exchange import ASGIScope, Exchange, Receive, RequestError, Send
from .link_answers import NEVER_KEPT, TEXT, UNSNIFFED, answering
from .object_links import ObjectLinks, Opened

_BINARY = b"application/octet-stream"
MAX_UPLOAD_BYTES = 1024**3
MAX_UPLOADS = 20  # at once: each keeps 5 to 15 MB in memory, however slowly it comes
_CHUNK_BYTES = 64 * 1024  # of the answer, so that a slow reader makes no more than that wait


class ObjectFiles:
    """An ASGI application: GET and PUT, each with a signed link for it. An upload is of `max_bytes` at most."""

    def __init__(self, store: ObjectStore, links: ObjectLinks, *, max_bytes: int = MAX_UPLOAD_BYTES) -> None:
        self._store = store
        self._links = links
        self._max_bytes = max_bytes
        self._uploads = Capacity(MAX_UPLOADS)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        async with answering(exchange, "file", allow=b"GET, PUT", organisation=None, file=None) as known:
            if scope["method"] not in ("GET", "PUT"):
                raise RequestError("files are downloaded by GET and uploaded by PUT", status=405)
            file = self._links.opened(scope["method"], scope["query_string"])
            known.update(organisation=file.organisation, file=file.name)
            if scope["method"] == "PUT":
                with self._uploads.operation(file):
                    await self._take(exchange, file)
            else:
                with exchange.until_client_leaves():
                    await self._give(exchange, file)

    async def _take(self, exchange: Exchange, file: Opened) -> None:
        async with aclosing(exchange.chunks(self._max_bytes)) as chunks:
            try:
                await self._store.put(file.organisation, file.name, chunks)
            except StoreUnavailableError:
                raise ServiceUnavailableError("the file can't be kept now: send it again") from None
        await exchange.respond(200, b"", media_type=TEXT, headers=(NEVER_KEPT,))

    async def _give(self, exchange: Exchange, file: Opened) -> None:
        async with aclosing(self._store.get(file.organisation, file.name)) as chunks:
            first = await _first(chunks)
            name = file.name.rpartition("/")[2]
            disposition = f'attachment; filename="{name}"'.encode()
            headers = ((b"content-disposition", disposition), UNSNIFFED, NEVER_KEPT)
            await exchange.start(200, media_type=_BINARY, headers=headers)
            await _write(exchange, first)
            async for chunk in chunks:
                await _write(exchange, chunk)
        await exchange.write(b"", more=False)


async def _first(chunks: AsyncGenerator[bytes, None]) -> bytes:
    """Until then there is still an answer to what goes wrong; afterwards the connection is closed in the middle."""
    try:
        return await anext(chunks, b"")
    except FileNotFoundError:
        raise RequestError("there is no such file, or no more", status=404) from None
    except StoreUnavailableError:
        raise ServiceUnavailableError("the file can't be read now: ask again") from None


async def _write(exchange: Exchange, chunk: bytes) -> None:
    for start in range(0, len(chunk), _CHUNK_BYTES):
        await exchange.write(chunk[start : start + _CHUNK_BYTES])
