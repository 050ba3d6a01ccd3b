"""`make bench`: measures, writes its chapter of results.md, and fails where a bound is not kept."""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gateway.auth import mint
from resolvers.principal import Scope

from . import load
from .processes import cpu_seconds, free_port, running, server_environment
from .results import write_chapter

OURS, YARDSTICK = "this server", "pass-through"
ROUNDS = 7
COMPLETIONS, MANY, FEW = 1500, 64, 16
STREAMS, TOKENS, PACE_MS = 50, 100, 20
COMPLETION_BOUND, TOKEN_BOUND = 0.6, 0.9

_PAGE = """\
# What it costs

`make bench`, Python {python}, {machine}: the median of {rounds} rounds, the servers in turn, one process each,
against one fake vendor on the same machine. CPU is the server process's user and system time by the kernel's
accounting. Ratios travel; absolute figures don't.

Completions: 30 tokens each, over HTTP; this server checks the token, commits the ledger entry before it answers, and
selects 13 fields. Of {many} at once the pass-through pays for httpx, which looks at its whole pool for each call.
Streams: {streams} at once, {tokens} tokens each, paced at {pace} ms. The pass-through is `benchmarks/passthrough.py`:
Starlette and httpx, nothing else.

| server | unit | per second | CPU a unit | ratio | bound |
|---|---|---|---|---|---|
{rows}
"""


@dataclass
class Measured:
    """One figure of one server, a value a round."""

    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    def middle_cpu(self) -> float:
        return statistics.median(self.cpu)

    def middle_rate(self) -> float:
        return statistics.median(self.rate)


@dataclass(frozen=True)
class Contestant:
    name: str
    process: subprocess.Popen[bytes]
    target: load.Target


async def _measure(
    contestant: Contestant, work: Callable[[load.Target], Awaitable[float]], units: int, into: Measured
) -> None:
    before = cpu_seconds(contestant.process)
    seconds = await work(contestant.target)
    into.cpu.append((cpu_seconds(contestant.process) - before) / units)
    into.rate.append(units / seconds)


async def _contestants(stack: AsyncExitStack, folder: Path) -> tuple[Contestant, Contestant]:
    vendor, ours, internal, bare = (free_port() for _ in range(4))
    origin = f"http://127.0.0.1:{vendor}"
    await stack.enter_async_context(
        running(["-m", "tests.fake_vendor", "--port", str(vendor)], ready=f"{origin}/_stats")
    )
    upstream = f"{origin}/v/openai"
    environment = server_environment(folder, ours, internal, upstream)
    server = await stack.enter_async_context(
        running(["-m", "gateway", "serve"], ready=f"http://127.0.0.1:{ours}/healthcheck", environment=environment)
    )
    bare_server = await stack.enter_async_context(
        running(
            ["-m", "benchmarks.passthrough", "--port", str(bare)],
            ready=f"http://127.0.0.1:{bare}/",
            environment={"UPSTREAM": upstream},
        )
    )
    token = mint(
        environment["JWT_TOKEN_SECRET"], subject="bench", organisation="bench", scopes=list(Scope), lifetime_s=3600
    )
    json = {"content-type": "application/json"}
    return (
        Contestant(
            OURS,
            server,
            load.Target(f"http://127.0.0.1:{ours}/graphql", {**json, "authorization": f"Bearer {token}"}, True),
        ),
        Contestant(
            YARDSTICK,
            bare_server,
            load.Target(
                f"http://127.0.0.1:{bare}/chat/completions", {**json, "authorization": "Bearer benchmark-key"}, False
            ),
        ),
    )


async def run(rounds: int) -> dict[tuple[str, str], Measured]:
    """Every figure of both servers, rounds taken in turn, so that a slow spell of the machine meets both."""
    figures: dict[tuple[str, str], Measured] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            contestants = await _contestants(stack, Path(folder))
            for contestant in contestants:  # warm up
                await load.completions(contestant.target, 300, MANY)
            for _ in range(rounds):
                for contestant in contestants:
                    await _one_round(contestant, figures)
    return figures


def _completion(at_once: int) -> str:
    return f"completion, {at_once} at once"


async def _one_round(contestant: Contestant, figures: dict[tuple[str, str], Measured]) -> None:
    def into(figure: str) -> Measured:
        return figures.setdefault((contestant.name, figure), Measured())

    tokens = STREAMS * TOKENS
    for at_once in (MANY, FEW):
        await _measure(
            contestant,
            lambda target, at_once=at_once: load.completions(target, COMPLETIONS, at_once),  # type: ignore[misc]
            COMPLETIONS,
            into(_completion(at_once)),
        )
    await _measure(
        contestant, lambda target: load.sse_tokens(target, STREAMS, TOKENS, PACE_MS), tokens, into("sse token")
    )
    if contestant.target.graphql:
        await _measure(
            contestant,
            lambda target: load.websocket_tokens(target, STREAMS, TOKENS, PACE_MS),
            tokens,
            into("websocket token"),
        )


def report(figures: dict[tuple[str, str], Measured], rounds: int) -> tuple[str, bool]:
    """The results page, and whether every bound is kept."""
    many, few, token = _completion(MANY), _completion(FEW), "sse token"
    rows = [
        _row(figures, YARDSTICK, many, many, None),
        _row(figures, OURS, many, many, COMPLETION_BOUND),
        _row(figures, YARDSTICK, few, few, None),
        _row(figures, OURS, few, few, COMPLETION_BOUND),
        _row(figures, YARDSTICK, token, token, None),
        _row(figures, OURS, "websocket token", token, TOKEN_BOUND),
        _row(figures, OURS, token, token, TOKEN_BOUND),
    ]
    text = _PAGE.format(
        python=platform.python_version(),
        machine=platform.machine(),
        rounds=rounds,
        many=MANY,
        few=FEW,
        streams=STREAMS,
        tokens=TOKENS,
        pace=PACE_MS,
        rows="\n".join(row for row, _ in rows),
    )
    return text, all(kept for _, kept in rows)


def _row(
    figures: dict[tuple[str, str], Measured], server: str, unit: str, yardstick: str, bound: float | None
) -> tuple[str, bool]:
    measured = figures[server, unit]
    ratio = measured.middle_cpu() / figures[YARDSTICK, yardstick].middle_cpu()
    cpu = measured.middle_cpu() * 1e6
    shown = "" if bound is None else f"≤ {bound}"
    row = f"| {server} | {unit} | {measured.middle_rate():.0f} | {cpu:.0f} µs | {ratio:.3f} | {shown} |"
    return row, bound is None or ratio <= bound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    arguments = parser.parse_args()
    text, kept = report(asyncio.run(run(arguments.rounds)), arguments.rounds)
    sys.stdout.write(text)
    if not arguments.dry:
        write_chapter(text)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
