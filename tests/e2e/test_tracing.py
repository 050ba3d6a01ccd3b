"""Traces of real processes, sent to a collector on a real socket."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from gateway.metrics.catalogue import WORKER_ROWS
from tests.servers.collector import HTTPSink, SentSpan, running_sink
from tests.servers.mongo import migrated_database
from tests.servers.ports import free_port

from .documents import COMPLETE, STREAM
from .processes import Server, Vendor, post, running_server, server_environment
from .scraping import scrape
from .site import MongoProcess, Site
from .test_cancellation import until
from .test_providers import asked
from .test_worker import running_worker

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "1bf7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
SUBMIT = "mutation Submit($input: SubmitBatchInput!) { submitBatch(input: $input) { batch { id } } }"


def traced(sink: HTTPSink) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20for-the-collector",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }


def ask(server: Server, token: str, asked: dict[str, object], traceparent: str | None = None) -> None:
    headers = {"authorization": f"Bearer {token}"} | ({"traceparent": traceparent} if traceparent else {})
    body = {"query": COMPLETE, "variables": {"input": asked}}
    assert "data" in httpx.post(server.url, json=body, headers=headers, timeout=60).json()


def page(port: int, path: str) -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30)
    return answer.status_code, answer.text


def named(spans: list[SentSpan], name: str) -> list[SentSpan]:
    return [span for span in spans if span.name == name]


def submit(server: Server, asked_for: dict[str, object], traceparent: str, request_id: str) -> None:
    headers = {"authorization": f"Bearer {server.token('acme')}", "traceparent": traceparent}
    body = {"query": SUBMIT, "variables": {"input": asked_for}}
    answer = httpx.post(server.url, json=body, headers={**headers, "x-request-id": request_id}, timeout=60)
    assert "errors" not in answer.json(), answer.text


def way(span: SentSpan, spans: list[SentSpan]) -> list[str]:
    """Its name, its parent's, and so on, to the id of one that was not sent here."""
    known = {each.span_id: each for each in spans}
    found = [span.name]
    while (parent := known.get(span.parent_id)) is not None:
        assert parent.trace_id == span.trace_id
        found.append(parent.name)
        span = parent
    return [*found, span.parent_id]


def completions_of(log: str, request_id: str, trace: str) -> list[str]:
    """What a log in a terminal's form says of completions."""
    lines = [line for line in log.splitlines() if "completion_id=" in line]
    return [line for line in lines if f"request_id={request_id} " in line and f"trace_id={trace}" in line]


async def socket_stream(server: Server, token: str) -> None:
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"])
        init = {"authorization": f"Bearer {token}", "traceparent": TRACEPARENT.replace(TRACE, "f" * 32)}
        await socket.send_json({"type": "connection_init", "payload": init})
        await socket.receive_json()
        call = {"query": STREAM, "variables": {"input": asked("anthropic", "[[soon]] [[tokens=3]]")}}
        await socket.send_json({"id": "1", "type": "subscribe", "payload": call})
        while (await socket.receive_json())["type"] != "complete":
            pass
        await socket.close()


def test_an_operation_is_one_trace(vendor: Vendor, tmp_path: Path) -> None:
    """Retries and a fallback within it; a caller's trace goes on; a stream over a socket has its own."""
    with running_sink() as sink:
        with running_server(server_environment(tmp_path, vendor, **traced(sink))) as server:
            token = server.token("acme")
            fallback = {**asked("openai", "[[503@openai]]"), "fallbacks": [{"model": "mistral/mistral-small-latest"}]}
            ask(server, token, fallback, TRACEPARENT)
            ask(server, token, asked("groq", ""), "not a traceparent")
            asyncio.run(socket_stream(server, token))
            log = server.log
        spans = list(sink.spans())
        (operation,) = [span for span in spans if span.trace_id == TRACE and span.kind == SERVER]
        assert (operation.name, operation.parent_id) == ("mutation Complete", CALLER)
        assert operation.attributes["graphql.operation.name"] == "Complete"
        attempts = [span for span in spans if span.trace_id == TRACE and span.kind == CLIENT]
        assert [span.name for span in attempts] == ["chat gpt-4o-mini"] * 3 + ["chat mistral-small-latest"]
        assert {span.parent_id for span in attempts} == {operation.span_id}
        assert [span.failed for span in attempts] == [True, True, True, False]
        assert attempts[0].attributes["error.type"] == "PROVIDER_UNAVAILABLE"
        told = attempts[-1].attributes
        assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("chat", "mistral_ai")
        assert (told["gen_ai.request.model"], told["gen_ai.usage.output_tokens"]) == ("mistral-small-latest", 10)
        assert {span.service for span in spans} == {"ai-middleware"}
        (commit, *_) = [span for span in named(spans, "ledger commit") if span.trace_id == TRACE]
        assert commit.parent_id == operation.span_id
        (other,) = named(spans, "chat llama-3.3-70b-versatile")
        assert other.trace_id not in (TRACE, "0" * 32)
        (streamed,) = named(spans, "chat claude-haiku-4-5")
        assert streamed.trace_id == "f" * 32
        assert "gen_ai.response.time_to_first_chunk" in streamed.attributes
        assert [span.trace_id for span in named(spans, "subscription Stream")] == ["f" * 32]
        assert f"trace_id={TRACE}" in log(), "all that is logged meanwhile has its id"
        durations = sink.metrics()["gen_ai.client.operation.duration"]
        assert {point["gen_ai.provider.name"] for point in durations} >= {"openai", "mistral_ai", "groq", "anthropic"}
        kinds = {point["gen_ai.token.type"] for point in sink.metrics()["gen_ai.client.token.usage"]}
        assert kinds == {"input", "output"}
        assert {each.headers["authorization"] for each in sink.received} == {"Bearer for-the-collector"}


async def test_a_trace_goes_through_the_queue_and_the_worker(site: Site, tmp_path: Path) -> None:
    """And each of the two processes counts its part."""
    organisation, internal = f"traced-{secrets.token_hex(4)}", free_port()
    own = {"DATA_DIR": str(tmp_path / "data"), "QUEUE_NAME": secrets.token_hex(6), "CONSUMER_STATUS": "false"}
    with running_sink() as sink:
        environment = {**site.environments[0], **own, **traced(sink), "INTERNAL_PORT": str(internal)}
        with running_server(environment) as server:
            token, echo = server.token(organisation), {**asked("openai", ""), "model": "scripted/echo"}
            await asyncio.to_thread(site.parts["TimescaleDB"].kill)
            try:
                await asyncio.to_thread(ask, server, token, echo, TRACEPARENT)
                assert scrape(server.port).value("ledger_entries_total", place="queue") == 1
            finally:
                await asyncio.to_thread(site.parts["TimescaleDB"].start)
            with running_worker({**environment, "ENVIRONMENT": "PRODUCTION"}, tmp_path / "worker.log"):
                (worked,) = await until(lambda: named(list(sink.spans()), "process ledger"), within_s=60)
                await until(lambda: scrape(internal).value("worker_jobs_total", kind="ledger", outcome="done") == 1)
                found = scrape(internal)
                pages = [page(internal, path) for path in ("/healthcheck", "/readyz")]
            servers = scrape(server.port).values_of("dependency", "dependency_up")
    assert pages == [(200, "alive\n"), (200, "ready\n")]
    assert servers == {"MongoDB", "TimescaleDB", "Redis", "RabbitMQ"}
    assert {name.removesuffix("_total") for name in WORKER_ROWS} == {
        name.removesuffix("_total") for name in found.families
    }
    assert found.value("worker_job_age_seconds_count", kind="ledger") == 1
    spans = {span.span_id: span for span in sink.spans()}
    assert (worked.trace_id, worked.kind) == (TRACE, CONSUMER)
    commit = spans[worked.parent_id]
    assert (commit.name, commit.kind) == ("ledger commit", PRODUCER)
    operation = spans[commit.parent_id]
    assert (operation.name, operation.parent_id) == ("mutation Complete", CALLER)


async def test_a_batch_is_one_trace_with_its_submission(vendor: Vendor, tmp_path: Path) -> None:
    """In mode LIVE by the embedded queue, each item's calls and the commits of their entries within it; in mode
    PROVIDER what the vendor's batch API is asked. The log of each completion leads to both."""
    live = {"inputs": [asked("openai", "[[503@openai]]", fallbacks=[{"model": "groq/llama-3.3-70b-versatile"}])]}
    model = {"model": "openai/gpt-4o-mini", "mode": "PROVIDER"}
    given = {
        **model,
        "inputs": [{"messages": [{"role": "USER", "content": each}]} for each in ("[[soon]] [[tokens=3]]", "[[400]]")],
    }
    with running_sink() as sink:
        with running_server(server_environment(tmp_path, vendor, **traced(sink))) as server:
            submit(server, live, TRACEPARENT, "live-1")
            submit(server, given, TRACEPARENT.replace(TRACE, OTHER), "given-1")
            await until(lambda: len(completions_of(server.log(), "live-1", TRACE)) == 1, within_s=60)
            await until(lambda: len(completions_of(server.log(), "given-1", OTHER)) == 2, within_s=60)
        spans = list(sink.spans())
    within = [span for span in spans if span.trace_id == TRACE]
    calls = [span for span in within if span.kind == CLIENT]
    assert [span.name for span in calls] == [*["chat gpt-4o-mini"] * 3, "chat llama-3.3-70b-versatile"]
    item = ["process batch-item", "send batch-item", "mutation Submit", CALLER]
    assert [way(span, spans) for span in calls] == [[span.name, *item] for span in calls]
    assert {tuple(way(span, spans)) for span in named(within, "ledger commit")} == {("ledger commit", *item)}
    at_vendor = [span for span in spans if span.trace_id == OTHER and span.kind == CLIENT]
    steps = [f"batch {step} gpt-4o-mini" for step in ("upload", "poll", "collect")]
    assert {span.name for span in at_vendor} == {*steps, "chat gpt-4o-mini"}
    assert {tuple(way(span, spans)) for span in at_vendor} == {
        *((step, "mutation Submit", CALLER) for step in steps),
        ("chat gpt-4o-mini", steps[-1], "mutation Submit", CALLER),
    }
    told = {span.failed: span.attributes for span in named(at_vendor, "chat gpt-4o-mini")}
    assert told[False]["gen_ai.usage.output_tokens"] == 3
    assert told[True]["error.type"] == "PROVIDER_INVALID_REQUEST"


async def test_a_batch_is_one_trace_through_rabbitmq_and_a_worker(site: Site, tmp_path: Path) -> None:
    documents = site.parts["MongoDB"]
    assert isinstance(documents, MongoProcess)
    own = {
        "DATA_DIR": str(tmp_path / "data"),
        "QUEUE_NAME": secrets.token_hex(6),
        "CONSUMER_STATUS": "false",
        "OBJECT_STORE_URL": f"file://{tmp_path}/files",
        "MONGODB_CONNECTION_URI": await migrated_database(documents.mongo),  # the site's servers dispatch their own
    }
    log = tmp_path / "worker.log"
    with running_sink() as sink:
        environment = {**site.environments[0], **own, **traced(sink), "OTEL_SERVICE_NAME": "the-server"}
        worker = {**environment, "DATA_DIR": str(tmp_path / "worker"), "OTEL_SERVICE_NAME": "the-worker"}
        with running_server(environment) as server, running_worker(worker, log):
            submit(server, {"inputs": [asked("openai", "")]}, TRACEPARENT, "far-1")
            await until(lambda: named(list(sink.spans()), "process batch-item"), within_s=60)
            await until(lambda: completions_of(log.read_text(), "far-1", TRACE), within_s=60)
        spans = list(sink.spans())
    (call,) = [span for span in spans if span.trace_id == TRACE and span.name == "chat gpt-4o-mini"]
    assert way(call, spans) == [call.name, "process batch-item", "send batch-item", "mutation Submit", CALLER]
    services = {span.name: span.service for span in spans if span.trace_id == TRACE}
    assert services.keys() >= {"mutation Submit", "send batch-item", "process batch-item", "ledger commit", call.name}
    assert (services["mutation Submit"], services[call.name]) == ("the-server", "the-worker")


async def test_untraced_the_caller_s_trace_is_in_the_log_of_its_items(server: Server) -> None:
    trace = secrets.token_hex(16)
    submit(server, {"inputs": [asked("openai", "")]}, TRACEPARENT.replace(TRACE, trace), "untraced-1")
    await until(lambda: completions_of(server.log(), "untraced-1", trace), within_s=60)


def test_a_collector_that_is_away_holds_nothing_up(vendor: Vendor, tmp_path: Path) -> None:
    environment = server_environment(tmp_path, vendor, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    with running_server(environment) as server:
        assert "errors" not in post(server, server.token("acme"), COMPLETE, {"input": asked("openai", "")})
        server.process.terminate()
        server.process.wait(timeout=20)  # well within what an orchestrator allows


def test_off_it_is_not_imported(tmp_path: Path) -> None:
    """FastAPI imports OpenTelemetry's API itself, which does nothing without the SDK."""
    program = """
import asyncio, json, sys
import gateway.server
from gateway.runtime import open_runtime
from gateway.settings import load_settings
from gateway.stores import DATABASE_FILE
from persistence.migrations.sqlite import migrate

async def main():
    settings = load_settings()
    migrate(settings.DATA_DIR / DATABASE_FILE)
    async with open_runtime(settings):
        print(json.dumps(sorted({"opentelemetry.sdk", "opentelemetry.exporter", "atatus"} & sys.modules.keys())))

asyncio.run(main())
"""
    environment = server_environment(tmp_path, None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


async def test_atatus_is_told_of_operations_and_calls(vendor: Vendor, tmp_path: Path) -> None:
    """By its own agent, to a server on a real socket: sums of times by name, and no text. Items of batches are in their
    submission's trace."""
    with running_sink() as sink:
        settings = {"ATATUS_LICENSE_KEY": "lic_1", "ATATUS_NOTIFY_HOST": sink.url, "ATATUS_APP_NAME": "gateway-eu"}
        with running_server(server_environment(tmp_path, vendor, **settings)) as server:
            token = server.token("acme")
            ask(server, token, asked("openai", "[[echo]] my question"), TRACEPARENT)
            ask(server, token, asked("groq", "[[400]]"))
            submit(server, {"inputs": [asked("mistral", "")]}, TRACEPARENT, "atatus-1")
            await until(lambda: completions_of(server.log(), "atatus-1", TRACE), within_s=60)
        (sent,) = [json.loads(body) for body in sink.bodies("/track/apm/txn")]
        assert sent["appName"] == "gateway-eu"
        told = {each["name"]: each for each in sent["transactions"]}
        assert {name: each["durations"][0] for name, each in told.items()} == {
            "mutation Complete": 2,
            "mutation Submit": 1,
            "process batch-item": 1,
        }
        assert calls_in(told["mutation Complete"]) == {
            "chat openai/gpt-4o-mini": 1,
            "chat groq/llama-3.3-70b-versatile": 1,
        }
        assert calls_in(told["process batch-item"]) == {"chat mistral/mistral-small-latest": 1}
        assert not [each for each in sink.received if b"my question" in each.body or token.encode() in each.body]
        assert f"trace_id={TRACE}" in server.log()


def calls_in(transaction: dict[str, Any]) -> dict[str, int]:
    return {each["name"]: each["durations"][0] for each in transaction["traces"] if each["kind"] == "Remote"}


@pytest.mark.parametrize("extra", ["otel", "atatus"])
def test_a_missing_extra_is_told_by_its_name(tmp_path: Path, extra: str) -> None:
    variable, module = {
        "otel": ("OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry.exporter.otlp"),
        "atatus": ("ATATUS_LICENSE_KEY", "atatus"),
    }[extra]
    program = f"import sys; sys.modules[{module!r}] = None; from gateway.cli import main; main()"
    environment = server_environment(tmp_path, None, **{variable: "http://127.0.0.1:9"})
    command = [sys.executable, "-c", program, "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    told = f"{variable}: is set, and the extra {extra!r} is not installed: pip install '.[{extra}]'"
    assert told in " ".join(done.stderr.split())
