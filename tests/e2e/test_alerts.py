"""Alerts of a budget over two servers."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers.receiver import Receiver, running_receiver

from .site import Site
from .test_webhooks import LIMIT, WEBHOOKS, ask, created, deliveries, listened, priced, spend, until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver(Receiver()) as running:
        yield running


def test_two_servers_tell_of_a_threshold_once(site: Site, receiver: Receiver) -> None:
    """Though both settle what passes it; and who listens at one hears of what the other has settled."""
    one, other = site.servers
    organisation = f"org-{secrets.token_hex(6)}"
    _, webhook_id = created(one, organisation, receiver.url())
    cost = priced(one, organisation)
    ask(one, organisation, LIMIT, {"usdPerDay": str(1000 * cost), "alertAt": [1, 2]})
    ready = threading.Event()
    with ThreadPoolExecutor(24) as pool:
        live = pool.submit(listened, other, organisation, 2, ready)
        assert ready.wait(30)
        ask(other, organisation, WEBHOOKS)  # it listens by now
        calls = [pool.submit(spend, site.servers[number % 2], organisation) for number in range(40)]
        for call in calls:
            call.result()
        alerts = live.result()
    receiver.wait_for(2)
    assert [each["percent"] for each in alerts] == [1, 2]
    until(lambda: [each["state"] for each in deliveries(one, organisation, webhook_id)] == ["DELIVERED"] * 2)
    assert len(receiver.got) == 2
