"""`/usage.csv`: a usage report behind a signed link. The link is a secret while it opens: nothing logs its query."""

from __future__ import annotations

import asyncio
import time
from math import ceil

import structlog

from graph.errors import UNEXPECTED
from resolvers import usage
from resolvers.errors import DomainError, RateLimitedError, ServiceUnavailableError
from resolvers.principal import Principal
from resolvers.query_costs import caller_of
from resolvers.usage import UsageQuery
from resolvers.usage_csv import csv_of

from .exchange import ASGIScope, ClientLeftError, Exchange, Receive, RequestError, Send
from .runtime import Runtime
from .usage_links import SignedLinks

log = structlog.get_logger("http")

_CSV = b"text/csv; charset=utf-8"
_TEXT = b"text/plain; charset=utf-8"
_NEVER_KEPT = (b"cache-control", b"no-store")
_POINTS = 10  # as the field `usage` costs; and each line one, as an object does


class UsageDownload:
    """An ASGI application: GET with a signed link; HEAD tells whether it opens."""

    def __init__(self, runtime: Runtime) -> None:
        self._ledger = runtime.services.ledger
        self._buckets = runtime.buckets
        self._capacity = runtime.capacity
        self._links = SignedLinks(runtime.keys.signing_secret)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        started = time.perf_counter()
        principal: Principal | None = None
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise RequestError("usage is downloaded by GET", status=405)
            principal, query = self._links.opened(scope["query_string"])
            with self._capacity.operation(principal), exchange.until_client_leaves():
                await self._send_report(exchange, principal, query)
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
                "usage download",
                request_id=exchange.request_id,
                method=scope["method"],
                status=exchange.status,
                organisation=principal.organisation if principal else None,
                principal=principal.subject if principal else None,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )

    async def _send_report(self, exchange: Exchange, principal: Principal, query: UsageQuery) -> None:
        name = f"usage-{query.since.date()}-{query.until.date()}.csv"
        headers = (
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            (b"x-content-type-options", b"nosniff"),
            _NEVER_KEPT,
        )
        if exchange.scope["method"] == "HEAD":  # without the length, for which the report would have to be made
            await exchange.start(200, media_type=_CSV, headers=headers)
            await exchange.write(b"", more=False)
            return
        caller = caller_of(principal)
        self._buckets.take(caller, _POINTS)  # a link may be followed as often as one likes
        report = await usage.report(self._ledger, principal, query)
        body = await asyncio.to_thread(csv_of, report, query.group_by)  # thousands of lines take a while
        self._buckets.add(caller, body.count(b"\n"))
        await exchange.respond(200, body, media_type=_CSV, headers=headers)


async def _refuse(exchange: Exchange, error: DomainError) -> None:
    if isinstance(error, ServiceUnavailableError | RateLimitedError):
        status = 503 if isinstance(error, ServiceUnavailableError) else 429
        wait_s = ceil((error.retry_after_ms or 1_000) / 1000)
        await _respond_line(exchange, status, error.message, (b"retry-after", str(wait_s).encode()))
        return
    status = error.status if isinstance(error, RequestError) else 400
    await _respond_line(exchange, status, error.message, *[(b"allow", b"GET, HEAD")] * (status == 405))


async def _respond_line(exchange: Exchange, status: int, line: str, *headers: tuple[bytes, bytes]) -> None:
    await exchange.respond(status, f"{line}\n".encode(), media_type=_TEXT, headers=(_NEVER_KEPT, *headers))
