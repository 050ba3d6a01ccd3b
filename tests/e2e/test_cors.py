"""Pages on other origins, over a real socket: what a browser asks before, and reads after."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import httpx
import pytest

from .documents import COMPLETE, STREAM
from .processes import Server, running_server, server_environment
from .test_endpoint import TYPENAME

ORIGIN = "https://app.example"
STRANGER = "https://evil.example"
ASKED = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "Hi."}]}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    origins = "http://localhost:3000, https://App.example:443"  # which a browser sends as ORIGIN
    folder = tmp_path_factory.mktemp("cors")
    with running_server(server_environment(folder, None, ALLOWED_ORIGINS=origins)) as started:
        yield started


def preflight(server: Server, origin: str, method: str = "POST", headers: str = "content-type") -> httpx.Response:
    asked = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": headers}
    return httpx.options(server.url, headers=asked)


def ask(server: Server, origin: str, *, query: str = COMPLETE, token: str = "", **headers: str) -> httpx.Response:
    sent = {"origin": origin, "authorization": f"Bearer {token}", **headers}
    return httpx.post(server.url, json={"query": query, "variables": {"input": ASKED}}, headers=sent, timeout=30)


def readable(answer: httpx.Response) -> bool:
    """Whether a browser shows this answer to the page, the request's id, and when to ask again."""
    exposed = answer.headers.get("access-control-expose-headers", "").lower().split(", ")
    return answer.headers.get("access-control-allow-origin") == ORIGIN and {"x-request-id", "retry-after"} <= {*exposed}


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_may_ask(open_server: Server, origin: str, method: str) -> None:
    allowed = preflight(open_server, origin, method, "accept,authorization,content-type,x-request-id")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == origin
    assert method in allowed.headers["access-control-allow-methods"].split(", ")
    assert int(allowed.headers["access-control-max-age"]) >= 600
    assert "access-control-allow-credentials" not in allowed.headers


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        (STRANGER, "POST", "content-type"),
        ("null", "POST", "content-type"),
        ("http://app.example", "POST", "content-type"),
        (ORIGIN, "DELETE", "content-type"),
        (ORIGIN, "POST", "x-other"),
    ],
)
def test_what_else_is_asked_is_refused(open_server: Server, origin: str, method: str, headers: str) -> None:
    refused = preflight(open_server, origin, method, headers)
    assert refused.status_code == 400
    assert ("access-control-allow-origin" in refused.headers) == (origin == ORIGIN)


def test_a_page_reads_its_answer(open_server: Server) -> None:
    answer = ask(open_server, ORIGIN, token=open_server.token("cors"), **{"x-request-id": "of-the-page"})
    assert answer.json()["data"]["complete"]["content"] == "You said: Hi."
    assert readable(answer)
    assert answer.headers["x-request-id"] == "of-the-page"
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_page_reads_its_stream(open_server: Server) -> None:
    answer = ask(open_server, ORIGIN, query=STREAM, token=open_server.token("cors"), accept="text/event-stream")
    assert answer.headers["content-type"] == "text/event-stream"
    assert "CompletionFinished" in answer.text
    assert answer.text.endswith("event: complete\ndata:\n\n")
    assert readable(answer)


def test_a_page_reads_what_went_wrong(open_server: Server) -> None:
    headers = {"origin": ORIGIN, "authorization": f"Bearer {open_server.token('cors')}"}
    wrong = {
        401: ask(open_server, ORIGIN, token="x.y.z"),
        405: httpx.put(open_server.url, headers=headers),
        415: httpx.post(open_server.url, headers=headers, content=b"{}"),
    }
    for status, answer in wrong.items():
        assert answer.status_code == status
        assert readable(answer)


def test_a_stranger_reads_nothing(open_server: Server) -> None:
    answer = ask(open_server, STRANGER, token=open_server.token("cors"))
    assert "access-control-allow-origin" not in answer.headers


def test_without_origins_there_is_no_cors(server: Server, token: str) -> None:
    headers = {"origin": ORIGIN, "authorization": f"Bearer {token}"}
    answer = httpx.post(server.url, json=TYPENAME, headers=headers)
    assert answer.status_code == 200
    assert not any(name.startswith("access-control") or name == "vary" for name in answer.headers)
    refused = preflight(server, ORIGIN)
    assert refused.status_code == 204
    assert not any(name.startswith("access-control") for name in refused.headers)


async def test_a_socket_keeps_its_own_check(open_server: Server) -> None:
    protocols = ["graphql-transport-ws"]
    token = open_server.token("cors")
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(open_server.socket_url, protocols=protocols, origin=ORIGIN) as socket:
            await socket.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
            assert (await socket.receive_json())["type"] == "connection_ack"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(open_server.socket_url, protocols=protocols, origin=STRANGER)
