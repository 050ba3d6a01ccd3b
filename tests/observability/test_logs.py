"""What Fluent Bit sends, Elasticsearch keeps and Kibana shows, held to the lines of a real server. Neither of the three
can be had from a package registry: their files are checked here, and not by them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
import yaml

from tests.e2e.documents import COMPLETE
from tests.e2e.processes import post, running_server, running_vendor, server_environment
from tests.e2e.test_configs import publish
from tests.e2e.test_providers import asked, stream
from tests.e2e.test_tracing import ask
from tests.servers.ports import free_port

from .written import FOLDER

LOGS = FOLDER / "logs"
ELASTICSEARCH = LOGS / "elasticsearch"
FLUENT_BIT: dict[str, Any] = yaml.safe_load((LOGS / "fluent-bit.yaml").read_text())
PARSERS = {each["name"]: each for each in FLUENT_BIT["parsers"]}
TEMPLATE: dict[str, Any] = orjson.loads((ELASTICSEARCH / "index-template.json").read_bytes())
MAPPED: dict[str, dict[str, Any]] = TEMPLATE["template"]["mappings"]["properties"]
SAVED: Sequence[dict[str, Any]] = [
    orjson.loads(line) for line in (ELASTICSEARCH / "kibana.ndjson").read_bytes().splitlines()
]
TAKES = {
    "date": (str,),
    "keyword": (str,),
    "text": (str,),
    "boolean": (bool,),
    "long": (int,),
    "integer": (int,),
    "short": (int,),
    "float": (int, float),
    "scaled_float": (str,),
    "object": (list,),
}
LIMIT = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { requestsPerMinute } }"
LOG_FILE = f"/var/log/containers/ai-middleware-5d8f-x_ai-middleware_api-{'0f' * 32}.log"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Line = dict[str, Any]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Line]:
    """What a server in production writes, texts of completions among it."""
    folder = tmp_path_factory.mktemp("logged")
    variables = {"ENVIRONMENT": "PRODUCTION", "LOG_CONTENT": "true", "INTERNAL_PORT": str(free_port())}
    with running_vendor() as vendor, running_server(server_environment(folder, vendor, **variables)) as server:
        token = server.token("acme")
        ask(server, token, asked("openai", "[[tokens=5]]"), TRACEPARENT)
        assert asyncio.run(stream(server, token, asked("openai", "[[tokens=5]]")))
        publish(
            server, token, "greet", {"model": "openai/gpt-4o-mini", "messages": [{"role": "USER", "content": "Hi"}]}
        )
        assert "errors" not in post(server, token, COMPLETE, {"input": {"config": {"slug": "greet"}}})
        assert "errors" in post(server, token, COMPLETE, {"input": asked("openai", "[[400]]")})
        assert "errors" not in post(server, token, LIMIT, {"input": {"requestsPerMinute": 1}})
        assert any("errors" in post(server, token, COMPLETE, {"input": asked("openai", "")}) for _ in range(2))
        log = server.log()
    return [orjson.loads(line) for line in log.splitlines()]


@pytest.fixture(scope="module")
def completions(lines: Sequence[Line]) -> Sequence[Line]:
    found = [sent(line) for line in lines if line["event"] == "completion"]
    assert {line["outcome"] for line in found} == {"succeeded", "failed", "refused"}
    return found


def sent(line: Line) -> Line:
    """As Fluent Bit's filters leave it, by its own configuration."""
    event, file = PARSERS["event"], PARSERS["file"]
    names = re.fullmatch(file["regex"].replace("(?<", "(?P<").strip("^$"), LOG_FILE)
    assert names is not None
    time = line[event["time_key"]]
    assert datetime.strptime(time, event["time_format"].replace("%L", "%f")).date() is not None  # noqa: DTZ007
    rest = {name: value for name, value in line.items() if name != event["time_key"]}
    return {output("es")["time_key"]: time, **names.groupdict(), **rest}


def output(name: str) -> Mapping[str, Any]:
    (found,) = (each for each in FLUENT_BIT["pipeline"]["outputs"] if each["name"] == name)
    return dict(found)


def test_every_field_of_a_completion_is_mapped_by_its_type(completions: Sequence[Line]) -> None:
    for line in completions:
        for name, value in line.items():
            assert name in MAPPED, f"{name}: the index template has no mapping"
            assert value is None or type(value) in TAKES[MAPPED[name]["type"]], name


def test_every_mapped_field_is_written(completions: Sequence[Line]) -> None:
    """But for `message`, in which a line is that is no JSON."""
    assert {name for line in completions for name in line} == MAPPED.keys() - {"message"}


def test_other_lines_go_with_the_same_mapping(lines: Sequence[Line]) -> None:
    """Fields that it does not name are kept, and not searched."""
    assert TEMPLATE["template"]["mappings"]["dynamic"] is False
    for line in map(sent, lines):
        for name in line.keys() & MAPPED.keys():
            assert line[name] is None or type(line[name]) in TAKES[MAPPED[name]["type"]], name


def test_views_show_what_is_there(completions: Sequence[Line]) -> None:
    written = {name for line in completions for name in line} | {"message"}
    searches = [each for each in SAVED if each["type"] == "search"]
    assert len(searches) == 3
    for each in searches:
        used = {*each["attributes"]["columns"], *asked_for(each)}
        assert used <= MAPPED.keys()
        assert used <= written
        assert [name for name, _ in each["attributes"]["sort"]] == ["@timestamp"]


def asked_for(search: Mapping[str, Any]) -> Set[str]:
    """The fields of its KQL query: names before a colon."""
    source = orjson.loads(search["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    assert source["query"]["language"] == "kuery"
    return set(re.findall(r"([\w@]+) :", source["query"]["query"]))


def test_views_and_template_speak_of_the_stream_that_is_written() -> None:
    index = output("es")["index"]
    (view,) = (each for each in SAVED if each["type"] == "index-pattern")
    for pattern in (*TEMPLATE["index_patterns"], view["attributes"]["title"]):
        assert fnmatch(index, pattern)
    assert view["attributes"]["timeFieldName"] == output("es")["time_key"] == "@timestamp"
    for each in SAVED:
        assert {reference["id"] for reference in each["references"]} <= {view["id"]}
    role = orjson.loads((ELASTICSEARCH / "writer-role.json").read_bytes())
    assert [fnmatch(index, name) for each in role["indices"] for name in each["names"]] == [True]


def test_nothing_is_lost_or_sent_in_the_clear() -> None:
    """The disk keeps what waits, by one bound; certificates are verified; the password is no part of the file."""
    service, sends = FLUENT_BIT["service"], output("es")
    (reads,) = FLUENT_BIT["pipeline"]["inputs"]
    assert reads["storage.type"] == "filesystem"
    assert {service["storage.path"], reads["db"]} == {"/var/lib/fluent-bit/chunks", "/var/lib/fluent-bit/positions.db"}
    assert (sends["retry_limit"], sends["storage.total_limit_size"]) == ("no_limits", "2G")
    assert [sends[name] for name in ("tls", "tls.verify", "tls.verify_hostname")] == [True, True, True]
    assert (sends["http_user"], sends["http_passwd"]) == ("${ELASTICSEARCH_USER}", "${ELASTICSEARCH_PASSWORD}")
    assert any(fnmatch(LOG_FILE, path) for path in reads["path"].split(","))


def test_installing_tells_both(tmp_path: Path) -> None:
    """Against a server that notes what it is told."""
    noted: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:  # the standard library's name
            noted.append((self.command, self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_PUT  # noqa: N815  # this one too

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login elastic password of-elastic\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        given = {"ELASTICSEARCH_URL": url, "KIBANA_URL": url, "CREDENTIALS": str(tmp_path / "netrc"), "CA": "/dev/null"}
        environment = {"PATH": os.environ["PATH"], **given}
        subprocess.run(["sh", ELASTICSEARCH / "install.sh"], env=environment, check=True, capture_output=True)
        server.shutdown()
    policy = TEMPLATE["template"]["settings"]["index.lifecycle.name"]
    assert [(command, path) for command, path, _ in noted] == [
        ("PUT", f"/_ilm/policy/{policy}"),
        ("PUT", "/_index_template/ai-middleware-logs"),
        ("PUT", "/_security/role/ai-middleware-log-writer"),
        ("POST", "/api/saved_objects/_import?overwrite=true"),
    ]
    assert orjson.loads(noted[1][2]) == TEMPLATE
    assert (ELASTICSEARCH / "kibana.ndjson").read_bytes() in noted[3][2]
