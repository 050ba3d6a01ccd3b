"""Server-sent events whose token expires: the client is told, and one that reads nothing is let go all the same."""

from __future__ import annotations

import json
import socket

import httpx

from .processes import Server, Vendor
from .test_cancellation import closed_in, own_model, until
from .test_sockets import LONG, a_stream

ENDLESS = "[[tokens=50000]] [[wide=4000]]"


async def test_a_stream_ends_with_its_token_and_says_so(server: Server, vendor: Vendor, organisation: str) -> None:
    headers = {"authorization": f"Bearer {server.token(organisation, lifetime_s=5)}", "accept": "text/event-stream"}
    body = a_stream(LONG, own_model("openai", organisation))
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        answer = await client.post(server.url, json=body)
    *_, last, complete, _ = answer.text.split("\n\n")
    (error,) = json.loads(last.removeprefix("event: next\ndata: "))["errors"]
    assert (error["extensions"]["code"], error["message"]) == ("UNAUTHENTICATED", "the token has expired")
    assert error["extensions"]["requestId"] == answer.headers["x-request-id"]
    assert complete == "event: complete\ndata:"
    await closed_in(vendor, "openai", organisation)


async def test_who_reads_nothing_is_let_go(server: Server, vendor: Vendor, organisation: str) -> None:
    body = json.dumps(a_stream(ENDLESS, own_model("openai", organisation))).encode()
    token = server.token(organisation, lifetime_s=8)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with reader:
        reader.connect(("127.0.0.1", server.port))
        head = f"POST /graphql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\naccept: text/event-stream\r\n"
        length = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        reader.sendall(head.encode() + length.encode() + body)
        await until(lambda: vendor.tally("openai", organisation).get("open"))
        await until(lambda: vendor.tally("openai", organisation).get("open") == 0, within_s=30)
    assert "Traceback" not in server.log()
