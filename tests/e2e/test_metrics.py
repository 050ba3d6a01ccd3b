"""`/metrics` of a real server after real traffic."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.metrics.catalogue import ROWS, Kind, Row
from gateway.metrics.labels import MAX_UNLISTED, OTHER
from tests.servers.ports import free_port

from .documents import COMPLETE, STREAM
from .processes import Server, Vendor, post, running_server, server_environment
from .scraping import Scrape, scrape
from .test_cancellation import until
from .test_providers import asked, stream
from .test_stalled_readers import stalled_reader

MADE_UP = 1000
EMBED = "mutation Embed($input: EmbedInput!) { embed(input: $input) { id } }"
LIMIT = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { requestsPerMinute } }"
BUDGET = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { usdPerDay } }"
SUBMIT = "mutation ($input: SubmitBatchInput!) { submitBatch(input: $input) { batch { id } } }"
MANY = """
mutation Many($inputs: [CompleteInput!]!) {
  completeMany(inputs: $inputs) { __typename ... on CompletionFailure { code } }
}
"""


@pytest.fixture(scope="module")
def measured(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of these tests alone, so that its counts are theirs; a folder for files is a server behind it."""
    folder: Path = tmp_path_factory.mktemp("measured")
    files = folder / "files"
    files.mkdir()
    with running_server(server_environment(folder, vendor, OBJECT_STORE_URL=f"file://{files}")) as started:
        yield started


@pytest.fixture(scope="module")
def seen(measured: Server) -> Scrape:
    """After calls of every kind."""
    token = measured.token("acme")
    for provider in ("openai", "anthropic"):
        assert "errors" not in post(measured, token, COMPLETE, {"input": asked(provider, "[[tokens=20]]")})
    fallback = asked("openai", "[[503@openai]]", fallbacks=[{"model": "groq/llama-3.3-70b-versatile"}])
    assert "errors" not in post(measured, token, COMPLETE, {"input": fallback})
    unpriced = {**asked("openai", ""), "model": "openai/of-my-own"}
    assert "errors" not in post(measured, token, COMPLETE, {"input": unpriced})
    assert asyncio.run(stream(measured, token, asked("openai", "[[tokens=30]] [[pace=2]]")))
    embed = {"model": "openai/text-embedding-3-small", "inputs": ["a"]}
    assert "errors" not in post(measured, token, EMBED, {"input": embed})
    assert "errors" in post(measured, token, COMPLETE, {"input": asked("openai", "[[400]]")})
    assert "errors" in post(measured, token, "{ nothing }")
    assert "errors" in post(measured, "no token", "{ viewer { subject } }")
    limited = measured.token("globex")
    assert "errors" not in post(measured, limited, LIMIT, {"input": {"requestsPerMinute": 1}})
    answers = [post(measured, limited, COMPLETE, {"input": asked("openai", "")}) for _ in range(3)]
    assert ["errors" in answer for answer in answers] == [False, True, True]
    return scrape(measured.port)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_every_metric_is_there(seen: Scrape, row: Row) -> None:
    family = seen.families[row.name.removesuffix("_total") if row.kind is Kind.COUNTER else row.name]
    assert family.type == row.kind
    assert family.documentation == row.text
    labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
    assert labels <= {frozenset(row.labels)}
    if row.name not in ("worker_job_duration_seconds", "worker_job_age_seconds"):
        assert labels, "no value"
    if row.kind is Kind.HISTOGRAM:
        bounds = {float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")}
        assert bounds == {*row.buckets, float("inf")}


def test_nothing_is_there_that_is_in_no_table(seen: Scrape) -> None:
    assert {name.removesuffix("_total") for name in ROWS} == {name.removesuffix("_total") for name in seen.families}


OPENAI = {"provider": "openai", "model": "gpt-4o-mini"}
GROQ = {"provider": "groq", "model": "llama-3.3-70b-versatile"}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("ai_requests_total", {**OPENAI, "outcome": "succeeded"}, 3),
        ("ai_requests_total", {**OPENAI, "outcome": "failed"}, 1),
        ("ai_requests_total", {**OPENAI, "outcome": "refused"}, 2),
        ("ai_requests_total", {**GROQ, "outcome": "succeeded"}, 1),
        ("ai_requests_total", {"model": "of-my-own", "outcome": "succeeded"}, 1),
        ("ai_request_errors_total", {"provider": "openai", "code": "PROVIDER_INVALID_REQUEST"}, 1),
        ("ai_request_errors_total", {"provider": "openai", "code": "RATE_LIMITED"}, 2),
        ("ai_attempts_total", {**OPENAI, "outcome": "succeeded", "code": ""}, 3),
        ("ai_attempts_total", {**OPENAI, "outcome": "failed", "code": "PROVIDER_UNAVAILABLE"}, 3),
        ("ai_attempts_total", {**OPENAI, "outcome": "failed", "code": "PROVIDER_INVALID_REQUEST"}, 1),
        ("ai_attempts_total", {"model": "text-embedding-3-small"}, 1),
        ("ai_attempt_duration_seconds_count", OPENAI, 7),
        ("ai_fallbacks_total", {"from_provider": "openai", "to_provider": "groq", "code": "PROVIDER_UNAVAILABLE"}, 1),
        ("ai_tokens_total", {**OPENAI, "kind": "output"}, 60),
        ("ai_unpriced_attempts_total", {"provider": "openai", "model": "of-my-own"}, 1),
        ("ai_unpriced_attempts_total", {}, 1),
        ("ai_time_to_first_token_seconds_count", OPENAI, 1),
        ("ai_time_per_output_token_seconds_count", {}, 1),
        ("ai_overhead_seconds_count", {}, 7),
        ("ai_requests_in_flight", {}, 0),
        ("ai_streams_in_flight", {}, 0),
        ("limit_rejections_total", {"limited": "organisation", "measure": "requests_per_minute"}, 2),
        ("limit_rejections_total", {}, 2),
        ("graphql_operations_total", {"type": "mutation", "name": "Complete", "outcome": "succeeded"}, 5),
        ("graphql_operations_total", {"type": "mutation", "name": "Complete", "outcome": "failed"}, 3),
        ("graphql_operations_total", {"type": "subscription", "name": "Stream", "outcome": "succeeded"}, 1),
        ("graphql_operations_total", {"type": "invalid", "name": ""}, 1),
        ("graphql_errors_total", {"code": "UNAUTHENTICATED"}, 1),
        ("graphql_errors_total", {"code": "BAD_USER_INPUT"}, 1),
        ("graphql_errors_total", {"code": "RATE_LIMITED"}, 2),
        ("graphql_errors_total", {"code": "INTERNAL"}, 0),
        ("http_requests_total", {"endpoint": "/graphql", "method": "POST", "status": "401"}, 1),
        ("http_requests_total", {"endpoint": "/graphql", "method": "POST", "status": "200"}, 11),
        ("http_requests_in_flight", {}, 1),
        ("websocket_connections", {}, 0),
        ("ledger_entries_total", {"place": "store"}, 11),
        ("ledger_entries_total", {}, 11),
        ("ledger_available", {}, 1),
        ("ledger_lag_seconds", {}, 0),
        ("inflight_log_entries", {}, 0),
        ("dependency_up", {"dependency": "object storage"}, 1),
        ("ai_middleware_ready", {}, 1),
        ("ai_circuit_state", {"provider": "openai"}, 0),
        ("queue_jobs", {"state": "ready"}, 0),
        ("ai_middleware_processes", {}, 1),
    ],
    ids=str,
)
def test_what_has_happened_is_counted(seen: Scrape, name: str, labels: dict[str, str], value: float) -> None:
    assert seen.value(name, **labels) == value


def test_figures_are_plausible(seen: Scrape) -> None:
    assert 0 < seen.value("ai_cost_usd_total", provider="openai") < 0.01
    assert 0.002 * 29 / 30 < seen.value("ai_time_per_output_token_seconds_sum") < 5
    assert seen.value("ai_overhead_seconds_sum") < seen.value("ai_request_duration_seconds_sum")
    assert seen.value("process_resident_memory_bytes") > 50e6
    assert seen.value("process_cpu_seconds_total") > 0.1
    assert seen.value("data_dir_free_bytes") > 0
    assert seen.value("cache_requests_total", cache="document", result="hit") > 0
    assert seen.value("cache_requests_total", cache="token", result="miss") == 3
    assert seen.value("api_key_soonest_expiry_timestamp_seconds") == float("inf")
    (info,) = seen.samples("ai_middleware_info")
    assert info.labels["version"]


def test_it_is_told_in_openmetrics_where_that_is_asked_for(measured: Server, seen: Scrape) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = httpx.get(f"http://127.0.0.1:{measured.port}/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert answer.text.endswith("# EOF\n")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {name.removesuffix("_total") for name in ROWS} == set(families)


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "application/openmetrics-text; version=none", "a" * 5000])
def test_whatever_else_is_accepted_it_is_plain_text(measured: Server, accept: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{measured.port}/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("model", ['a"b', "a\\b", "a\nb", "\u00fc\u2028", "{}", "%s"])
def test_odd_names_are_escaped(measured: Server, model: str) -> None:
    answer = post(
        measured, measured.token("acme"), COMPLETE, {"input": {**asked("groq", ""), "model": f"groq/{model}"}}
    )
    assert "errors" not in answer
    assert scrape(measured.port).value("ai_requests_total", provider="groq", model=model, outcome="succeeded") == 1


def test_production_has_it_on_the_internal_port_alone(vendor: Vendor, tmp_path: Path) -> None:
    internal = free_port()
    environment = server_environment(tmp_path, vendor, ENVIRONMENT="PRODUCTION", INTERNAL_PORT=str(internal))
    with running_server(environment) as server:
        assert httpx.get(f"http://127.0.0.1:{server.port}/metrics").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{internal}/metrics").status_code == 200
        assert scrape(internal).value("http_requests_total", endpoint="/metrics", status="404") == 1


def test_two_processes_answer_as_one(vendor: Vendor, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    environments = [
        server_environment(tmp_path / each, vendor, PROMETHEUS_MULTIPROC_DIR=str(folder)) for each in ("a", "b")
    ]
    with running_server(environments[0]) as first, running_server(environments[1]) as second:
        for server, answers in ((first, 2), (second, 3)):
            for _ in range(answers):
                assert "errors" not in post(server, server.token("acme"), COMPLETE, {"input": asked("openai", "")})
        for server in (first, second):
            found = scrape(server.port)
            assert found.value("ai_requests_total", provider="openai", outcome="succeeded") == 5
            assert found.value("ai_attempt_duration_seconds_count") == 5
            assert found.value("ai_middleware_processes") == 2
            assert found.value("ai_middleware_ready") == 1


async def test_a_budget_that_reaches_thresholds_is_counted_once_for_each(measured: Server) -> None:
    """The first call costs between 80 and 90 % of it; the second has no room."""
    token = measured.token("thrifty")
    assert "errors" not in post(measured, token, BUDGET, {"input": {"usdPerDay": "0.00014"}})
    call = asked("openai", "[[tokens=200]]", maxTokens=200)
    assert ["errors" in post(measured, token, COMPLETE, {"input": call}) for _ in range(2)] == [False, True]

    def reached() -> list[float]:
        found = scrape(measured.port)
        told = ("50", "80", "90", "100")
        return [found.value("budget_thresholds_total", measure="usd_per_day", percent=each) for each in told]

    await until(lambda: sum(reached()) == 2, within_s=30)
    assert reached() == [1, 1, 0, 0]


async def test_items_of_a_batch_are_counted_and_none_is_open_in_the_end(measured: Server) -> None:
    lines = [{"messages": [{"role": "USER", "content": prompt}]} for prompt in ("", "", "[[400]]")]
    asked_for = {"inputs": lines, "model": "openai/gpt-4o-mini"}
    assert "errors" not in post(measured, measured.token("batching"), SUBMIT, {"input": asked_for})

    def counted() -> tuple[float, ...]:
        found = scrape(measured.port)
        ended = [found.value("batch_items_total", mode="live", outcome=each) for each in ("succeeded", "failed")]
        return (*ended, found.value("batches_open"), found.value("batch_items_open"))

    await until(lambda: counted() == (2, 1, 0, 0), within_s=60)
    assert scrape(measured.port).value("batch_items_total") == 3


def test_what_costs_too_much_is_counted(measured: Server) -> None:
    before = scrape(measured.port).value("graphql_cost_refusals_total", reason="too_complex")
    wide = " ".join(f"a{number}: configs(first: 100) {{ nodes {{ id }} }}" for number in range(99))
    assert "errors" in post(measured, measured.token("acme"), f"{{ {wide} }}")
    found = scrape(measured.port)
    assert found.value("graphql_cost_refusals_total", reason="too_complex") == before + 1
    assert found.value("graphql_cost_refusals_total", reason="throttled") == 0


async def test_made_up_names_make_no_series(measured: Server) -> None:
    """Models that no vendor knows, models that one answers for, names of operations, paths, methods."""
    token = measured.token("acme")
    headers = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def many(names: list[str], prompt: str) -> None:
            for start in range(0, len(names), 50):
                models = [f"openai/{name}" for name in names[start : start + 50]]
                inputs = [{**asked("openai", prompt), "model": model, "timeoutMs": 60_000} for model in models]
                body = {"query": MANY, "variables": {"inputs": inputs}}
                async with session.post(measured.url, json=body) as answer:
                    assert "errors" not in await answer.json()

        await many([f"nobody-knows-{secrets.token_hex(4)}" for _ in range(MADE_UP)], "[[404]]")
        unknown = scrape(measured.port)
        assert not [each for each in unknown.values_of("model", "ai_attempts_total") if each.startswith("nobody")]
        assert unknown.value("ai_attempts_total", model=OTHER, code="PROVIDER_INVALID_REQUEST") == MADE_UP
        assert unknown.value("ai_requests_total", model=OTHER, outcome="failed") == MADE_UP
        await many([f"answered-{secrets.token_hex(4)}" for _ in range(MADE_UP)], "")
        for number in range(MADE_UP):
            body = {"query": f"query Made{number} {{ __typename }}"}
            async with session.post(measured.url, json=body) as answer:
                assert answer.status == 200
        before = scrape(measured.port)
        await many([f"answered-{secrets.token_hex(4)}" for _ in range(100)], "")
        for number in range(20):
            async with session.post(measured.url, json={"query": f"query Other{number} {{ __typename }}"}) as answer:
                assert answer.status == 200
            await session.request(f"M{number}", f"http://127.0.0.1:{measured.port}/{number}")
    after = scrape(measured.port)
    named = {each for each in after.values_of("model", "ai_requests_total") if each.startswith("answered")}
    assert MAX_UNLISTED - 10 <= len(named) <= MAX_UNLISTED
    assert after.value("ai_requests_total", model=OTHER, outcome="succeeded") >= MADE_UP - MAX_UNLISTED
    assert len(after.values_of("name", "graphql_operations_total")) <= 102
    assert after.value("graphql_operations_total", name=OTHER) >= MADE_UP - 100
    odd = after.series() - before.series()
    assert odd <= 3 * (2 + len(ROWS["http_request_duration_seconds"].buckets) + 2), "an odd method, an odd path"


async def test_what_is_open_is_none_when_the_clients_are_gone(measured: Server) -> None:
    """Streams over sockets that don't read, and over SSE."""
    token = measured.token("acme")
    body = {"query": STREAM, "variables": {"input": asked("openai", "[[hang=2]]")}}
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}

    def open_now() -> tuple[float, ...]:
        found = scrape(measured.port)
        return tuple(found.value(name) for name in OPEN)

    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(stalled_reader(measured, token))
        async with aiohttp.ClientSession() as session:
            streams = [await session.post(measured.url, json=body, headers=headers) for _ in range(2)]
            for each in streams:
                assert await each.content.readany()
            await until(lambda: open_now() == (5, 5, 5, 3, 3), within_s=30)
    await until(lambda: open_now() == (0, 0, 0, 0, 1), within_s=30)


OPEN = (
    "ai_streams_in_flight",
    "ai_requests_in_flight",
    "graphql_subscriptions_in_flight",
    "websocket_connections",
    "http_requests_in_flight",
)
