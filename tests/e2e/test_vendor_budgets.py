"""Vendors' batches under a USD budget, by a server that is killed while the vendor works: what they may come to stays
held, counted by the process alone or on a Redis that forgets all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.servers.redis import redis_or_skip, running_redis

from .documents import COMPLETE
from .limited import LIMITS, SET, TOKENS, most_usd
from .processes import Server, Vendor, post, running_server, server_environment
from .test_prices import OVERRIDE, ask
from .test_vendor_batches import BATCH, CANCEL, SUBMIT, ended

IN_USD, OUT_USD = "100000", "1000000"
"""A million tokens: as `most_usd` has it for one."""
HANGS, SOON, ANSWERED = "[[hang]]", "[[soon]] [[tokens=4]]", "[[tokens=4]]"
ITEMS = 4


@dataclass
class Restarted:
    """A server that may be killed and started again, with its folder, beside the same Redis, if any."""

    environment: dict[str, str]
    organisation: str
    forget: Callable[[], object]
    server: Server = field(init=False)

    @property
    def token(self) -> str:
        return self.server.token(self.organisation)

    @contextmanager
    def running(self) -> Iterator[Server]:
        with running_server(self.environment) as self.server:
            yield self.server

    def used(self) -> Decimal:
        [budget] = ask(self.server, self.token, LIMITS)["limits"]
        return Decimal(budget["used"])

    def completed(self) -> Any:
        """One interactive call: what it cost, or the code of its refusal."""
        asked = {"model": self.model, "messages": [{"role": "USER", "content": ANSWERED}], "maxTokens": TOKENS}
        answer = post(self.server, self.token, COMPLETE, {"input": asked})
        if answer["data"]["complete"] is None:
            return answer["errors"][0]["extensions"]["code"]
        return Decimal(answer["data"]["complete"]["usage"]["cost"])

    @property
    def model(self) -> str:
        return f"openai/{self.organisation}"

    def submitted(self, prompt: str) -> str:
        line = {"messages": [{"role": "USER", "content": prompt}], "maxTokens": TOKENS}
        asked = {"mode": "PROVIDER", "model": self.model, "inputs": [line] * ITEMS}
        batch: str = post(self.server, self.token, SUBMIT, {"input": asked})["data"]["submitBatch"]["batch"]["id"]
        return batch

    def until_at_vendor(self, batch: str) -> None:
        give_up = time.monotonic() + 60
        while post(self.server, self.token, BATCH, {"id": batch})["data"]["batch"]["counts"]["running"] < ITEMS:
            assert time.monotonic() < give_up
            time.sleep(0.1)


@pytest.fixture(params=["embedded", "redis"])
def restarted(request: pytest.FixtureRequest, vendor: Vendor, tmp_path: Path, organisation: str) -> Iterator[Restarted]:
    with ExitStack() as stack:
        more, forget = {}, lambda: None
        if request.param == "redis":
            redis_or_skip()
            node = stack.enter_context(running_redis())
            forget = stack.enter_context(redis.Redis(port=node.port)).flushall
            more = {"REDIS_URI": node.uri}
        yield Restarted(server_environment(tmp_path, vendor, **more), organisation, forget)


def test_what_a_vendor_has_stays_held_whoever_is_killed_or_forgets(restarted: Restarted) -> None:
    item = most_usd(HANGS) / 2
    with restarted.running() as server:
        prices = {"provider": "openai", "input": IN_USD, "output": OUT_USD}
        ask(server, restarted.token, OVERRIDE, input=prices)
        ask(server, restarted.token, SET, input={"usdPerDay": f"{ITEMS * item:f}"})
        hanging = restarted.submitted(HANGS)
        restarted.until_at_vendor(hanging)
        assert (restarted.used(), restarted.completed()) == (ITEMS * item, "BUDGET_EXCEEDED")
        server.process.kill()
        server.process.wait()
    restarted.forget()
    with restarted.running() as server:
        assert (restarted.used(), restarted.completed()) == (ITEMS * item, "BUDGET_EXCEEDED")
        ask(server, restarted.token, CANCEL, input={"id": hanging})
        assert ended(server, restarted.token, hanging)["counts"]["cancelled"] == ITEMS
        assert restarted.used() == 0
        spends_beside(restarted)


def spends_beside(restarted: Restarted) -> None:
    """Interactive calls and a batch, as much of each as there is room for."""
    budget = ITEMS * most_usd(SOON)
    ask(restarted.server, restarted.token, SET, input={"usdPerDay": f"{budget:f}"})
    batch = restarted.submitted(SOON)
    restarted.until_at_vendor(batch)

    def call(_: int) -> list[Any]:
        return [restarted.completed() for _ in range(ITEMS)]

    with ThreadPoolExecutor(ITEMS) as callers:
        called = [each for some in callers.map(call, range(ITEMS)) for each in some]
    found = ended(restarted.server, restarted.token, batch)
    spent = [each for each in called if isinstance(each, Decimal)]
    assert (found["counts"]["succeeded"], {*called} - {*spent}) == (ITEMS, {"BUDGET_EXCEEDED"})
    assert restarted.used() == sum(spent) + Decimal(found["cost"]) <= budget
    assert spent
