"""Serves `tests/transcripts/<provider>/<scenario>` to exactly the request that the transcript shows."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

ROOT = Path(__file__).parent.parent / "transcripts"
_OWN_HEADERS = frozenset({"content-length", "transfer-encoding", "connection"})


async def serve_transcript(
    request: web.BaseRequest, provider: str, scenario: str, mismatches: deque[str]
) -> web.StreamResponse:
    """The scenario's answer; or 500 with the differences, which also go to `mismatches`."""
    folder = ROOT / provider / scenario
    expected = orjson.loads((folder / "request.json").read_bytes())
    body = await request.read()
    differences = _differences(request, expected, body, prefix=f"/t/{provider}/{scenario}")
    if differences:
        mismatches.extend(f"{provider}/{scenario}: {each}" for each in differences)
        return web.json_response({"mismatch": differences}, status=500)
    answer = orjson.loads((folder / "response.json").read_bytes())
    headers = {name: value for name, value in answer.get("headers", {}).items() if name.lower() not in _OWN_HEADERS}
    return web.Response(status=answer["status"], headers=headers, body=_body(folder, answer))


def _body(folder: Path, answer: dict[str, Any]) -> bytes:
    stream = folder / "response.sse"
    if stream.exists():
        return stream.read_bytes()
    return orjson.dumps(answer["body"]) if "body" in answer else answer.get("text", "").encode()


def _differences(request: web.BaseRequest, expected: dict[str, Any], body: bytes, *, prefix: str) -> list[str]:
    found = {"method": request.method, "path": request.raw_path.removeprefix(prefix)}
    differences = [
        f"{name}: {value!r} and not {expected[name]!r}" for name, value in found.items() if value != expected[name]
    ]
    for name, value in expected.get("headers", {}).items():
        if request.headers.get(name) != value:
            differences.append(f"header {name}: {request.headers.get(name)!r} and not {value!r}")
    sent = orjson.loads(body)
    if sent != expected["body"]:
        differences.append(f"body: {sent!r} and not {expected['body']!r}")
    return differences
