"""`python -m tests.fake_vendor --port 0` prints the port on a line of its own and serves until it is stopped."""

from __future__ import annotations

import argparse
import asyncio

import uvloop

from .server import running


async def serve(host: str, port: int) -> None:
    async with running(host, port) as vendor:
        print(vendor.port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_vendor", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    try:
        uvloop.run(serve(arguments.host, arguments.port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
