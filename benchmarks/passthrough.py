"""The yardstick: Starlette and httpx with nothing between. It forwards one vendor call and does nothing with it."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    async with httpx.AsyncClient(base_url=os.environ["UPSTREAM"], timeout=60, limits=limits) as client:
        yield {"client": client}


async def _forward(request: Request) -> Response:
    client: httpx.AsyncClient = request.state.client
    headers = {"authorization": request.headers["authorization"], "content-type": "application/json"}
    upstream = client.build_request("POST", "/chat/completions", content=await request.body(), headers=headers)
    answer = await client.send(upstream, stream=True)
    if answer.headers["content-type"].startswith("text/event-stream"):
        return StreamingResponse(_relay(answer), media_type="text/event-stream")
    content = await answer.aread()
    await answer.aclose()
    return Response(content, status_code=answer.status_code, media_type="application/json")


async def _relay(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


app = Starlette(routes=[Route("/chat/completions", _forward, methods=["POST"])], lifespan=_lifespan)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(
        app, port=parser.parse_args().port, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
