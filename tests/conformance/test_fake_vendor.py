"""The fake vendor as its own process, and what it refuses."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fake_vendor import running
from tests.fake_vendor.script import Script, read_script

ROOT = Path(__file__).parent.parent.parent
HEADERS = {"authorization": "Bearer test-key"}


def chat(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}], **fields}


@asynccontextmanager
async def process() -> AsyncIterator[str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fake_vendor", "--port", "0", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout
        line = await asyncio.wait_for(child.stdout.readline(), 20)
        yield f"http://127.0.0.1:{int(line)}"
    finally:
        child.terminate()
        await child.wait()


async def test_a_process_of_its_own_prints_its_port_and_keeps_count() -> None:
    async with process() as url, aiohttp.ClientSession(url, headers=HEADERS) as client:
        async with client.post("/v/openai/chat/completions", json=chat("one two [[tokens=3]]")) as answer:
            usage = (await answer.json())["usage"]
        assert usage == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        async with client.get("/_stats") as answer:
            tally = (await answer.json())["openai"]["gpt-4o-mini"]
        assert tally == {
            "calls": 1,
            "answered": 1,
            "failed": 0,
            "input_tokens": 3,
            "output_tokens": 3,
            "partial_output_tokens": 0,
            "disconnects": 0,
            "open": 0,
        }
        async with client.post("/_reset") as answer:
            assert answer.status == 200
        async with client.get("/_stats") as answer:
            assert await answer.json() == {}


async def test_no_key_no_answer_and_no_such_place() -> None:
    async with running() as vendor, aiohttp.ClientSession(vendor.url) as client:
        async with client.post("/v/openai/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 401
        async with client.post("/v/nobody/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 404


async def test_a_request_unlike_its_transcript_is_refused_with_the_differences() -> None:
    async with running() as vendor, aiohttp.ClientSession(vendor.url, headers=HEADERS) as client:
        async with client.post("/t/openai/text/v1/other", json=chat("hi")) as answer:
            assert answer.status == 500
        assert any("path" in each for each in vendor.mismatches)
        assert any("body" in each for each in vendor.mismatches)


async def test_a_failure_count_is_kept_for_each_prompt() -> None:
    async with running() as vendor, aiohttp.ClientSession(vendor.url, headers=HEADERS) as client:

        async def status(prompt: str) -> int:
            async with client.post("/v/openai/chat/completions", json=chat(prompt)) as answer:
                return answer.status

        assert [await status("a [[429x1]]") for _ in range(3)] == [429, 200, 200]
        assert [await status("b [[429x1]]") for _ in range(2)] == [429, 200]
        assert [await status("c [[500]]") for _ in range(3)] == [500, 500, 500]


def test_directives() -> None:
    assert read_script("nothing special [not] [[ this ]]") == Script()
    script = read_script(
        "[[tokens=200]] and [[pace=20]] [[503x2@groq]] [[cut=5]] [[hang=6]] [[delay=500]] [[tool]] [[retry=3]] "
        "[[wide=9]]"
    )
    assert script == Script(
        tokens=200,
        wide=9,
        pace_s=0.02,
        delay_s=0.5,
        status=503,
        failures=2,
        refuser="groq",
        retry_after=3,
        cut=5,
        hang=6,
        tool=True,
    )
    with pytest.raises(ValueError, match="toknes"):
        read_script("[[toknes=3]]")
