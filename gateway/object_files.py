"""`/files`: files behind signed links, where this server keeps them in a folder. A link is a secret while it opens:
nothing logs its query."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from graph.errors import UNEXPECTED
from persistence.ports import ObjectStore, StoreUnavailableError
from resolvers.errors import DomainError, ServiceUnavailableError

from .exchange import ASGIScope, ClientLeftError, Exchange, Receive, RequestError, Send
from .object_links import ObjectLinks, Opened

log = structlog.get_logger("http")

_BINARY = b"application/octet-stream"
_TEXT = b"text/plain; charset=utf-8"
_NEVER_KEPT = (b"cache-control", b"no-store")
_UNSNIFFED = (b"x-content-type-options", b"nosniff")
MAX_UPLOAD_BYTES = 1024**3
_CHUNK_BYTES = 64 * 1024  # of the answer, so that a slow reader makes no more than that wait


class ObjectFiles:
    """An ASGI application: GET and PUT, each with a signed link for it. An upload is of `max_bytes` at most."""

    def __init__(self, store: ObjectStore, links: ObjectLinks, *, max_bytes: int = MAX_UPLOAD_BYTES) -> None:
        self._store = store
        self._links = links
        self._max_bytes = max_bytes

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        started = time.perf_counter()
        file: Opened | None = None
        try:
            if scope["method"] not in ("GET", "PUT"):
                raise RequestError("files are downloaded by GET and uploaded by PUT", status=405)
            file = self._links.opened(scope["method"], scope["query_string"])
            if scope["method"] == "PUT":
                await self._take(exchange, file)
            else:
                with exchange.until_client_leaves():
                    await self._give(exchange, file)
        except ClientLeftError:
            exchange.status = 499
        except DomainError as error:
            await _refuse(exchange, error)
        except asyncio.CancelledError:
            if exchange.status:
                raise  # half an answer is out already: the server closes the connection
            await _refuse(exchange, ServiceUnavailableError("the server is shutting down: ask again"))
        except Exception:  # the last place where a defect of ours can still become an answer
            log.exception("unexpected error", request_id=exchange.request_id)
            if exchange.status:
                raise  # half an answer is out already: the server closes the connection
            await _respond_line(exchange, 500, UNEXPECTED)
        finally:
            log.info(
                "file",
                request_id=exchange.request_id,
                method=scope["method"],
                status=exchange.status,
                organisation=file.organisation if file else None,
                file=file.name if file else None,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )

    async def _take(self, exchange: Exchange, file: Opened) -> None:
        async with aclosing(exchange.chunks(self._max_bytes)) as chunks:
            try:
                await self._store.put(file.organisation, file.name, chunks)
            except StoreUnavailableError:
                raise ServiceUnavailableError("the file can't be kept now: send it again") from None
        await exchange.respond(200, b"", media_type=_TEXT, headers=(_NEVER_KEPT,))

    async def _give(self, exchange: Exchange, file: Opened) -> None:
        async with aclosing(self._store.get(file.organisation, file.name)) as chunks:
            first = await _first(chunks)
            name = file.name.rpartition("/")[2]
            disposition = f'attachment; filename="{name}"'.encode()
            headers = ((b"content-disposition", disposition), _UNSNIFFED, _NEVER_KEPT)
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


async def _refuse(exchange: Exchange, error: DomainError) -> None:
    if isinstance(error, ServiceUnavailableError):
        await _respond_line(exchange, 503, error.message, (b"retry-after", b"1"))
        return
    status = error.status if isinstance(error, RequestError) else 400
    await _respond_line(exchange, status, error.message, *[(b"allow", b"GET, PUT")] * (status == 405))


async def _respond_line(exchange: Exchange, status: int, line: str, *headers: tuple[bytes, bytes]) -> None:
    await exchange.respond(status, f"{line}\n".encode(), media_type=_TEXT, headers=(_NEVER_KEPT, _UNSNIFFED, *headers))
