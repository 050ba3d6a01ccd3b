"""How what is behind a signed link answers when it can't be had: by a status and a line of text, and one line in the
log. A link is a secret while it opens: nothing logs its query."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import structlog

from graph.errors import UNEXPECTED
from resolvers.errors import DomainError, RateLimitedError, ServiceUnavailableError, UnauthenticatedError

from .exchange import ClientLeftError, Exchange, RequestError

log = structlog.get_logger("http")

TEXT = b"text/plain; charset=utf-8"
NEVER_KEPT = (b"cache-control", b"no-store")
UNSNIFFED = (b"x-content-type-options", b"nosniff")


@asynccontextmanager
async def answering(exchange: Exchange, event: str, *, allow: bytes, **known: Any) -> AsyncIterator[dict[str, Any]]:
    """Answers for whatever the block raises, and logs `event` with what it puts into the yielded dictionary, in which
    `known` stands before. `allow`: the methods that a 405 names."""
    started = time.perf_counter()
    try:
        yield known
    except ClientLeftError:
        exchange.status = 499
    except DomainError as error:
        await _refuse(exchange, error, allow)
    except asyncio.CancelledError:
        if exchange.status:
            raise  # half an answer is out already: the server closes the connection
        await _refuse(exchange, ServiceUnavailableError("the server is shutting down: ask again"), allow)
    except Exception:  # the last place where a defect of ours can still become an answer
        log.exception("unexpected error", request_id=exchange.request_id)
        if exchange.status:
            raise  # half an answer is out already: the server closes the connection
        await _respond_line(exchange, 500, UNEXPECTED)
    finally:
        log.info(
            event,
            request_id=exchange.request_id,
            method=exchange.scope["method"],
            status=exchange.status,
            **known,
            duration_ms=round((time.perf_counter() - started) * 1000, 2),
        )


async def _refuse(exchange: Exchange, error: DomainError, allow: bytes) -> None:
    if isinstance(error, ServiceUnavailableError | RateLimitedError):
        status = 503 if isinstance(error, ServiceUnavailableError) else 429
        wait_s = ceil((error.retry_after_ms or 1_000) / 1000)
        await _respond_line(exchange, status, error.message, (b"retry-after", str(wait_s).encode()))
        return
    status = (
        error.status if isinstance(error, RequestError) else 403 if isinstance(error, UnauthenticatedError) else 400
    )
    await _respond_line(exchange, status, error.message, *[(b"allow", allow)] * (status == 405))


async def _respond_line(exchange: Exchange, status: int, line: str, *headers: tuple[bytes, bytes]) -> None:
    await exchange.respond(status, f"{line}\n".encode(), media_type=TEXT, headers=(NEVER_KEPT, UNSNIFFED, *headers))
