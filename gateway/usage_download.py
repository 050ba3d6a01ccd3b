"""`/usage.csv`: a usage report behind a signed link."""

from __future__ import annotations

import asyncio

from resolvers import usage
from resolvers.principal import Principal
from resolvers.query_costs import caller_of
from resolvers.usage import UsageQuery
from resolvers.usage_csv import csv_of

from .exchange import ASGIScope, Exchange, Receive, RequestError, Send
from .link_answers import NEVER_KEPT, UNSNIFFED, answering
from .runtime import Runtime
from .usage_links import SignedLinks

_CSV = b"text/csv; charset=utf-8"
_POINTS = 10  # as the field `usage` costs; and each line one, as an object does


class UsageDownload:
    """An ASGI application: GET with a signed link; HEAD tells whether it opens."""

    def __init__(self, runtime: Runtime) -> None:
        self._ledger = runtime.services.ledger
        self._buckets = runtime.buckets
        self._capacity = runtime.capacity
        self._check_standing = runtime.authenticator.check_standing
        self._address_of = runtime.address_of
        self._links = SignedLinks(runtime.keys.signing_secret)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        async with answering(
            exchange, "usage download", allow=b"GET, HEAD", organisation=None, principal=None
        ) as known:
            if scope["method"] not in ("GET", "HEAD"):
                raise RequestError("usage is downloaded by GET", status=405)
            principal, query = self._links.opened(scope["query_string"])
            known.update(organisation=principal.organisation, principal=principal.subject)
            address = self._address_of(scope.get("client"), exchange.headers)
            await self._check_standing(principal, address, "link")
            with self._capacity.operation(principal), exchange.until_client_leaves():
                await self._send_report(exchange, principal, query)

    async def _send_report(self, exchange: Exchange, principal: Principal, query: UsageQuery) -> None:
        name = f"usage-{query.since.date()}-{query.until.date()}.csv"
        headers = (
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            UNSNIFFED,
            NEVER_KEPT,
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
