"""Signed links: what they open, for how long, and what is answered to one that doesn't."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway import client
from gateway.auth import Authenticator
from gateway.capacity import Capacity
from gateway.exchange import RequestError
from gateway.keys import DeploymentKeys
from gateway.runtime import Runtime
from gateway.settings import load_settings
from gateway.usage_download import UsageDownload
from gateway.usage_links import LIFETIME_S, MAX_QUERY_CHARACTERS, SignedLinks
from persistence.records import Outcome
from persistence.usage_records import LabelName, UsageField, UsageFilter
from resolvers.calendar import Bucket
from resolvers.errors import BadUserInputError
from resolvers.principal import Limits, Principal, Scope
from resolvers.query_costs import CostBuckets
from resolvers.usage import UsageQuery
from tests.persistence.entries import NOON, entry
from tests.resolvers.scene import MemoryStore, Scene, open_scene

from .test_exchange import Client

SECRET = "a-signing-secret-of-more-than-32-bytes"
ADA = Principal("ada", "acme", frozenset({"usage:read", "completions:write"}), 4e9)
DAY = timedelta(days=1)
QUERY = UsageQuery(NOON - DAY, NOON + DAY, where=UsageFilter({}, []))
RICH = UsageQuery(
    since=datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    until=NOON + DAY,
    bucket=Bucket.WEEK,
    time_zone="Asia/Kolkata",
    group_by=(UsageField.CONFIG_VERSION, LabelName("té&m=1")),
    where=UsageFilter(
        {UsageField.OUTCOME: [Outcome.FAILED], UsageField.CONFIG_VERSION: [1, 2], UsageField.MODEL: []},
        [("env", "prod"), ("é", "")],
    ),
)


class Clock:
    def __init__(self) -> None:
        self.now = NOON.timestamp()

    def __call__(self) -> float:
        return self.now


def query_of(url: str) -> bytes:
    return urlsplit(url).query.encode()


def refusal(links: SignedLinks, query_string: bytes) -> int:
    with pytest.raises(RequestError) as caught:
        links.opened(query_string)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.status


@pytest.mark.parametrize("query", [QUERY, RICH])
def test_a_link_opens_to_what_it_was_made_for(query: UsageQuery) -> None:
    links = SignedLinks(SECRET, Clock())
    link = links.link(ADA, query)
    assert link.url.startswith("/usage.csv?query=")
    assert link.expires_at == NOON + timedelta(minutes=15)
    assert link.url not in repr(link)
    principal, found = links.opened(query_of(link.url))
    assert (principal.subject, principal.organisation, principal.scopes) == ("ada", "acme", {Scope.USAGE_READ})
    assert found == query


def test_a_link_expires() -> None:
    clock = Clock()
    links = SignedLinks(SECRET, clock)
    link = query_of(links.link(ADA, QUERY).url)
    clock.now += LIFETIME_S - 1
    links.opened(link)
    clock.now += 1
    assert refusal(links, link) == 410


def test_a_link_ends_with_the_token_that_asked_for_it() -> None:
    clock = Clock()
    links = SignedLinks(SECRET, clock)
    link = links.link(replace(ADA, expires_at=clock.now + 60), QUERY)
    assert link.expires_at == NOON + timedelta(minutes=1)
    clock.now += 60
    assert refusal(links, query_of(link.url)) == 410


@given(st.data())
def test_a_link_that_was_changed_opens_nothing(data: st.DataObject) -> None:
    links = SignedLinks(SECRET, Clock())
    link = query_of(links.link(ADA, RICH).url)
    place = data.draw(st.integers(0, len(link) - 1))
    changed = link[:place] + data.draw(st.binary(max_size=3)) + link[place + data.draw(st.integers(0, 3)) :]
    if parse_qs(changed.decode(errors="replace")) != parse_qs(link.decode()):
        assert refusal(links, changed) == 403


@pytest.mark.parametrize(
    "query", [b"", b"query=x", b"signature=x", b"query=&signature=", b"\xff", b"query=a&signature=%ff"]
)
def test_what_is_no_link_at_all(query: bytes) -> None:
    assert refusal(SignedLinks(SECRET), query) == 403


def test_every_deployment_signs_for_itself_and_for_this_alone() -> None:
    links = SignedLinks(SECRET, Clock())
    url = links.link(ADA, QUERY).url
    assert refusal(SignedLinks(SECRET + "!", Clock()), query_of(url)) == 403
    text = parse_qs(urlsplit(url).query)["query"][0]
    bare = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), text.encode(), "sha256")).rstrip(b"=")
    assert refusal(links, b"query=" + text.encode() + b"&signature=" + bare) == 403, "the key is one of its own"


def test_a_query_that_fits_in_no_link() -> None:
    links = SignedLinks(SECRET, Clock())
    users = UsageFilter({UsageField.END_USER: [f"user-{n}" for n in range(1_000)]})
    with pytest.raises(BadUserInputError) as caught:
        links.link(ADA, UsageQuery(NOON, NOON + DAY, where=users))
    assert caught.value.path == ("input", "filter")
    assert MAX_QUERY_CHARACTERS == 8192


# The download


@dataclass(frozen=True)
class Desk:
    """The download with a ledger in memory behind it."""

    store: MemoryStore
    links: SignedLinks
    download: UsageDownload

    async def get(
        self, query: bytes, method: str = "GET", client: Client | None = None, address: str = "198.51.100.7"
    ) -> Answer:
        connection = client or Client()
        exchange = connection.exchange([(b"x-request-id", b"r-1")])
        scope = {**exchange.scope, "method": method, "query_string": query, "client": (address, 1)}
        await self.download(scope, connection.receive, connection.send)
        if not connection.sent:
            return Answer(0, {}, "")
        start, body = connection.sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], headers, body["body"].decode())

    def link(self, query: UsageQuery = QUERY, principal: Principal = ADA) -> bytes:
        return query_of(self.links.link(principal, query).url)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with open_scene() as scene:
        yield scene


@pytest.fixture
def desk(scene: Scene, tmp_path: Path) -> Desk:
    keys = DeploymentKeys(SECRET, b"k" * 32)
    nothing: dict[str, Any] = dict.fromkeys(each.name for each in fields(Runtime))
    allowances = {"buckets": CostBuckets(100, 1, lambda: 0.0), "capacity": Capacity(1)}
    doors = {"settings": load_settings(DATA_DIR=tmp_path), "authenticator": Authenticator(SECRET)}
    runtime = Runtime(**nothing | allowances | doors | {"keys": keys, "services": scene.services})
    return Desk(scene.store, SignedLinks(SECRET), UsageDownload(runtime))


async def test_a_report_is_downloaded(desk: Desk) -> None:
    desk.store.entries = [entry(), entry(model="x"), entry(organisation="globex")]
    answer = await desk.get(desk.link(UsageQuery(NOON - DAY, NOON + DAY, group_by=(UsageField.MODEL,))))
    assert answer.status == 200
    assert answer.headers == {
        "content-type": "text/csv; charset=utf-8",
        "content-length": str(len(answer.text)),
        "content-disposition": 'attachment; filename="usage-2026-02-28-2026-03-02.csv"',
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-request-id": "r-1",
    }
    head, *lines, end = answer.text.split("\r\n")
    assert head.startswith("model,other,bucket_start,")
    assert [line.partition(",")[0] for line in lines] == ['"gpt-4.1"', '"x"']
    assert end == ""


async def test_a_link_that_is_followed_again_and_again(desk: Desk) -> None:
    """Each time costs what the field would, and a point a line."""
    desk.store.entries = [entry()]
    link, other = desk.link(), desk.link(principal=replace(ADA, subject="bob"))
    answers = [await desk.get(link) for _ in range(9)]
    assert [answer.status for answer in answers] == [200] * 8 + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert "points" in one_line(answers[-1])
    assert (await desk.get(other)).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_link_of_one_network_opens_there_alone(desk: Desk, method: str) -> None:
    link = desk.link(principal=replace(ADA, limits=Limits(networks=("198.51.100.0/24",))))
    assert (await desk.get(link, method)).status == 200
    answer = await desk.get(link, method, address="203.0.113.7")
    assert (answer.status, one_line(answer)) == (403, "the link may not be used from this address")


async def test_a_server_that_does_enough_already(desk: Desk) -> None:
    with desk.download._capacity.operation(ADA):
        answer = await desk.get(desk.link())
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (await desk.get(desk.link())).status == 200


def one_line(answer: Answer) -> str:
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.text.endswith("\n")
    (line,) = answer.text.splitlines()
    return line


async def test_a_link_that_is_none_or_was_changed(desk: Desk) -> None:
    answer = await desk.get(desk.link()[:-1])
    assert answer.status == 403
    assert "ask for a new one" in one_line(answer)
    assert (await desk.get(b"")).status == 403


async def test_a_link_that_is_old(desk: Desk) -> None:
    old = SignedLinks(SECRET, lambda: datetime.now(UTC).timestamp() - LIFETIME_S)
    answer = await desk.get(query_of(old.link(ADA, QUERY).url))
    assert answer.status == 410
    assert "expired" in one_line(answer)


async def test_a_ledger_that_cannot_be_read(desk: Desk) -> None:
    desk.store.down = True
    answer = await desk.get(desk.link())
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "ledger" in one_line(answer)


async def test_a_report_with_too_many_groups(desk: Desk) -> None:
    desk.store.entries = [entry(end_user=f"u{n}") for n in range(50)]
    wide = UsageQuery(NOON - DAY, NOON + DAY, Bucket.HOUR, group_by=(UsageField.END_USER,))
    answer = await desk.get(desk.link(wide))
    assert answer.status == 400
    assert "2000" in one_line(answer)


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
async def test_only_get(desk: Desk, method: str) -> None:
    answer = await desk.get(desk.link(), method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    one_line(answer)


async def test_whether_a_link_opens_is_told_without_a_report(desk: Desk) -> None:
    desk.store.down = True
    answer = await desk.get(desk.link(), "HEAD")
    assert (answer.status, answer.headers["content-type"], answer.text) == (200, "text/csv; charset=utf-8", "")
    assert "content-length" not in answer.headers
    assert (await desk.get(b"", "HEAD")).status == 403


async def test_a_defect_is_told_by_its_request_id_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("hunter2")

    monkeypatch.setattr(desk.store, "usage", broken)
    answer = await desk.get(desk.link())
    assert answer.status == 500
    assert "hunter2" not in one_line(answer)


async def test_a_client_that_left(desk: Desk) -> None:
    client = Client()
    client.leave()
    with structlog.testing.capture_logs() as logs:
        assert (await desk.get(desk.link(), client=client)).status == 0
    assert logs[-1]["status"] == 499


async def test_the_log_tells_who_and_never_the_link(desk: Desk) -> None:
    link = desk.link()
    with structlog.testing.capture_logs() as logs:
        await desk.get(link)
        await desk.get(link + b"x")
    assert [(each["status"], each["organisation"], each["principal"]) for each in logs] == [
        (200, "acme", "ada"),
        (403, None, None),
    ]
    text, signature = (values[0] for values in parse_qs(link.decode()).values())
    assert text not in str(logs)
    assert signature not in str(logs)


# The command line's client of it


@asynccontextmanager
async def answering(status: int, kind: str, body: str, heads: list[str]) -> AsyncIterator[str]:
    """A server that gives everyone a link, and this answer to whoever follows it; its address."""
    link = '{"data": {"exportUsage": {"url": "/usage.csv?query=q&signature=secret"}}}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        asked = head.startswith("POST")
        if asked:
            await reader.readuntil(b"}}}")
        told = (200, "application/json", link) if asked else (status, kind, body)
        writer.write(
            f"HTTP/1.1 {told[0]} Any\r\ncontent-type: {told[1]}\r\ncontent-length: {len(told[2])}\r\n"
            f"connection: close\r\n\r\n{told[2]}".encode()
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/graphql"


async def downloaded(url: str) -> bytes:
    async with client.usage_csv(url, "a.b.c", {"since": "s"}) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_the_client_follows_the_link_without_its_token() -> None:
    heads: list[str] = []
    async with answering(200, "text/csv; charset=utf-8", "a,b\r\n", heads) as url:
        assert await downloaded(url) == b"a,b\r\n"
    asked, followed = heads
    assert "a.b.c" in asked
    assert followed.startswith("GET /usage.csv?query=q&signature=secret HTTP/1.1\r\n")
    assert "authorization" not in followed.lower()


@pytest.mark.parametrize(
    ("status", "kind", "body", "message"),
    [
        (410, "text/plain; charset=utf-8", "this link has expired\n", "this link has expired"),
        (404, "text/html", "<html>", "/usage.csv answered (HTTP 404), but not as this API does"),
        (200, "text/html", "<html>", "/usage.csv answered (HTTP 200), but not as this API does"),
    ],
)
async def test_the_client_says_why_and_keeps_the_signature(status: int, kind: str, body: str, message: str) -> None:
    async with answering(status, kind, body, []) as url:
        with pytest.raises(client.ApiError) as caught:
            await downloaded(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
