"""What the server tells the person who started it, and that the line to paste is a request the API takes."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path

import pytest
from graphql import parse, validate
from graphql.execution import get_variable_values

from gateway import graphiql
from gateway.announcement import announcement
from gateway.auth import Authenticator
from gateway.keys import deployment_keys, developer_token
from gateway.settings import Settings, load_settings
from graph.schema import build_schema
from providers.registry import ROWS

SCHEMA = build_schema()._schema


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)


def curl(text: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith("curl ")]
    return shlex.split(line)


def body(text: str) -> dict[str, object]:
    words = curl(text)
    sent: dict[str, object] = json.loads(words[words.index("-d") + 1])
    return sent


async def test_the_line_to_paste_is_complete(tmp_path: Path) -> None:
    settings = load_settings(DATA_DIR=tmp_path)
    text = announcement(settings, 8123)
    words = curl(text)
    headers = [words[place + 1] for place, word in enumerate(words) if word == "-H"]
    token = developer_token(settings, deployment_keys(settings))
    assert words[:3] == ["curl", "-sS", "http://localhost:8123/graphql"]
    assert headers == ["content-type: application/json", f"authorization: Bearer {token}"]
    secret = deployment_keys(settings).signing_secret
    assert (await Authenticator(secret).from_header(f"Bearer {token}", None)).subject == "developer"


@pytest.mark.parametrize("vendor", [None, *(row for row in ROWS if row.base_url)], ids=lambda row: row and row.name)
def test_the_request_is_one_that_the_schema_takes(tmp_path: Path, vendor: object) -> None:
    key = {} if vendor is None else {vendor.key_variable: "sk-test"}
    sent = body(announcement(load_settings(DATA_DIR=tmp_path, **key), 80))
    document = parse(str(sent["query"]))
    assert validate(SCHEMA, document) == []
    (operation,) = document.definitions
    values = get_variable_values(SCHEMA, operation.variable_definitions, sent["variables"])
    assert not isinstance(values, list), "errors are a list"
    expected = "scripted/echo" if vendor is None else f"{vendor.name}/{vendor.example}"
    assert sent["variables"]["input"]["model"] == expected


def test_every_vendor_has_an_example() -> None:
    assert all((row.example is None) is (row.base_url is None) for row in ROWS)


def test_who_is_ready_and_who_is_not(tmp_path: Path) -> None:
    text = announcement(load_settings(DATA_DIR=tmp_path, GROQ_API_KEY="sk-secret-of-groq"), 80)
    ready, missing = (
        next(line for line in text.splitlines() if label in line) for label in ("Providers ready", "Without a key")
    )
    assert "groq" in ready
    assert "groq" not in missing
    assert "scripted (a development fake, offline)" in ready
    assert "openai" in missing
    assert "sk-secret-of-groq" not in text


def test_what_the_operator_declared_is_told_too(tmp_path: Path) -> None:
    file = tmp_path / "providers.yaml"
    file.write_text(
        "providers:\n  - {name: den, baseUrl: 'http://127.0.0.1:1/v1'}\n"
        "  - {name: acme, baseUrl: 'http://127.0.0.1:1/v1', keyVariable: ACME_API_KEY}\n"
    )
    text = announcement(load_settings(DATA_DIR=tmp_path, PROVIDERS_FILE=file), 80)
    assert "Providers ready   den, scripted" in text
    assert "openrouter, acme\n" in text
    assert "scripted/echo" in curl(text)[-1], "nobody knows den's models"


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "localhost"),
        ("::", "localhost"),
        ("10.0.0.7", "10.0.0.7"),
        ("gateway.internal", "gateway.internal"),
        ("::1", "[::1]"),
    ],
)
def test_the_address_can_be_opened(tmp_path: Path, host: str, shown: str) -> None:
    text = announcement(load_settings(DATA_DIR=tmp_path, HOST=host), 8080)
    assert text.splitlines()[0] == f"AI Middleware listens on http://{shown}:8080/graphql"
    assert curl(text)[2] == f"http://{shown}:8080/graphql"


@pytest.mark.parametrize("built", [True, False])
def test_the_address_of_the_page_and_where_its_scripts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    monkeypatch.setattr(graphiql, "FOLDER", tmp_path)
    if built:
        (tmp_path / "index.html").touch()
    settings = load_settings(DATA_DIR=tmp_path / "data")
    (line,) = [line for line in announcement(settings, 8080).splitlines() if "GraphiQL" in line]
    address = line.split()[1]
    token = developer_token(settings, deployment_keys(settings))
    assert address == "http://localhost:8080/graphql" + (f"#token={token}" if built else "")
    assert ("CDN" in line) is not built
    assert ("Node" in line) is not built


def test_production_prints_no_token(tmp_path: Path) -> None:
    settings = load_settings(
        ENVIRONMENT="PRODUCTION",
        DATA_DIR=tmp_path,
        JWT_TOKEN_SECRET="a-signing-secret-of-more-than-32-bytes",
        ENCRYPTION_KEY=base64.b64encode(bytes(32)).decode(),
    )
    assert announcement(settings, 8080) == "AI Middleware listens on http://localhost:8080/graphql\n"
    assert list(tmp_path.iterdir()) == []
