"""An organisation with one of each thing that can be named, made through the API; and how it asks."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin

import httpx
import orjson

from gateway.auth import mint
from resolvers.principal import Scope

from ..documents import STREAM
from ..processes import Server
from .places import document

PROVIDER, STRANGERS_PROVIDER, NOBODYS_PROVIDER = "openai", "mistral", "groq"
NOWHERE = "http://127.0.0.1:9/"  # nobody listens there
_HEX = re.compile(r"[0-9a-f]{12}$")
_IDS = re.compile(r"\b(cmp|cfg|prc|key|aud|whk|whd|evt|bat|upl)_[0-9a-f]{32}\b")
_TIMES = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)")
_NUMBERS = re.compile(
    r'("\w*Ms":|"outputTokensPerSecond":|"currentlyAvailable":|"p\d\d":|"revision":|"waiting":|"queued":|"running":)[\d.]+'
)
_ONCE = re.compile(r'("(?:requestId|key|hint|token|secret|CreatedApiKey_key|state|url)":)"[^"]*"')


@dataclass(frozen=True)
class Answer:
    """What can be told from an answer: `body` without what differs from one time to the next, `whole` with it."""

    status: int
    headers: frozenset[str]
    body: str
    whole: str = field(compare=False, repr=False)

    @property
    def not_found(self) -> bool:
        return '"NOT_FOUND"' in self.body

    @property
    def refused(self) -> bool:
        return '"errors"' in self.body


@dataclass(frozen=True)
class Organisation:
    """Its names end in twelve hexadecimal digits: see `alike`. `cursor_of_…` stand behind what it has one of."""

    name: str
    client: httpx.Client
    url: str
    token: str
    config: str = ""
    slug: str = ""
    price_rule: str = ""
    api_key: str = ""
    webhook: str = ""
    delivery: str = ""
    provider: str = PROVIDER
    completion: str = ""
    streamed: str = ""
    idempotency_key: str = ""
    end_user: str = ""
    subject: str = ""
    label_name: str = ""
    label_value: str = ""
    model: str = ""
    full_model: str = ""
    batch: str = ""
    batch_file: str = ""
    batch_key: str = ""
    cursor_of_completions: str = ""
    cursor_of_configs: str = ""
    cursor_of_prices: str = ""
    cursor_of_keys: str = ""
    cursor_of_events: str = ""

    def raw(self, query: str, variables: Mapping[str, Any]) -> httpx.Response:
        """Of a subscription, its last event; of one without an end, its first."""
        asked = {"query": query, "variables": dict(variables)}
        if not query.lstrip().startswith("subscription"):
            return self.client.post(self.url, json=asked, headers=self._headers)
        with self._events(asked) as (answer, events):
            last = next(events)
            if "usageLive" not in last:
                *_, last = last, *events
        return httpx.Response(answer.status_code, headers=answer.headers, text=last)

    @contextmanager
    def stream(self, query: str, variables: Mapping[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """The data of a subscription's events."""
        with self._events({"query": query, "variables": dict(variables)}) as (_, events):
            yield (orjson.loads(event)["data"] for event in events)

    @contextmanager
    def _events(self, asked: Mapping[str, Any]) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
        headers = {**self._headers, "accept": "text/event-stream"}
        with self.client.stream("POST", self.url, json=asked, headers=headers) as answer:
            lines = answer.iter_lines()
            yield answer, (line.removeprefix("data: ") for line in lines if line.startswith("data: "))

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def asked(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Data, where nothing may go wrong."""
        answer = orjson.loads(self.raw(query, variables).content)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def answer(self, query: str, variables: Mapping[str, Any], reference: str) -> Answer:
        """What the API says, the reference in it as <it>; of a link, what it opens."""
        answer = self.raw(query, variables)
        if "exportUsage" in query and "errors" not in answer.json():
            answer = self.client.get(urljoin(self.url, answer.json()["data"]["exportUsage"]["url"]))
        told = whole = answer.text.replace(reference, "<it>")
        for pattern, instead in ((_IDS, r"\1_…"), (_TIMES, "…"), (_NUMBERS, r"\1…"), (_ONCE, r"\1…")):
            told = pattern.sub(instead, told)
        return Answer(answer.status_code, frozenset(answer.headers), told, whole)

    def named(self) -> frozenset[str]:
        """All names that nobody else may ever be told."""
        everybodys = {self.provider, self.url}
        return frozenset(value for value in vars(self).values() if isinstance(value, str)) - everybodys


def alike(reference: str) -> str:
    """Of the same form, and nobody's."""
    if reference == PROVIDER:
        return NOBODYS_PROVIDER
    if _HEX.search(reference):
        return _HEX.sub(secrets.token_hex(6), reference)
    try:
        plain = base64.b64decode(reference, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise AssertionError(f"what would be like {reference!r}?") from None
    return base64.urlsafe_b64encode(alike(plain).encode()).decode()


def made(server: Server, client: httpx.Client, provider: str = PROVIDER) -> Organisation:
    """A new organisation with one of each, `provider` being the one that it has a key of its own at."""
    own = replace(_named(server, client), provider=provider)
    labels = [{"name": "team", "value": own.label_value}, {"name": own.label_name, "value": "x"}]
    draft = {"model": own.full_model, "description": own.label_value, "labels": labels}
    discount = {"provider": PROVIDER, "model": own.model, "percent": "1"}
    made = replace(
        own,
        config=_make(own, "createConfig", {"slug": own.slug, "draft": draft})["id"],
        price_rule=_make(own, "createDiscount", discount)["id"],
        api_key=_make(own, "createApiKey", {"name": own.label_value, "grant": {"roles": ["caller"]}})["apiKey"]["id"],
    )
    webhook = _make(made, "createWebhook", {"url": NOWHERE, "events": ["BATCH_COMPLETED"]})["webhook"]["id"]
    made = replace(made, webhook=webhook, delivery=_make(made, "testWebhook", {"id": webhook})["id"])
    _make(made, "publishConfig", {"by": {"id": made.config}})
    _make(made, "setProviderKey", {"provider": made.provider, "key": f"sk-of-{own.subject}"})
    _make(made, "setLimits", {"apiKey": made.api_key, "streams": 1000})
    _make(made, "setLimits", {"model": made.full_model, "streams": 1000})
    asked = {
        "config": {"slug": made.slug},
        "messages": [{"role": "USER", "content": "[[tokens=2]]"}],
        "idempotencyKey": made.idempotency_key,
        "endUser": made.end_user,
    }
    stream = {"model": made.full_model, "messages": asked["messages"]}
    return replace(
        made,
        streamed=made.asked(STREAM, {"input": stream})["completionStream"]["completionId"],
        completion=_make(made, "complete", asked)["id"],
        batch=ended_batch(made, made.full_model, {"role": "USER", "content": "[[tokens=2]]"}, made.batch_key),
        batch_file=_file(made),
        cursor_of_completions=_end(made, "completions"),
        cursor_of_configs=_end(made, "configs"),
        cursor_of_prices=_end(made, "prices"),
        cursor_of_keys=_end(made, "apiKeys"),
        cursor_of_events=_end(made, "auditLog"),
    )


def _named(server: Server, client: httpx.Client) -> Organisation:
    """What it calls things; there are none yet."""
    name, subject, model = (f"{each}-{secrets.token_hex(6)}" for each in ("org", "subject", "model"))
    return Organisation(
        name=name,
        client=client,
        url=server.url,
        token=mint(server.secret, subject=subject, organisation=name, scopes=list(Scope), lifetime_s=3600),
        subject=subject,
        model=model,
        full_model=f"{PROVIDER}/{model}",
        slug=f"slug-{secrets.token_hex(6)}",
        idempotency_key=f"key-{secrets.token_hex(6)}",
        batch_key=f"batch-{secrets.token_hex(6)}",
        end_user=f"user-{secrets.token_hex(6)}",
        label_name=f"label-{secrets.token_hex(6)}",
        label_value=f"value-{secrets.token_hex(6)}",
    )


def _make(by: Organisation, mutation: str, given: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = by.asked(document("Mutation", mutation, ["input"], depth=1), {"input": given})[mutation]
    return made


def ended_batch(by: Organisation, model: str, message: Mapping[str, str], key: str) -> str:
    """Of one item."""
    asked = {"inputs": [{"model": model, "messages": [message]}], "idempotencyKey": key}
    batch: str = _make(by, "submitBatch", asked)["batch"]["id"]
    watch = "subscription ($id: ID!) { batchProgress(id: $id) { state } }"
    with by.stream(watch, {"id": batch}) as events:
        *_, last = events
    assert last["batchProgress"]["state"] == "COMPLETED"
    return batch


def _file(by: Organisation) -> str:
    """Of a batch whose one item hangs."""
    link = _make(by, "uploadBatchFile", {})
    line = orjson.dumps({"messages": [{"role": "USER", "content": "[[hang]]"}]})
    by.client.put(urljoin(by.url, link["url"]), content=line).raise_for_status()
    name: str = link["file"]
    return name


def _end(by: Organisation, connection: str) -> str:
    page = by.asked(f"{{ {connection} {{ pageInfo {{ endCursor }} }} }}", {})[connection]["pageInfo"]
    cursor: str = page["endCursor"]
    return cursor
