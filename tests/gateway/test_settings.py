"""Settings: what is wrong is refused in one line that names the variable and keeps its secret."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.batch_work import refusal as batch_refusal
from gateway.sealing import Sealer
from gateway.setting_values import decode_key
from gateway.settings import Environment, Settings, SettingsError, load_settings

KEY = bytes(range(32))
KEY_TEXT = base64.b64encode(KEY).decode()
SECRET = "a-signing-secret-of-more-than-32-bytes"
PRODUCTION = {"ENVIRONMENT": "PRODUCTION", "JWT_TOKEN_SECRET": SECRET, "ENCRYPTION_KEY": KEY_TEXT}
VENDORS = ("OPENAI", "ANTHROPIC", "GOOGLE", "GROQ", "MISTRAL", "OPENROUTER", "COMPATIBLE")
SERVERS = (
    "MONGODB_CONNECTION_URI",
    "TIMESCALE_SERVICE_URL",
    "TIMESCALE_REPLICA_URL",
    "REDIS_URI",
    "QUEUE_CONNECTIONURL",
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)


def load(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, environment)
    assert caught.value.__suppress_context__, "a printed chain would show the values"
    return str(caught.value)


def test_defaults_need_nothing() -> None:
    settings = load_settings()
    assert (settings.ENVIRONMENT, settings.HOST, settings.PORT) == (Environment.LOCAL, "127.0.0.1", 8080)
    assert str(settings.DATA_DIR) == "data"
    assert settings.JWT_TOKEN_SECRET is None
    assert settings.ENCRYPTION_KEY is None
    assert settings.ALLOWED_ORIGINS == ()
    assert all(settings.api_keys(f"{vendor}_API_KEY", Sealer(KEY)) == [] for vendor in VENDORS)


WRONG = [
    ("PORT", {"PORT": "abc"}),
    ("PORT", {"PORT": "70000"}),
    ("PORT", {"PORT": "-1"}),
    ("PORT", {"PORT": "80.5"}),
    ("INTERNAL_PORT", {"INTERNAL_PORT": "65536"}),
    ("INTERNAL_PORT", {**PRODUCTION, "PORT": "8081"}),
    ("MAX_WORKERS", {"MAX_WORKERS": "65"}),
    ("MAX_WORKERS", {"MAX_WORKERS": "0"}),
    ("MAX_WORKERS", {"MAX_WORKERS": "many"}),
    ("KEEP_ALIVE_S", {"KEEP_ALIVE_S": "0"}),
    ("SHUTDOWN_TIMEOUT_S", {"SHUTDOWN_TIMEOUT_S": "0"}),
    ("ENVIRONMENT", {"ENVIRONMENT": "prod"}),
    ("ENVIRONMENT", {"ENVIRONMENT": "production"}),
    ("JWT_TOKEN_SECRET", {"JWT_TOKEN_SECRET": "s3cret-but-short"}),
    ("JWT_TOKEN_SECRET", {"JWT_TOKEN_SECRET": "s" * 31}),
    ("JWT_TOKEN_SECRET", {"ENVIRONMENT": "PRODUCTION", "ENCRYPTION_KEY": KEY_TEXT}),
    ("ENCRYPTION_KEY", {"ENVIRONMENT": "PRODUCTION", "JWT_TOKEN_SECRET": SECRET}),
    ("ENCRYPTION_KEY", {"ENCRYPTION_KEY": "not base64 at all!"}),
    ("ENCRYPTION_KEY", {"ENCRYPTION_KEY": base64.b64encode(b"x" * 31).decode()}),
    ("ENCRYPTION_KEY", {"ENCRYPTION_KEY": base64.b64encode(b"x" * 33).decode()}),
    ("ENCRYPTION_KEY", {"ENCRYPTION_KEY": "ümlaut" * 8}),
    ("COMPATIBLE_BASE_URL", {"COMPATIBLE_API_KEY": "sk-for-nowhere"}),
    *((f"{vendor}_API_KEY", {f"{vendor}_BASE_URL": "http://127.0.0.1:1"}) for vendor in VENDORS[:-1]),
    ("OPENAI_API_KEY", {"OPENAI_API_KEY": " " * 3, "OPENAI_BASE_URL": "http://127.0.0.1:1"}),
    ("HOST", {"HOST": " "}),
    ("MAX_BODY_BYTES", {"MAX_BODY_BYTES": "1023"}),
    ("MAX_UPSTREAM_CONNECTIONS", {"MAX_UPSTREAM_CONNECTIONS": "0"}),
    ("TIMESCALE_SERVICE_URL", {"TIMESCALE_REPLICA_URL": "postgresql://u:hunter2hunter2@replica.internal/x"}),
    ("ALLOWED_ORIGINS", {"ALLOWED_ORIGINS": "example.com"}),
    ("ALLOWED_ORIGINS", {"ALLOWED_ORIGINS": "https://example.com, https://example.org/app"}),
    ("ALLOWED_ORIGINS", {"ALLOWED_ORIGINS": "https://["}),
    ("ALLOWED_ORIGINS", {"ALLOWED_ORIGINS": "https://*.example.com"}),
    ("MONGODB_CONNECTION_URI", {"MONGODB_TLS_CA_FILE": "/etc/ca.pem"}),
    ("MONGODB_CONNECTION_URI", {"MONGODB_CONNECTION_URI": "mongodb://operator:hunter2@hunter2@db.internal/x"}),
    ("MONGODB_POOL_SIZE", {"MONGODB_POOL_SIZE": "1"}),
    ("MONGODB_TIMEOUT_S", {"MONGODB_TIMEOUT_S": "0"}),
    *((name, {name: "scheme://operator:hunter2hunter2@db.internal/x"}) for name in SERVERS),
]


@pytest.mark.parametrize(("variable", "environment"), WRONG)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, environment: dict[str, str]
) -> None:
    message = refusal(monkeypatch, environment)
    assert message.startswith(f"{variable}: ")
    assert len(message) > len(variable) + 10, "says what is wrong"
    assert len(message.splitlines()) == 1
    for name, value in environment.items():
        if name.endswith(("SECRET", "KEY", "URI", "URL", "CONNECTIONURL")):
            assert value not in message


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "url",
    [
        "api.example.com/v1",
        "ftp://api.example.com",
        "https://",
        "https:///v1",
        "http://[::1",
        "http://host:99999",
        "http://host..example.com",
        f"http://{'x' * 64}.example.com",
        "http://host:port",
        "https://user:hunter2hunter2@api.example.com/v1",
        "https://api.example.com/v1?key=hunter2hunter2",
        "https://api.example.com/v1#part",
        "https://api.example.com/\tv1",
        "https://api example.com/v1",
    ],
)
def test_a_base_url_is_a_plain_address(monkeypatch: pytest.MonkeyPatch, vendor: str, url: str) -> None:
    message = refusal(monkeypatch, {f"{vendor}_BASE_URL": url})
    assert message.startswith(f"{vendor}_BASE_URL: ")
    assert "hunter2" not in message


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "https://api.example.com/v1/", "http://[::1]:8000/v1"])
def test_a_base_url_may_have_a_port_and_a_path(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    settings = load(monkeypatch, {"COMPATIBLE_BASE_URL": url})
    assert settings.COMPATIBLE_BASE_URL == url  # noqa: SIM300  # that is no constant


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_empty_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert load(monkeypatch, {name: ""}) == load_settings()


def test_an_address_with_its_key_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {"OPENAI_API_KEY": "sk-plain", "OPENAI_BASE_URL": "https://h/v1"})
    assert settings.OPENAI_BASE_URL == "https://h/v1"


def test_an_empty_secret_is_no_secret_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, {**PRODUCTION, "JWT_TOKEN_SECRET": ""}).startswith("JWT_TOKEN_SECRET: ")
    assert refusal(monkeypatch, {**PRODUCTION, "JWT_TOKEN_SECRET": " " * 40}).startswith("JWT_TOKEN_SECRET: ")


def test_production_with_both_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, PRODUCTION)
    assert settings.ENVIRONMENT is Environment.PRODUCTION
    assert settings.INTERNAL_PORT == 8081


@pytest.mark.parametrize(
    ("given", "port"),
    [({}, None), ({"INTERNAL_PORT": ""}, None), ({"INTERNAL_PORT": "8081"}, 8081), (PRODUCTION, 8081)],
)
def test_a_local_worker_has_a_port_of_its_own_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], port: int | None
) -> None:
    assert load(monkeypatch, given).worker_port == port


def test_free_ports_do_not_clash_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {**PRODUCTION, "PORT": "0", "INTERNAL_PORT": "0"})
    assert (settings.PORT, settings.INTERNAL_PORT) == (0, 0)


def test_what_surrounds_a_value_does_not_belong_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        {
            "JWT_TOKEN_SECRET": f"{SECRET}\n",
            "ENCRYPTION_KEY": f" {KEY_TEXT}\n",
            "COMPATIBLE_BASE_URL": "https://h/v1\n",
        },
    )
    assert settings.JWT_TOKEN_SECRET is not None
    assert settings.JWT_TOKEN_SECRET.get_secret_value() == SECRET
    assert settings.ENCRYPTION_KEY is not None
    assert decode_key(settings.ENCRYPTION_KEY.get_secret_value()) == KEY
    assert settings.COMPATIBLE_BASE_URL == "https://h/v1"


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://a.example", ("https://a.example",)),
        (" https://a.example , http://localhost:3000,", ("https://a.example", "http://localhost:3000")),
        ("*", ("*",)),
        (" , ", ()),
    ],
)
def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]) -> None:
    settings = load(monkeypatch, {"ALLOWED_ORIGINS": text})
    assert settings.ALLOWED_ORIGINS == origins  # noqa: SIM300


def test_overrides_go_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("HOST", "0.0.0.0")
    settings = load_settings(PORT=0, DATA_DIR=tmp_path)
    taken = settings.PORT, settings.HOST, settings.DATA_DIR
    assert taken == (0, "0.0.0.0", tmp_path)
    with pytest.raises(SettingsError, match=r"^PORT: "):
        load_settings(PORT=-5)


def test_names_are_taken_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, {"port": "9000"}).PORT == 8080


def test_settings_are_not_changed_after_start() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().PORT = 1


def test_no_secret_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {f"{vendor}_API_KEY": f"sk-{vendor}-0123456789" for vendor in VENDORS}
    settings = load(monkeypatch, {**PRODUCTION, **keys, "COMPATIBLE_BASE_URL": "http://127.0.0.1:1"})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    for secret in (SECRET, KEY_TEXT, *keys.values()):
        assert secret not in shown


@given(value=st.text(st.characters(codec="ascii", exclude_characters="\x00"), min_size=8))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["JWT_TOKEN_SECRET", "ENCRYPTION_KEY", "COMPATIBLE_API_KEY", *SERVERS])
def test_no_refusal_repeats_a_secret(name: str, value: str) -> None:
    value = f"\u00bf{value}"  # a character that no message has
    try:
        load_settings(**{name: value})
    except SettingsError as error:
        assert "\u00bf" not in str(error)  # noqa: PT017  # not every value is refused


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_key_is_plain_or_sealed(monkeypatch: pytest.MonkeyPatch, vendor: str) -> None:
    sealer, name = Sealer(KEY), f"{vendor}_API_KEY"
    monkeypatch.setenv("COMPATIBLE_BASE_URL", "http://127.0.0.1:1")
    assert load(monkeypatch, {name: "sk-plain"}).api_keys(name, sealer) == [("sk-plain", 1)]
    assert load(monkeypatch, {name: f"  {sealer.seal('sk-sealed')}\n"}).api_keys(name, sealer) == [("sk-sealed", 1)]
    assert load(monkeypatch, {name: sealer.seal("sk-sealed\n")}).api_keys(name, sealer) == [("sk-sealed", 1)]
    assert load(monkeypatch, {name: "  "}).api_keys(name, sealer) == []
    assert load(monkeypatch, {name: sealer.seal("")}).api_keys(name, sealer) == []


def test_several_keys_may_have_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    sealer = Sealer(KEY)
    text = f"sk-a*3, {sealer.seal('sk-b')} * 2,sk-c"
    settings = load(monkeypatch, {"OPENAI_API_KEY": text})
    assert settings.api_keys("OPENAI_API_KEY", sealer) == [("sk-a", 3), ("sk-b", 2), ("sk-c", 1)]


UNUSABLE = {
    "a weight of nothing": "sk-a*",
    "no weight": "sk-a*x",
    "too little weight": "sk-a*0",
    "too much weight": "sk-a*1001",
    "two weights": "sk-a*2*3",
    "nothing between commas": "sk-a,,sk-b",
    "a comma at the end": "sk-a,",
    "one key twice": f"sk-a,{Sealer(KEY).seal('sk-a')}",
    "one of two unusable": "sk-a,sk-in two parts",
    "another key": Sealer(bytes(32)).seal("sk-under-another-key"),
    "changed": Sealer(KEY).seal("sk-changed")[:-8] + "AAAAAAA=",
    "nothing sealed": "enc:v1:",
    "not base64": "enc:v1:garbage!",
    "too short": "enc:v1:AAAA",
    "space": "sk-in two parts",
    "header injection": "sk-first\nx-injected: header",
    "not ASCII": "sk-ключ",
    "sealed header injection": Sealer(KEY).seal("sk-sealed\r\nx-injected: header"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_key_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    settings = load(monkeypatch, {"OPENAI_API_KEY": UNUSABLE[case]})
    with pytest.raises(SettingsError) as caught:
        settings.api_keys("OPENAI_API_KEY", Sealer(KEY))
    message = str(caught.value)
    assert message.startswith("OPENAI_API_KEY: ")
    assert len(message.splitlines()) == 1
    assert "sk-" not in message
    assert "garbage" not in message
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("days", ["4", "0", "-3"])
def test_retention_that_would_cut_into_the_sums_is_refused(monkeypatch: pytest.MonkeyPatch, days: str) -> None:
    said = refusal(monkeypatch, {"TIMESCALE_RETENTION_DAYS": days})
    assert said.startswith("TIMESCALE_RETENTION_DAYS: entries must be kept for 5 days or more")
    kept = load(monkeypatch, {"TIMESCALE_RETENTION_DAYS": "5", "TIMESCALE_COMPRESS_AFTER_DAYS": "2"}).ledger_policies()
    assert (kept.retention, kept.compress_after) == (timedelta(days=5), timedelta(days=2))


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"REDIS_URI": "http://h"}, "REDIS_URI: an address is written redis://"),
        ({"REDIS_URI": "redis://h:0/0"}, "REDIS_URI: an address is written redis://"),
        ({"REDIS_URI": "redis://h", "REDIS_TLS_CA_FILE": "ca.pem"}, "REDIS_URI: is an address without TLS, and REDIS_"),
        ({"QUEUE_CONNECTIONURL": "redis://h"}, "QUEUE_CONNECTIONURL: an address is written amqp://"),
        ({"QUEUE_CONNECTIONURL": "amqp://h:0/"}, "QUEUE_CONNECTIONURL: an address is written amqp://"),
        (
            {"QUEUE_CONNECTIONURL": "amqp://h", "QUEUE_TLS_CA_FILE": "ca.pem"},
            "QUEUE_CONNECTIONURL: is an address without TLS, and QUEUE_TLS_CA_FILE is set: write amqps://",
        ),
        ({"REDIS_TLS_CA_FILE": "ca.pem"}, "REDIS_URI: is not set, and REDIS_TLS_CA_FILE is"),
        ({"QUEUE_TLS_CA_FILE": "ca.pem"}, "QUEUE_CONNECTIONURL: is not set, and QUEUE_TLS_CA_FILE is"),
        ({"OBJECT_STORE_TLS_CA_FILE": "ca.pem"}, "OBJECT_STORE_URL: is not set, and OBJECT_STORE_TLS_CA_FILE is"),
        ({"OBJECT_STORE_URL": "http://bucket"}, "OBJECT_STORE_URL: is one of s3://BUCKET/PREFIX"),
        ({"CONSUMER_STATUS": "false"}, "CONSUMER_STATUS: without QUEUE_CONNECTIONURL nobody else"),
        ({"QUEUE_NAME": "a queue"}, "QUEUE_NAME: "),
        ({"PREFETCH_COUNT": "0"}, "PREFETCH_COUNT: "),
    ],
)
def test_what_belongs_to_shared_servers(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: str
) -> None:
    assert refusal(monkeypatch, environment).startswith(told)


def test_a_server_may_leave_the_queue_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {"QUEUE_CONNECTIONURL": "amqp://u:p@h:5672/", "CONSUMER_STATUS": "false"})
    assert (settings.CONSUMER_STATUS, settings.QUEUE_NAME, settings.PREFETCH_COUNT) == (False, "ai-middleware", 50)


def test_batches_are_accepted_where_somebody_could_work_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"QUEUE_CONNECTIONURL": "amqp://u:p@h:5672/", "MONGODB_CONNECTION_URI": "mongodb://h/ai?replicaSet=rs0"}
    for mine in ({}, shared):
        assert batch_refusal(load(monkeypatch, mine)) is None, "this process does"
    shared["CONSUMER_STATUS"] = "false"
    told = batch_refusal(load(monkeypatch, shared))
    assert told is not None
    assert told.endswith("need OBJECT_STORE_URL")
    assert batch_refusal(load(monkeypatch, {**shared, "OBJECT_STORE_URL": "s3://files/batches"})) is None
