"""No secret of the deployment's or an organisation's, and no text of a prompt or an answer, is anywhere but where it
belongs, after a day with everything that goes well and wrong: found by canaries in their place."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.sealing import Sealer
from tests.servers.collector import HTTPSink, running_sink
from tests.servers.ports import free_port

from ..processes import PROVIDERS, Vendor, running_server, server_environment
from .canaries import Canary, Group, Kind, Sink, canary, search
from .day import Day
from .servers import running_servers
from .sinks import commands_of, files_of, output_of, traces_of
from .traffic import Recorder, Traffic

ALLOWED: Mapping[tuple[Kind, Group], str] = {
    (Kind.MADE, Group.CREATION): "it is told there, and never again",
    (Kind.TEXT, Group.ANSWER): "the caller's own question, and what was answered",
    (Kind.PRESET, Group.ANSWER): "a config is read by those who may",
    (Kind.PRESET, Group.DOCUMENTS): "a config is kept to be used",
    (Kind.LICENCE, Group.TRACES): "it lets us in",
    (Kind.BATCH, Group.DOCUMENTS): "an item is kept to be worked on",
}


def deployment() -> tuple[dict[str, str], list[Canary]]:
    """Every secret that a deployment without servers is given, and the variables with them."""
    signing = canary("JWT_TOKEN_SECRET", pattern="canary/{}{{}}%/")
    masters = [secrets.token_bytes(32) for _ in range(2)]
    names = [b64encode(master).decode() for master in masters]
    canaries = [signing, *(Canary(f"ENCRYPTION_KEY {number}", Kind.SECRET, name) for number, name in enumerate(names))]
    variables = {"JWT_TOKEN_SECRET": signing.value, "ENCRYPTION_KEY": ",".join(names)}
    for number, provider in enumerate(PROVIDERS):
        name = f"{'AZURE_OPENAI' if provider == 'azure' else provider.upper()}_API_KEY"
        canaries.append(canary(name, pattern="sk-{}"))
        key = canaries[-1].value
        variables[name] = Sealer(*masters).seal(key) if number % 2 else key
    return variables, canaries


def leaks(canaries: Sequence[Canary], sinks: Sequence[Sink]) -> list[str]:
    return sorted(
        {
            f"{each.canary.name} ({each.form}) in {each.sink.name}: …{each.around.decode(errors='replace')}…"
            for each in search(canaries, sinks)
            if (each.canary.kind, each.sink.group) not in ALLOWED
        }
    )


def unseen(canaries: Sequence[Canary], sinks: Sequence[Sink]) -> set[tuple[Kind, Group]]:
    """What may be somewhere, and is not: then the day was none, or nobody looks."""
    return ALLOWED.keys() - {(each.canary.kind, each.sink.group) for each in search(canaries, sinks)}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    with recorder.client:
        yield recorder


def test_on_the_embedded_default(vendor: Vendor, recorder: Recorder, tmp_path: Path) -> None:
    """For people's logs, with Atatus' agent in the process, which is killed."""
    variables, canaries = deployment()
    licence = canary("ATATUS_LICENSE_KEY", Kind.LICENCE, "lic_{}")
    canaries.append(licence)
    with running_sink() as atatus:
        variables |= {"ATATUS_LICENSE_KEY": licence.value, "ATATUS_NOTIFY_HOST": atatus.url}
        embedded(vendor, recorder, tmp_path, variables, canaries, atatus)


def embedded(
    vendor: Vendor,
    recorder: Recorder,
    tmp_path: Path,
    variables: Mapping[str, str],
    canaries: list[Canary],
    atatus: HTTPSink,
) -> None:
    with running_server(server_environment(tmp_path, vendor, **variables)) as server:
        traffic = Traffic(server, recorder)
        traffic.run()
        processes = commands_of(server.process.pid)
        server.process.kill()
        processes.append(output_of(server.process))
    canaries += traffic.canaries
    sinks = [*recorder.sinks, *processes, *files_of(tmp_path), *traces_of(atatus)]
    found = leaks(canaries, sinks)
    assert found == [], "\n".join(found)
    assert unseen(canaries, sinks) == set()
    assert any(b"[key]" in sink.content for sink in recorder.sinks), "vendors repeat the key, and it is left out"


def test_on_a_site(vendor: Vendor, recorder: Recorder, tmp_path: Path) -> None:
    """With all servers and a collector of traces, and for machines' logs. Whoever looks would have found it in each of
    them."""
    with running_sink() as collector, running_servers() as servers:
        variables, canaries = deployment()
        variables |= servers.variables | {"CONSUMER_STATUS": "false", "INTERNAL_PORT": str(free_port())}
        canaries.append(canary("OTEL_EXPORTER_OTLP_HEADERS", Kind.LICENCE))
        variables |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={canaries[-1].value}",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }
        environment = server_environment(tmp_path, vendor, ENVIRONMENT="PRODUCTION", **variables)
        day = Day(servers, vendor, environment, recorder)
        day.run()
        canaries += [*servers.canaries, *day.canaries]
        assert {span.kind for span in collector.spans()} >= {2, 3, 4, 5}, "servers, calls to vendors, commits, workers"
        sinks = [*day.sinks, *recorder.sinks, *files_of(tmp_path), *servers.kept(), *traces_of(collector)]
        found = leaks(canaries, sinks)
        assert found == [], "\n".join(found)
        assert unseen(canaries, sinks) == set()
        planted = canary("planted")
        servers.plant(planted.value)
        sinks = [*plant(planted.value, vendor, recorder, tmp_path), *files_of(tmp_path), *servers.kept()]
        recorder.client.post(f"{collector.url}/{planted.value}")
        sinks += traces_of(collector)
        assert {each.sink.group for each in search([planted], sinks)} == set(Group)


def plant(text: str, vendor: Vendor, recorder: Recorder, folder: Path) -> list[Sink]:
    """Where the servers are not: in answers, in files, and in a process."""
    (folder / "spool").write_text(text)
    with (folder / "server.log").open("a") as log:
        log.write(text)
    recorder.client.get(f"{vendor.url}/{text}")
    recorder.client.get(f"{vendor.url}/metrics/{text}")
    recorder.client.post(f"{vendor.url}/{text}", json={"query": "mutation { mintToken }"})
    process = subprocess.Popen([sys.executable, "-c", "input()", text], stdin=subprocess.PIPE)
    try:
        return [*recorder.sinks, *commands_of(process.pid)]
    finally:
        process.communicate(b"\n")


@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda text: quote(text, safe=""),
        lambda text: quote(quote(text, safe=""), safe=""),
        lambda text: json.dumps({"key": [text]}),
        lambda text: json.dumps(json.dumps(text)),
        lambda text: text.encode().hex(),
        lambda text: text.encode().hex().upper(),
        *(partial(lambda before, text: b64encode(before + text.encode() + b"}").decode(), b"{" * n) for n in range(3)),
        lambda text: urlsafe_b64encode(text.encode()).decode(),
        lambda text: f"…{text[len(text) // 2 :]}",
        lambda text: f"{text[: -len(text) // 3]}…",
    ],
)
@pytest.mark.parametrize("pattern", ["{}", 'sk-{}"ü/?', "{} "])
def test_a_canary_is_told_in_every_form(written: Callable[[str], str], pattern: str) -> None:
    planted, other = canary("planted", pattern=pattern), canary("other")
    sink = Sink(Group.OUTPUT, "a log", f"before {written(planted.value)} after {other.name}".encode())
    (found,) = search([planted, other], [sink])
    assert found.canary is planted


@pytest.mark.parametrize("written", [str, lambda text: b64encode(b"ab" + text.encode()).decode()])
def test_what_the_server_makes_is_told_too(written: Callable[[str], str]) -> None:
    made = Canary("made", Kind.MADE, "aim_0123456789abcdefghijklmnopqrstuvwxyz")
    (found,) = search([made], [Sink(Group.ANSWER, "an answer", written(made.value).encode())])
    assert found.sink.name == "an answer"
