"""Secrets that can be told again wherever they come up, in whatever form."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from urllib.parse import quote


class Kind(Enum):
    """What it is, and so where it may be: see `ALLOWED` of the tests."""

    SECRET = "a secret of the deployment or of an organisation"
    MADE = "a key, a token or a signed link that was made for its caller"
    TEXT = "what a model was asked or answered"
    PRESET = "a text of a config"
    LICENCE = "what whoever takes the traces is shown by us"
    BATCH = "what a batch asks"


class Group(Enum):
    """Where something can end up."""

    OUTPUT = "what processes write to their outputs and logs"
    ANSWER = "what callers are answered, readiness too"
    METRICS = "what Prometheus is answered"
    TRACES = "what is sent to whoever takes the traces"
    CREATION = "what those are answered who have a key, a token or a link made"
    QUEUE = "messages of the queue, and all that the broker keeps"
    SHARED = "Redis: what it holds, and all that it was ever told"
    DOCUMENTS = "the documents' database"
    LEDGER = "the ledger's database"
    FILES = "DATA_DIR: the embedded database, notes in flight, the spool"
    BUCKET = "the bucket's files"
    PROCESS = "the processes' command lines, which every user of the machine can read"


@dataclass(frozen=True)
class Canary:
    """`core`: of a canary of our own, what no escaping changes; either half tells it. Without one, the whole value
    does."""

    name: str
    kind: Kind
    value: str = field(repr=False)
    core: str = field(default="", repr=False)

    @cached_property
    def forms(self) -> Mapping[bytes, str]:
        """What is looked for, and what that is."""
        parts = [self.core[:16], self.core[16:]] if self.core else [self.value]
        return {text: form for part in parts for form, text in reversed(forms(part).items())}


@dataclass(frozen=True)
class Sink:
    group: Group
    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Finding:
    canary: Canary
    sink: Sink
    form: str
    around: bytes


def canary(name: str, kind: Kind = Kind.SECRET, pattern: str = "canary/{}") -> Canary:
    """A fresh one; `pattern` gives it the look of what it stands for."""
    core = secrets.token_hex(16)
    return Canary(name, kind, pattern.format(core), core)


def forms(text: str) -> dict[str, bytes]:
    """As it is, URL-encoded, JSON-escaped, in hexadecimal and in base64, wherever in the encoded whole it stands."""
    raw = text.encode()
    found = {
        "plain": raw,
        "URL": quote(text, safe="").encode(),
        "JSON": json.dumps(text)[1:-1].encode(),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
    }
    for before, unsure in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(bytes(before) + raw).decode()
        known = encoded[unsure:] if (before + len(raw)) % 3 == 0 else encoded[unsure:-4]
        found[f"base64 from {before}"] = known.encode()
        found[f"base64url from {before}"] = known.replace("+", "-").replace("/", "_").encode()
    return found


def search(canaries: Iterable[Canary], sinks: Sequence[Sink]) -> Iterator[Finding]:
    for each in canaries:
        for sink in sinks:
            for text, form in each.forms.items():
                if (at := sink.content.find(text)) >= 0:
                    yield Finding(each, sink, form, sink.content[max(0, at - 120) : at + 60])
                    break
