"""Providers that operators declare: read strictly, and from then on providers like the others."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.declared_providers import provider_rows
from gateway.keys import DeploymentKeys
from gateway.settings import Settings, SettingsError, load_settings
from gateway.vendors import vendors
from providers.registry import DIALECTS, ROWS
from providers.types import CompletionRequest, Credentials, Message, Role
from resolvers.key_pool import ProviderKey

KEYS = DeploymentKeys("a-signing-secret-of-more-than-32-bytes", bytes(range(32)))
DEN = {"name": "den", "baseUrl": "http://127.0.0.1:1/v1"}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.model_fields, "ACME_KEY"):
        monkeypatch.delenv(name, raising=False)


def declaring(tmp_path: Path, *providers: Any) -> Settings:
    return written(tmp_path, yaml.safe_dump({"providers": list(providers)}))


def written(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "providers.yaml"
    file.write_text(text)
    return load_settings(DATA_DIR=tmp_path, PROVIDERS_FILE=file)


def test_without_a_file_there_are_the_vendors_alone(tmp_path: Path) -> None:
    assert provider_rows(load_settings()) == provider_rows(declaring(tmp_path)) == ROWS


def test_they_come_after_the_vendors_as_they_are_declared(tmp_path: Path) -> None:
    acme = {"name": "acme-eu", "title": "Acme", "baseUrl": "https://acme.example", "keyVariable": "ACME_KEY"}
    den, other = provider_rows(declaring(tmp_path, DEN, {**acme, "dialect": "mistral"}))[len(ROWS) :]
    assert (den.name, den.title, den.base_url, den.key_variable, den.keyless) == (
        "den",
        "den",
        DEN["baseUrl"],
        None,
        True,
    )
    assert (other.title, other.key_variable, other.keyless) == ("Acme", "ACME_KEY", False)
    assert other.codec().provider == "acme-eu"
    assert other.capabilities == next(row.capabilities for row in ROWS if row.name == "mistral")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_is_spoken_under_the_name_of_the_provider(tmp_path: Path, dialect: str) -> None:
    codec = provider_rows(declaring(tmp_path, {**DEN, "dialect": dialect}))[-1].codec()
    spoken = next(row for row in ROWS if row.name == dialect).codec()
    request = CompletionRequest("m", (Message(Role.USER, "hi"),), max_tokens=9)
    assert codec.encode(request, stream=True) == spoken.encode(request, stream=True)
    assert codec.error(500, None, None).provider == "den"


def test_a_key_is_in_the_variable_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = declaring(tmp_path, DEN, {**DEN, "name": "acme", "keyVariable": "ACME_KEY"})
    rows = provider_rows(settings)
    assert set(vendors(settings, KEYS, rows)) == {"den", "scripted"}
    for value in ("sk-acme", f" {KEYS.sealer().seal('sk-acme')}\n"):
        monkeypatch.setenv("ACME_KEY", value)
        found = vendors(settings, KEYS, rows)
        assert {name: vendor.keys.keys[0].credentials for name, vendor in found.items() if name != "scripted"} == {
            "den": Credentials(""),
            "acme": Credentials("sk-acme"),
        }
        assert found["acme"].provider.name == "acme"
    monkeypatch.setenv("ACME_KEY", "enc:v1:garbage!")
    with pytest.raises(SettingsError, match=r"^ACME_KEY: the value after enc:v1: is not what"):
        vendors(settings, KEYS, rows)


def test_a_vendors_own_key_serves_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    eu = {"name": "openai-eu", "baseUrl": "https://eu.api.openai.com/v1", "keyVariable": "OPENAI_API_KEY"}
    settings = declaring(tmp_path, {**eu, "dialect": "openai"})
    found = vendors(settings, KEYS, provider_rows(settings))
    assert found["openai-eu"].keys.keys == found["openai"].keys.keys == (ProviderKey("1", Credentials("sk-openai")),)


WRONG = [
    ("[]", "is not a mapping of keys such as `providers: []`"),
    ("providers: {}", "providers: Input should be a valid list"),
    ("{}", "providers: is missing"),
    ("providers: []\nmodels: []", "models: unknown key"),
    ("providers: []\nproviders: []", "line 2: the key 'providers' twice"),
    ("providers: [&a {name: x}, *a]", "line 1: an alias: write out what it stands for"),
    ("providers: [{name: den}]", "providers.0.baseUrl: is missing"),
    ("providers: [{baseUrl: 'http://h'}]", "providers.0.name: is missing"),
    ("providers: [{name: Den, baseUrl: 'http://h'}]", "providers.0.name: String should match pattern"),
    ("providers: [{name: a/b, baseUrl: 'http://h'}]", "providers.0.name: String should match pattern"),
    ("providers: [{name: 1, baseUrl: 'http://h'}]", "providers.0.name: Input should be a valid string"),
    ("providers: [{name: groq, baseUrl: 'http://h'}]", "providers: the name 'groq' is taken"),
    ("providers: [{name: scripted, baseUrl: 'http://h'}]", "providers: the name 'scripted' is taken"),
    ("providers: [{name: a, baseUrl: 'http://h'}, {name: a, baseUrl: 'http://i'}]", "providers: the name 'a' is taken"),
    ("providers: [{name: a, baseUrl: ftp://h}]", "providers.0.baseUrl: is not a plain http or https address"),
    ("providers: [{name: a, baseUrl: 'http://u:p@h'}]", "providers.0.baseUrl: is not a plain http or https address"),
    ("providers: [{name: a, baseUrl: 'http://h', key: sk-1}]", "providers.0.key: unknown key"),
    (
        "providers: [{name: a, baseUrl: 'http://h', keyVariable: my-key}]",
        "providers.0.keyVariable: String should match",
    ),
    (
        "providers: [{name: a, baseUrl: 'http://h', keyVariable: JWT_TOKEN_SECRET}]",
        "providers.0.keyVariable: JWT_TOKEN_SECRET is a setting of another kind",
    ),
    (
        "providers: [{name: a, baseUrl: 'http://h', dialect: anthropic}]",
        "providers.0.dialect: Input should be 'compatible', 'openai', 'groq', 'mistral' or 'openrouter'",
    ),
]


@pytest.mark.parametrize(("text", "told"), WRONG)
def test_what_is_wrong_is_one_line_with_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    settings = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        provider_rows(settings)
    message = str(caught.value)
    assert message.startswith(f"PROVIDERS_FILE: {settings.PROVIDERS_FILE}: {told}")
    assert len(message.splitlines()) == 1
    assert caught.value.__suppress_context__


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^PROVIDERS_FILE: .*/none\.yaml: is not a file$"):
        provider_rows(load_settings(PROVIDERS_FILE=tmp_path / "none.yaml"))


def test_the_readmes_file_is_one_that_is_read(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    text = readme.partition("```yaml\n")[2].partition("```")[0]
    assert [row.name for row in provider_rows(written(tmp_path, text))[len(ROWS) :]][:4] == [
        "ollama",
        "vllm",
        "llama-cpp",
        "lm-studio",
    ]


def test_production_takes_them_too(tmp_path: Path) -> None:
    settings = declaring(tmp_path, DEN)
    production = load_settings(
        ENVIRONMENT="PRODUCTION",
        JWT_TOKEN_SECRET=KEYS.signing_secret,
        ENCRYPTION_KEY=base64.b64encode(KEYS.encryption_key).decode(),
        PROVIDERS_FILE=settings.PROVIDERS_FILE,
    )
    assert set(vendors(production, KEYS, provider_rows(production))) == {"den"}
