"""The three processes of a run, and what the kernel says they used."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil

START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """User and system time of the whole process, all its threads, by the kernel's accounting."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


@asynccontextmanager
async def running(
    arguments: list[str], *, ready: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A Python process, from the moment that `ready` answers until the block ends."""
    process = subprocess.Popen(  # noqa: ASYNC220  # a start-up cost, outside of what is measured
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await _until_answers(process, ready)
        yield process
    finally:
        process.terminate()
        process.wait()


async def _until_answers(process: subprocess.Popen[bytes], url: str) -> None:
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientError:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args!r} ended with {process.returncode}") from None
                await asyncio.sleep(0.1)


def server_environment(folder: Path, port: int, internal_port: int, upstream: str) -> dict[str, str]:
    """A server as in production: JSON logs, given secrets, the ledger on disk, OpenAI's address the fake vendor's."""
    return {
        "ENVIRONMENT": "PRODUCTION",
        "PORT": str(port),
        "INTERNAL_PORT": str(internal_port),
        "DATA_DIR": str(folder),
        "JWT_TOKEN_SECRET": secrets.token_urlsafe(48),
        "ENCRYPTION_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "OPENAI_API_KEY": "benchmark-key",
        "OPENAI_BASE_URL": upstream,
        "COST_RESTORE_RATE": "1000000",  # one caller asks for as much as the server can do
    }
