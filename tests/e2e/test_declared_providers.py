"""A provider that the operator declared, through the real server: called, booked, priced, shown, like any other."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.sealing import Sealer

from .processes import Server, Vendor, post, running_server, server_environment
from .test_prices import OVERRIDE, ask
from .test_providers import complete, stream, text_of

ASKED = {"messages": [{"role": "USER", "content": "Hello. [[tokens=4]]"}]}
CHECK = "query ($draft: ConfigContentInput!) { configCheck(draft: $draft) { publishable message } }"


@pytest.fixture(scope="module")
def declaring(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("declaring")
    declared = [
        {"name": "acme", "baseUrl": f"{vendor.url}/v/acme", "keyVariable": "KEY_OF_ACME"},
        {"name": "unset", "baseUrl": f"{vendor.url}/v/acme", "keyVariable": "NOT_SET"},
    ]
    file = folder / "providers.yaml"
    file.write_text(yaml.safe_dump({"providers": declared}))
    environment = server_environment(folder, vendor, PROVIDERS_FILE=str(file))
    sealer = Sealer(base64.b64decode(environment["ENCRYPTION_KEY"]))
    with running_server({**environment, "KEY_OF_ACME": sealer.seal("sk-acme")}) as server:
        yield server


async def test_it_is_called_and_priced_by_own_rules_alone(declaring: Server, vendor: Vendor, organisation: str) -> None:
    token, model = declaring.token(organisation), f"model-of-{organisation}"
    asked: dict[str, Any] = {"model": f"acme/{model}", **ASKED}
    answer = await complete(declaring, token, asked)
    assert (answer["provider"], answer["model"], answer["usage"]["outputTokens"]) == ("acme", model, 4)
    assert (answer["usage"]["cost"], answer["usage"]["costSource"]) == (None, "UNKNOWN")
    ask(declaring, token, OVERRIDE, input={"provider": "acme", "input": "0", "output": "1000000"})
    events = await stream(declaring, token, asked)
    usage = events[-1]["completion"]["usage"]
    assert text_of(events) == answer["content"]
    assert (usage["cost"], usage["costSource"]) == ("4", "ORGANISATION")
    assert vendor.tally("acme", model)["answered"] == 2


async def test_it_is_a_fallback_for_others(declaring: Server, organisation: str) -> None:
    refused = {"messages": [{"role": "USER", "content": "[[503@openai]] [[tokens=2]]"}]}
    fallbacks = [{"model": f"acme/model-of-{organisation}"}]
    answer = await complete(
        declaring,
        declaring.token(organisation),
        {"model": f"openai/model-of-{organisation}", **refused, "fallbacks": fallbacks},
    )
    assert answer["provider"] == "acme"


def test_it_is_shown_and_known_to_configs(declaring: Server, organisation: str) -> None:
    token = declaring.token(organisation)
    shown = ask(declaring, token, "{ providers { name configured circuit } }")
    states = {each["name"]: (each["configured"], each["circuit"]) for each in shown}
    assert states["acme"] == (True, "CLOSED")
    assert states["unset"] == (False, "CLOSED")
    checks = {
        name: ask(declaring, token, CHECK, draft={"model": f"{name}/m", "prompt": "Hi."})["publishable"]
        for name in ("acme", "nobody")
    }
    assert checks == {"acme": True, "nobody": False}


def test_what_it_lacks_is_told_by_its_name(declaring: Server, organisation: str) -> None:
    parts = [{"file": {"url": "https://example.com/a.pdf"}}]
    query = "mutation ($input: CompleteInput!) { complete(input: $input) { id } }"
    asked = {"model": "acme/m", "messages": [{"role": "USER", "parts": parts}]}
    (error,) = post(declaring, declaring.token(organisation), query, {"input": asked})["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["message"] == "acme has no files by URL (model m)"
