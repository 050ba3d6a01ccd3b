"""Server processes that count limits together, on one Redis or a cluster, and what that has of an organisation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import redis

from persistence.redis.keys import name_of
from resolvers.allowances import units
from tests.servers.mongo import migrated_database as migrated_documents
from tests.servers.mongo import shared_mongo
from tests.servers.postgres import Postgres, new_database, rows, running_postgres
from tests.servers.together import entered

from .documents import COMPLETE, STREAM
from .processes import Server, Vendor, running_server, server_environment
from .site import ready
from .test_prices import OVERRIDE, ask

SET = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { limited } }"
LIMITS = "{ viewer { limits { measure limit used left endsAt } } }"
PROMPT = "[[tokens=4]] [[delay=20]]"
TOKENS = 4
IN_USD, OUT_USD = Decimal("0.1"), Decimal(1)
"""What a token read, and one written, costs."""


_BOOKED = """
    SELECT completion_id::text, attempt, time, outcome, input_tokens, output_tokens, cost, estimated
    FROM ledger_entries WHERE organisation = $1 ORDER BY time
"""


def most_usd(prompt: str = PROMPT) -> Decimal:
    """What is reserved for a call: each byte may be a token."""
    return (len(prompt.encode()) + 64 + 16) * IN_USD + TOKENS * OUT_USD


@dataclass(frozen=True)
class Entry:
    completion: str
    attempt: int
    time: Any
    outcome: str
    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    estimated: bool


@dataclass(frozen=True)
class Kept:
    """What Redis has of an organisation. Budgets in USD: what is settled, and what is reserved."""

    leases: int
    held: int
    places: int
    budgets: Mapping[str, tuple[Decimal, Decimal]]


@dataclass
class Limited:
    servers: Sequence[Server]
    environment: Mapping[str, str]
    postgres: Postgres
    ledger_url: str
    redis: Any = field(repr=False)

    @contextmanager
    def another(self, folder: Path) -> Iterator[Server]:
        """One more process, with a disk of its own."""
        with running_server({**self.environment, "DATA_DIR": str(folder)}) as server:
            ready(server)
            yield server

    def limit(self, organisation: str, **limits: Any) -> None:
        """Of the organisation, until each process goes by it."""
        server = self.servers[0]
        ask(server, server.token(organisation), SET, input=limits)
        wanted, deadline = _limits_of(self.seen(organisation, 0)), time.monotonic() + 30
        for number in range(1, len(self.servers)):
            while _limits_of(self.seen(organisation, number)) != wanted:
                assert time.monotonic() < deadline, "a process does not see the new limits"
                time.sleep(0.05)

    def price(self, organisation: str) -> None:
        server = self.servers[0]
        prices = {"provider": "openai", "input": f"{IN_USD * 10**6:f}", "output": f"{OUT_USD * 10**6:f}"}
        ask(server, server.token(organisation), OVERRIDE, input=prices)

    def seen(self, organisation: str, number: int = -1) -> dict[str, dict[str, Any]]:
        """`viewer.limits` as one of the processes says, by their measure."""
        server = self.servers[number]
        found = ask(server, server.token(organisation), LIMITS)["limits"]
        return {each["measure"]: each for each in found}

    async def booked(self, organisation: str) -> list[Entry]:
        return [Entry(*row) for row in await rows(self.ledger_url, _BOOKED, organisation)]

    async def booked_at_last(self, organisation: str, count: int) -> list[Entry]:
        """Once there are so many entries."""
        async with asyncio.timeout(60):
            while len(booked := await self.booked(organisation)) < count:  # noqa: ASYNC110  # by another process
                await asyncio.sleep(0.1)
        return booked

    def kept(self, organisation: str) -> Kept:
        def name(key: str) -> str:
            return name_of("limit", organisation, key)

        budgets: dict[str, tuple[Decimal, Decimal]] = {}
        places = 0
        for key in self.redis.scan_iter(match=name("of:*").replace("{", "[{]").replace("}", "[}]"), count=1000):
            if "usd_per" in key:
                settled, reserved = self.redis.hmget(key, "settled", "reserved")
                budgets[key.partition("of:")[2].partition(":")[0]] = _usd(settled), _usd(reserved)
            elif ":streams:" in key:
                places += self.redis.zcard(key)
        return Kept(self.redis.zcard(name("leases")), self.redis.hlen(name("held")), places, budgets)

    def let_leases_end(self, *organisations: str) -> None:
        """As if a minute had passed in which no process was heard of; those that live are back within a round."""
        for organisation in organisations:
            leases = name_of("limit", organisation, "leases")
            for lease in self.redis.zrange(leases, 0, -1):
                self.redis.zadd(leases, {lease: 1}, xx=True)
        enrolled = name_of("limited", None, "enrolled")
        for name in self.redis.zrange(enrolled, 0, -1):
            if name.partition(" ")[2] in organisations:
                self.redis.zadd(enrolled, {name: 1}, xx=True)


def _limits_of(seen: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {measure: state["limit"] for measure, state in seen.items()}


def _usd(amount: str | None) -> Decimal:
    return Decimal(amount or 0) / units(Decimal(1))


@contextmanager
def running_limited(folder: Path, vendor: Vendor, redis_uri: str, client: Any, *, processes: int) -> Iterator[Limited]:
    """`client` looks at what is at `redis_uri`."""
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        ledger = postgres.url(asyncio.run(new_database(postgres)))
        environment = server_environment(
            folder / "0",
            vendor,
            MONGODB_CONNECTION_URI=asyncio.run(migrated_documents(shared_mongo())),
            TIMESCALE_SERVICE_URL=ledger,
            TIMESCALE_TIMEOUT_S="2",
            REDIS_URI=redis_uri,
            LIMIT_FALLBACK_SHARE=str(processes),
        )
        places = [folder / str(number) for number in range(processes)]
        servers = entered(stack, *(running_server({**environment, "DATA_DIR": str(each)}) for each in places))
        for server in servers:
            ready(server)
        yield Limited(servers, environment, postgres, ledger, client)


@dataclass
class Callers:
    """Calls of one organisation, with a model of its own, so that the vendor's tally is its too."""

    limited: Limited
    organisation: str
    answered: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def asked(self, prompt: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "USER", "content": prompt}]
        return {"model": f"openai/{self.organisation}", "messages": messages, "maxTokens": TOKENS, **more}

    async def at_once(self, count: int, prompt: str = PROMPT) -> None:
        """Spread over all processes."""
        servers = self.limited.servers
        headers = {"authorization": f"Bearer {servers[0].token(self.organisation)}"}
        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
            await asyncio.gather(
                *(self.call(session, servers[number % len(servers)], prompt) for number in range(count))
            )

    async def call(self, session: aiohttp.ClientSession, server: Server, prompt: str, **more: Any) -> bool:
        body = {"query": COMPLETE, "variables": {"input": self.asked(prompt, **more)}}
        async with session.post(server.url, json=body) as response:
            answer = await response.json()
        completion = answer["data"]["complete"]
        if completion is not None:
            self.answered.append(completion)
        else:
            [error] = answer["errors"]
            assert ("retry-after" in response.headers) == ("retryAfterMs" in error["extensions"])
            self.refused.append(error)
        return completion is not None

    async def streaming(self, session: aiohttp.ClientSession, server: Server, prompt: str) -> aiohttp.ClientResponse:
        """Over SSE, once its first event is there. Closing it is leaving."""
        body = {"query": STREAM, "variables": {"input": self.asked(prompt)}}
        response = await session.post(server.url, json=body, headers={"accept": "text/event-stream"})
        await response.content.readline()
        return response

    async def answered_at_last(self) -> None:
        """One call more, however often it has to be tried."""
        count = len(self.answered)
        async with asyncio.timeout(60):
            while len(self.answered) == count:
                await self.at_once(1)

    def spent(self) -> Decimal:
        return sum((Decimal(each["usage"]["cost"]) for each in self.answered), Decimal(0))


def all_is_settled(kept: Kept) -> bool:
    return (kept.leases, kept.held) == (0, 0) and all(reserved == 0 for _, reserved in kept.budgets.values())


def client_of(uri: str, *, cluster: bool = False) -> Any:
    kind = redis.RedisCluster if cluster else redis.Redis
    return kind.from_url(uri, decode_responses=True)
