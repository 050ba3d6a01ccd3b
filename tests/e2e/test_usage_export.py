"""Usage as a file: by the command line, and by a link that a browser follows."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from resolvers.principal import Scope

from .documents import COMPLETE
from .processes import Server, post, running_server, server_environment
from .test_cli import command
from .test_keys import REVOKE, made

EXPORT = "mutation Export($input: UsageInput!) { exportUsage(input: $input) { url expiresAt } }"
REPORT = """
query Report($input: UsageInput!) {
  usage(input: $input) {
    groups {
      dimensions { value }
      buckets {
        start end
        totals {
          completions attempts failedAttempts inputTokens outputTokens cost unpriced estimated errorRate
          latencyMs { p50 p95 p99 } outputTokensPerSecond
        }
      }
    }
  }
}
"""
MODELS = ("scripted/echo", "openai/gpt-4o-mini")


@pytest.fixture
def span() -> dict[str, str]:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {"since": (today - timedelta(days=1)).isoformat(), "until": (today + timedelta(days=2)).isoformat()}


@pytest.fixture
def used(server: Server, token: str) -> None:
    for model in MODELS:
        message = {"role": "USER", "content": "Hello."}
        labels = [{"name": "team", "value": "=search"}]
        answer = post(server, token, COMPLETE, {"input": {"model": model, "messages": [message], "labels": labels}})
        assert "errors" not in answer


def export(server: Server, token: str, span: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(server.folder), "AI_MIDDLEWARE_TOKEN": token}
    given = ["--since", span["since"], "--until", span["until"], "--url", server.url, *arguments]
    return command("usage", "export", *given, environment=environment)


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def flat(report: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            *(each["value"] or "" for each in group["dimensions"]),
            bucket["start"],
            bucket["end"],
            *(
                str(totals[name])
                for name in ("completions", "attempts", "failedAttempts", "inputTokens", "outputTokens", "cost")
            ),
            str(totals["unpriced"]),
            str(totals["estimated"]),
            *(
                "" if totals[name] is None else str(round(totals[name], 4))
                for name in ("errorRate", "outputTokensPerSecond")
            ),
            *(
                str(round(totals["latencyMs"][each], 4)) if totals["latencyMs"] else ""
                for each in ("p50", "p95", "p99")
            ),
        )
        for group in report["groups"]
        for bucket in group["buckets"]
        for totals in [bucket["totals"]]
    ]


COLUMNS = [
    *("model", "label:team", "bucket_start", "bucket_end", "completions", "attempts", "failed_attempts"),
    *("input_tokens", "output_tokens", "cost", "unpriced", "estimated", "error_rate", "output_tokens_per_second"),
    *("latency_ms_p50", "latency_ms_p95", "latency_ms_p99"),
]


@pytest.mark.usefixtures("used")
def test_the_command_writes_what_the_api_reports(
    server: Server, token: str, span: dict[str, str], tmp_path: Path
) -> None:
    zone = {"bucket": "DAY", "timeZone": "Asia/Kolkata"}
    by = [{"field": "MODEL"}, {"label": "team"}]
    report = post(server, token, REPORT, {"input": span | zone | {"groupBy": by}})["data"]["usage"]
    file = tmp_path / "usage.csv"
    file.write_text("of yesterday")
    options = ["--bucket", "day", "--time-zone", "Asia/Kolkata", "--group-by", "model", "--group-by", "label:team"]
    done = export(server, token, span, *options, "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = lines(file.read_bytes().decode())
    assert {each["label:team"] for each in written} == {"'=search"}, "no spreadsheet runs it"
    assert [tuple(each[name].removeprefix("'") for name in COLUMNS) for each in written] == flat(report)
    assert sum(int(each["completions"]) for each in written) == len(MODELS)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("used")
def test_the_command_prints_and_filters(server: Server, token: str, span: dict[str, str]) -> None:
    done = export(server, token, span, "--filter", "provider=scripted", "--filter", "label:team==search")
    (line,) = lines(done.stdout)
    assert line["completions"] == "1"
    both = ["--filter", "model=echo", "--filter", "model=gpt-4o-mini", "--filter", "outcome=succeeded"]
    (line,) = lines(export(server, token, span, *both).stdout)
    assert line["completions"] == "2"
    (line,) = lines(export(server, token, span, "--filter", "config_version=3").stdout)
    assert line["completions"] == "0"


def test_a_day_without_an_offset_is_one_of_the_time_zone(server: Server, token: str) -> None:
    day = {"since": "2026-03-29", "until": "2026-03-30"}
    (line,) = lines(export(server, token, day, "--time-zone", "Europe/Berlin", "--bucket", "day").stdout)
    assert (line["bucket_start"], line["bucket_end"]) == ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "--since"),
        (["--time-zone", "Mars"], "--time-zone"),
        (["--group-by", "colour"], "--group-by"),
        (["--filter", "provider"], "--filter"),
        (["--filter", "colour=red"], "--filter"),
        (["--filter", "config_version=x"], "--filter"),
        (["--filter", "outcome=x"], "--filter"),
        (["--group-by", "label:"], "BAD_USER_INPUT"),
        (["--bucket", "minute", "--since", "2020-01-01"], "BAD_USER_INPUT"),
        (["--output", "/no/such/folder/usage.csv"], "/no/such/folder/usage.csv"),
        (["--token", "a.b.c"], "UNAUTHENTICATED"),
    ],
    ids=str,
)
def test_what_goes_wrong_is_one_line(
    server: Server, token: str, span: dict[str, str], arguments: list[str], said: str
) -> None:
    done = export(server, token, span, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_not_written_stays_as_it_was(
    server: Server, token: str, span: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "usage.csv"
    file.write_text("of yesterday")
    assert export(server, token, span, "--token", "a.b.c", "--output", str(file)).returncode == 1
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(file, "of yesterday")]
    assert export(server, token, span, "--output", os.devnull).returncode == 0


@pytest.mark.usefixtures("used")
def test_a_link_opens_without_a_token_and_never_stands_in_the_log(
    server: Server, token: str, organisation: str, span: dict[str, str]
) -> None:
    link = post(server, token, EXPORT, {"input": span | {"groupBy": [{"field": "PROVIDER"}]}})["data"]["exportUsage"]
    left = datetime.fromisoformat(link["expiresAt"]) - datetime.now(UTC)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)
    address = urljoin(server.url, link["url"])
    answer = httpx.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="usage-')
    assert answer.headers["cache-control"] == "no-store"
    assert {each["provider"] for each in lines(answer.text)} == {"scripted", "openai"}
    assert httpx.get(address + "x").status_code == 403
    assert httpx.post(address).status_code == 405
    assert httpx.get(urljoin(server.url, "/usage.csv")).status_code == 403
    assert httpx.get(urljoin(server.url, "/usage.csv/?query=secret")).status_code == 404, "nothing sends it elsewhere"
    asked = httpx.URL(address).params
    assert "usage download" in server.log()
    assert organisation in server.log()
    assert asked["query"] not in server.log()
    assert asked["signature"] not in server.log()


def test_who_may_not_read_usage_gets_no_link(server: Server, span: dict[str, str]) -> None:
    token = server.token("acme", scopes=[Scope.COMPLETIONS_WRITE])
    (error,) = post(server, token, EXPORT, {"input": span})["errors"]
    assert error["extensions"]["code"] == "FORBIDDEN"


def test_a_link_ends_with_the_key_that_asked_for_it(server: Server, organisation: str, span: dict[str, str]) -> None:
    key, made_key = made(server, organisation, grant={"scopes": ["usage:read", "tokens:mint"]})
    minting = {"input": {"grant": {"scopes": ["usage:read"]}}}
    minted = post(server, key, "mutation ($input: MintTokenInput!) { mintToken(input: $input) { token } }", minting)
    links = [
        urljoin(server.url, post(server, each, EXPORT, {"input": span})["data"]["exportUsage"]["url"])
        for each in (key, minted["data"]["mintToken"]["token"])
    ]
    assert [httpx.get(each).status_code for each in links] == [200, 200]
    post(server, server.token(organisation), REVOKE, {"input": {"id": made_key["id"]}})
    for each in links:
        answer = httpx.get(each)
        assert (answer.status_code, answer.text.count("\n")) == (403, 1)
        assert "revoked" in answer.text


def test_a_page_on_another_origin_may_follow_a_link(tmp_path: Path) -> None:
    origin = "https://app.example"
    with running_server(server_environment(tmp_path, None, ALLOWED_ORIGINS=origin)) as server:
        answer = httpx.get(urljoin(server.url, "/usage.csv"), headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
