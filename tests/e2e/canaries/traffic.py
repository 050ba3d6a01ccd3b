"""A day's calls: every mutation, every kind of failure, every way in; and all that callers are answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import httpx
import orjson
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..documents import COMPLETE, STREAM
from ..isolation.organisations import NOWHERE, PROVIDER, Organisation, ended_batch, made
from ..isolation.places import arguments, document, mutations
from ..isolation.references import DEFAULTS
from ..processes import PROVIDERS, Server
from .canaries import Canary, Group, Kind, Sink, canary

STATUSES = (400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503, 529)
STREAMED = (400, 401, 500)
MAKING = (
    *(b"createApiKey", b"rotateApiKey", b"mintToken", b"exportUsage"),
    *(b"createWebhook", b"rotateWebhookSecret", b"uploadBatchFile"),
)
TO_OPEN_A_CIRCUIT = 6
SOON_MS = 300
"""Of calls that would be tried again, or wait for ever."""


class Recorder(httpx.BaseTransport):
    """Keeps every answer as it came, its headers before it."""

    def __init__(self) -> None:
        self._transport = httpx.HTTPTransport()
        self.client = httpx.Client(transport=self, timeout=60)
        self.sinks: list[Sink] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        making = any(name in request.read() for name in MAKING)
        answer = self._transport.handle_request(request)
        kept = [repr(answer.headers.raw).encode()]
        group = Group.CREATION if making else Group.ANSWER
        if request.url.path.startswith("/metrics"):
            group = Group.METRICS
        answer.stream = _Kept(answer.stream, kept, lambda: self.keep(str(request.url), b"".join(kept), group))
        return answer

    def keep(self, name: str, content: bytes, group: Group = Group.ANSWER) -> None:
        self.sinks.append(Sink(group, name, content))

    def close(self) -> None:
        self._transport.close()


class _Kept(httpx.SyncByteStream):
    def __init__(self, stream: Any, kept: list[bytes], done: Any) -> None:
        self._stream, self._kept, self._done = stream, kept, done

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._kept.append(chunk)
            yield chunk

    def close(self) -> None:
        self._stream.close()
        self._done()


@dataclass
class Traffic:
    """Calls to one server, and the canaries that they bring, beside those that it makes."""

    server: Server
    recorder: Recorder
    canaries: list[Canary] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict, repr=False)

    def say(self, name: str, kind: Kind = Kind.TEXT, pattern: str = "canary/{}") -> str:
        """A canary that is the same each time."""
        if name not in self.said:
            self.canaries.append(canary(name, kind, pattern))
            self.said[name] = self.canaries[-1].value
        return self.said[name]

    def note(self, name: str, value: str) -> str:
        """What the server has made."""
        self.canaries.append(Canary(name, Kind.MADE, value))
        return value

    def run(self) -> Organisation:
        owner = made(self.server, self.recorder.client)
        self.canaries.append(Canary("a token", Kind.SECRET, owner.token))
        self.mutate(owner)
        self.completing(owner)
        self.failing(owner)
        self.mistaken(owner)
        self.refused(owner)
        for page in ("healthcheck", "readyz", "metrics"):
            owner.client.get(f"http://127.0.0.1:{self.server.port}/{page}")
        return owner

    def mutate(self, owner: Organisation) -> None:
        """Every mutation of the schema once, and all of them go well."""
        defaults = self.defaults(owner)
        for name in mutations():
            given = arguments("Mutation", name, (), "", defaults)
            answer = owner.asked(document("Mutation", name, given, depth=2), given)[name]
            for credential in ("key", "token"):
                if credential in answer:
                    self.use(owner, self.note(f"the {credential} of {name}", answer[credential]))
            if "secret" in answer:
                self.note(f"the secret of {name}", answer["secret"])
            if "url" in answer and "signature=" in answer["url"]:
                link = urljoin(owner.url, answer["url"])
                self.note(f"the link of {name}", httpx.URL(link).params["signature"])
                method, content = ("PUT", b"{}") if name == "uploadBatchFile" else ("GET", None)
                assert owner.client.request(method, link, content=content).status_code == 200

    def use(self, owner: Organisation, credential: str) -> None:
        """By each way in."""
        headers = {"authorization": f"Bearer {credential}"}
        asked = {"query": COMPLETE, "variables": {"input": self.asked(owner, "[[echo]]")}}
        answer = owner.client.post(owner.url, json=asked, headers=headers)
        assert "errors" not in answer.json(), answer.text
        self.over_a_socket(credential, self.asked(owner, "[[echo]]"))

    def defaults(self, owner: Organisation) -> Mapping[str, Any]:
        hanging = {"role": "USER", "content": f"[[hang]] {self.say('a question of a batch', Kind.BATCH)}"}
        failing = {"role": "USER", "content": "[[400]]"}
        return {
            "SubmitBatchInput": {"inputs": [{"model": owner.full_model, "messages": [hanging]}]},
            "CancelBatchInput.id": owner.batch,
            "RetryBatchInput.id": ended_batch(owner, owner.full_model, failing, f"{owner.batch_key}-failed"),
            **DEFAULTS,
            "CompleteInput": self.asked(owner, "[[echo]]"),
            "EmbedInput.inputs": [self.say("a text to embed")],
            "ConfigContentInput": {
                "model": owner.full_model,
                "prompt": self.say("a config's prompt", Kind.PRESET),
                "messages": [{"role": "USER", "content": self.say("a config's message", Kind.PRESET)}],
            },
            "ConfigBy": {"slug": owner.slug},
            "CompletionRef": {"id": owner.completion},
            "CorrectUsageInput.completionId": owner.completion,
            "CreateConfigInput.slug": f"{owner.slug}-2",
            "CreateDiscountInput": {"percent": "1"},
            "CreatePriceOverrideInput": {"provider": PROVIDER, "input": "1", "output": "1"},
            "EndPriceInput.id": owner.price_rule,
            **dict.fromkeys(("UpdateApiKeyInput.id", "RotateApiKeyInput.id", "RevokeApiKeyInput.id"), owner.api_key),
            "CreateWebhookInput": {"url": NOWHERE, "events": ["BUDGET_THRESHOLD_REACHED"]},
            **dict.fromkeys((f"{each}WebhookInput.id" for each in ("Update", "Delete", "Test")), owner.webhook),
            "RotateWebhookSecretInput.id": owner.webhook,
            "RedeliverWebhookInput.deliveryId": owner.delivery,
            "SetProviderKeyInput.provider": PROVIDER,
            "SetProviderKeyInput.key": self.say("a provider key that is deleted", Kind.SECRET, "sk-{}"),
            "DeleteProviderKeyInput.provider": PROVIDER,
        }

    def asked(self, owner: Organisation, orders: str, provider: str = PROVIDER, **more: Any) -> dict[str, Any]:
        messages = [
            {"role": "SYSTEM", "content": self.say("an instruction")},
            {"role": "USER", "content": f"{orders} {self.say('a question')}"},
        ]
        return {"model": f"{provider}/{owner.model}", "messages": messages, **more}

    def completing(self, owner: Organisation) -> None:
        """With the organisation's own key: plain, by a config, as streams over both, with all that a message holds."""
        own = self.say("an organisation's provider key", Kind.SECRET, "sk-{}")
        given = {"input": {"provider": PROVIDER, "key": own}}
        owner.asked("mutation ($input: SetProviderKeyInput!) { setProviderKey(input: $input) { hint } }", given)
        owner.asked(COMPLETE, {"input": self.asked(owner, "[[echo]]")})
        by_config = {"config": {"slug": f"{owner.slug}-2"}, "messages": [{"role": "USER", "content": "[[echo]]"}]}
        published = {"input": {"by": {"slug": f"{owner.slug}-2"}}}
        owner.asked("mutation ($input: PublishConfigInput!) { publishConfig(input: $input) { id } }", published)
        owner.asked(COMPLETE, {"input": by_config})
        with owner.stream(STREAM, {"input": self.asked(owner, "[[echo]]")}) as events:
            assert [*events][-1]["completionStream"]["__typename"] == "CompletionFinished"
        self.over_a_socket(owner.token, self.asked(owner, "[[echo]]"))
        owner.raw(COMPLETE, {"input": self.everything(owner)})

    def everything(self, owner: Organisation) -> dict[str, Any]:
        """All the places that a text can be in."""
        image = base64.b64encode(b"\x89PNG" + self.say("an image").encode()).decode()
        call = {"id": "call_1", "name": "look", "arguments": json.dumps({"for": self.say("a tool's argument")})}
        messages = [
            {"role": "USER", "parts": [{"image": {"data": image, "mediaType": "image/png"}}, {"text": "[[echo]]"}]},
            {"role": "ASSISTANT", "toolCalls": [call]},
            {"role": "TOOL", "toolCallId": "call_1", "content": self.say("a tool's result")},
        ]
        schema = {"type": "object", "properties": {"for": {"description": self.say("a schema's text")}}}
        tool = {"name": "look", "description": self.say("a tool's description"), "parameters": schema}
        options = {PROVIDER: {"metadata": {"note": self.say("a provider option")}}}
        return {"model": owner.full_model, "messages": messages, "tools": [tool], "providerOptions": options}

    def over_a_socket(self, token: str, asked: Mapping[str, Any]) -> None:
        """One stream, or what is said instead."""
        said: list[bytes] = []
        with connect(self.server.socket_url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
            try:
                socket.send(json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}))
                said.append(socket.recv(timeout=10, decode=False))
                payload = {"query": STREAM, "variables": {"input": asked}}
                socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
                while orjson.loads(said[-1])["type"] not in ("complete", "error"):
                    said.append(socket.recv(timeout=10, decode=False))
            except ConnectionClosed as end:
                said.append(str(end).encode())
        self.recorder.keep("over a socket", b"\n".join(said))

    def failing(self, owner: Organisation) -> None:
        """Every error of every vendor, whose text repeats the key and the question; hung and cut answers."""
        calls = [(status, provider, COMPLETE) for status in STATUSES for provider in PROVIDERS]
        calls += [(status, provider, STREAM) for status in STREAMED for provider in PROVIDERS]
        orders = [(f"[[{status}]] [[echo]]", provider, document) for status, provider, document in calls]
        orders += [(order, PROVIDER, each) for order in ("[[hang=0]]", "[[cut=0]]") for each in (COMPLETE, STREAM)]
        orders += [("[[503]]", PROVIDER, COMPLETE)] * TO_OPEN_A_CIRCUIT
        with ThreadPoolExecutor(8) as pool:
            for each in [pool.submit(self.failed, owner, *order) for order in orders]:
                each.result()

    def failed(self, owner: Organisation, orders: str, provider: str, query: str) -> None:
        asked = self.asked(owner, orders, provider, timeoutMs=SOON_MS)
        asked["model"] = f"{provider}/{owner.model}-{orders}-{len(query)}"  # its circuit is its own
        answer = owner.raw(query, {"input": asked})
        assert '"errors"' in answer.text or "CompletionFailed" in answer.text, answer.text

    def mistaken(self, owner: Organisation) -> None:
        """What is refused before it is done; and what is no request at all."""
        key = self.say("a provider key in a mistaken request", Kind.SECRET, "sk-{}")
        set_key = "mutation ($input: SetProviderKeyInput!) { setProviderKey(input: $input) { hint } }"
        for given in (
            {"provider": "nobody", "key": key},
            {"provider": PROVIDER, "key": f"{key}\n{key}"},
            {"provider": PROVIDER, "key": key * 100},
            {"provider": PROVIDER, "key": [key]},
            {"provider": PROVIDER, "key": {"is": key}},
            {"provider": 5, "key": key},
            {"key": key},
            {"provider": PROVIDER, "key": key, "note": ""},
        ):
            assert "errors" in (answer := owner.raw(set_key, {"input": given}).json()), (given, answer)
        for literal in (f'"{key}"', f'["{key}"]', f'{{is: "{key}"}}', f'"{key}'):
            query = f"mutation {{ setProviderKey(input: {{provider: 5, key: {literal}}}) {{ hint }} }}"
            assert "errors" in owner.raw(query, {}).json()
        asked = self.asked(owner, "")
        for change in ({"temperature": 9}, {"temperature": "warm"}, {"nothing": 1}, {"model": "nobody/none"}):
            assert "errors" in owner.raw(COMPLETE, {"input": {**asked, **change}}).json()
        headers = {"authorization": f"Bearer {owner.token}", "content-type": "application/json"}
        for body in (f'{{"query": "{key}', f'["{key}"]', f'{{"query": "{{ {self.say("a question")} }}"}}'):
            owner.client.post(owner.url, content=body, headers=headers)

    def refused(self, owner: Organisation) -> None:
        """Keys and tokens that open nothing, by every way in."""
        head, body, _ = owner.token.split(".")
        wrong = [
            self.say("a wrong key", Kind.SECRET, "aim_{}"),
            self.say("a wrong token", Kind.SECRET, f"{head}.{body}.{{}}"),
            self.say("a password", Kind.SECRET, "{}"),
            self.server.token("acme", lifetime_s=-60),
        ]
        self.canaries.append(Canary("an expired token", Kind.SECRET, wrong[-1]))
        for each in wrong:
            for accept in ("application/json", "text/event-stream"):
                for scheme in ("Bearer", "Basic", "bearer  "):
                    headers = {"authorization": f"{scheme} {each}", "accept": accept}
                    answer = owner.client.post(owner.url, json={"query": "{ viewer { subject } }"}, headers=headers)
                    assert answer.status_code == 401
            self.over_a_socket(each, {})
            owner.client.get(owner.url, params={"query": "{ viewer { subject } }", "token": each})
