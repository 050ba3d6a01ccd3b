"""The running server under whatever can be made up: operations by schemathesis, from the schema that it tells;
documents, bodies and frames by hypothesis. A short run, the same each time; a long one by `make soak`, with SEED."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any

import httpx
import orjson
import psutil
import pytest
import schemathesis
from graphql import NameNode, ObjectFieldNode, ValueNode
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.graphql import nodes

from tests.e2e.processes import Server, Vendor, running_server, server_environment
from tests.e2e.raw_socket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, raw_socket
from tests.e2e.test_endpoint import TYPENAME

from .documents import bodies, documents, json_values, requests
from .verdicts import CLOSES, check_answer, check_errors, check_result

Run = Callable[..., None]
ORGANISATION = "fuzz"
SEED = int(os.environ.get("SEED", "1"))
GROWTH = 1.25  # of the second half of a long run; the first fills the caches
short = settings(
    max_examples=240,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
long = settings(short, max_examples=3000, derandomize=False)


@pytest.fixture(scope="module")
def fuzzed(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, which is alive at the end and has met nothing that it did not expect."""
    with running_server(server_environment(tmp_path_factory.mktemp("fuzzed"), vendor)) as server:
        yield server
        assert server.process.poll() is None
        assert "Traceback" not in server.log()
        assert "unexpected error" not in server.log()


@pytest.fixture(scope="module")
def client(fuzzed: Server) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {fuzzed.token(ORGANISATION)}", "content-type": "application/json"}
    with httpx.Client(headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(params=[pytest.param(short, id="short"), pytest.param(long, id="long", marks=pytest.mark.soak)])
def run(request: pytest.FixtureRequest, fuzzed: Server) -> Run:
    """Runs properties, that share the examples; a long run twice, and memory is about the same after both."""

    def run(*tests: Callable[..., None]) -> None:
        chosen = settings(request.param, max_examples=max(request.param.max_examples // len(tests), 4))
        properties = [chosen(test) for test in tests]
        if request.param is short:
            for each in properties:
                each()
            return
        process = psutil.Process(fuzzed.process.pid)
        for number in (SEED, SEED + 1):
            filled = process.memory_info().rss
            for each in properties:
                seed(number)(each)()
        assert process.memory_info().rss < GROWTH * filled

    return run


# Operations, by the schema


_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")


def _value(value: Any) -> ValueNode:
    """A JSON value as GraphQL writes it."""
    match value:
        case dict():
            names = (name for name in value if name.isidentifier() and name.isascii())
            return nodes.Object(
                [ObjectFieldNode(name=NameNode(value=name), value=_value(value[name])) for name in names]
            )
        case list():
            return nodes.List([_value(each) for each in value])
        case bool():
            return nodes.Boolean(value)
        case int():
            return nodes.Int(value)
        case str():
            return nodes.String(value)
        case _:
            return nodes.Null


_SCALARS: dict[str, st.SearchStrategy[ValueNode]] = {
    "JSON": json_values.map(_value),
    "BigInt": st.integers(-(2**70), 2**70).map(nodes.Int),
    "Decimal": (st.decimals(allow_nan=False, allow_infinity=False) | st.just("1.5")).map(nodes.String),
    "DateTime": st.datetimes(timezones=st.just(UTC)).map(lambda time: nodes.String(time.isoformat())),
    "Vector": st.lists(st.integers().map(nodes.Int), max_size=3).map(nodes.List),
}


@pytest.fixture(scope="module")
def operations(fuzzed: Server, client: httpx.Client) -> dict[str, Any]:
    """By root field: what makes cases of it."""
    for name, strategy in _SCALARS.items():
        schemathesis.graphql.scalar(name, strategy)
    schema = schemathesis.graphql.from_url(fuzzed.url, headers=dict(client.headers))
    found = [each.ok() for each in schema.get_all_operations()]
    assert len(found) > 30
    return {each.definition.field_name: each for each in found}


def test_no_operation_of_the_schema_is_answered_by_a_defect(
    operations: dict[str, Any], fuzzed: Server, client: httpx.Client, run: Run
) -> None:
    def answered(case: Any) -> None:
        check_answer(client.post(fuzzed.url, json={"query": case.body}))

    run(*(given(case=operation.as_strategy())(answered) for operation in operations.values()))


# Documents and bodies


def test_no_body_is_answered_by_a_defect(fuzzed: Server, client: httpx.Client, run: Run) -> None:
    @given(body=bodies)
    def answered(body: bytes) -> None:
        check_answer(client.post(fuzzed.url, content=body))

    run(answered)


def test_no_query_string_is_answered_by_a_defect(fuzzed: Server, client: httpx.Client, run: Run) -> None:
    @given(
        parameters=st.dictionaries(st.sampled_from(["query", "variables", "x"]), documents, max_size=3), raw=st.text()
    )
    def answered(parameters: dict[str, str], raw: str) -> None:
        encodable = {name: text.encode(errors="replace").decode() for name, text in parameters.items()}
        check_answer(client.get(fuzzed.url, params=encodable))
        check_answer(client.get(f"{fuzzed.url}?{httpx.QueryParams({'query': raw.encode(errors='replace').decode()})}"))

    run(answered)


def test_no_header_is_answered_by_a_defect(fuzzed: Server, client: httpx.Client, run: Run) -> None:
    names = st.sampled_from(["accept", "content-type", "content-encoding", "x-request-id", "origin", "x-forwarded-for"])
    values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30).map(
        str.strip
    )

    @given(headers=st.dictionaries(names, values, max_size=3))
    def answered(headers: dict[str, str]) -> None:
        sent = {name: value.encode("latin-1") for name, value in headers.items()}
        check_answer(client.post(fuzzed.url, json=TYPENAME, headers=sent))

    run(answered)


# Frames

_messages = st.one_of(
    st.builds(
        lambda name, payload: {"id": name, "type": "subscribe", "payload": payload},
        st.sampled_from(["1", "2", "", "é"]) | json_values,
        requests | json_values,
    ),
    st.builds(lambda name: {"id": name, "type": "complete"}, st.sampled_from(["1", "2", "3"])),
    st.builds(lambda payload: {"type": "ping", "payload": payload}, st.none() | st.just({}) | json_values),
    st.just({"type": "connection_init"}),
    json_values,
)
_frames = st.one_of(
    _messages.map(lambda message: frame(TEXT, json.dumps(message).encode())),
    _messages.map(lambda message: frame(TEXT, json.dumps(message).encode())),
    st.builds(
        frame,
        st.sampled_from([TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG, 0x3, 0xB]),
        st.binary(max_size=130),
        final=st.booleans(),
        masked=st.sampled_from([True, True, True, False]),
    ),
    st.binary(min_size=1, max_size=20),
)


async def told(server: Server, token: str | None, sent: list[bytes]) -> None:
    """Everything that a socket says to these frames, a last one that closes it among them, is as it must be."""
    async with raw_socket(server, token) as socket:
        try:
            for each in sent:
                await socket.send(each)
            await socket.send(frame(CLOSE, b"\x03\xe8"))
            socket.writer.write_eof()
            while True:
                opcode, data = await socket.receive()
                if opcode == TEXT:
                    check_message(orjson.loads(data))
                elif opcode == CLOSE:
                    assert int.from_bytes(data[:2] or b"\x03\xe8", "big") in CLOSES | {1000, 1005} | echoed(sent)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has been told all; how its end is seen depends on what was still on the way


def echoed(sent: list[bytes]) -> set[int]:
    """The codes of close frames that may have been among those sent."""
    return {int.from_bytes(each[6:8], "big") for each in sent if len(each) >= 8}


def check_message(message: Any) -> None:
    match message:
        case {"type": "next", "payload": dict(result)}:
            check_result(result)
        case {"type": "error", "payload": list(errors)}:
            check_errors(errors)
        case {"type": "connection_ack" | "pong"} | {"type": "complete", "id": str()}:
            pass
        case _:
            raise AssertionError(f"a message of no kind: {message}")


def test_no_frame_is_answered_by_a_defect(fuzzed: Server, client: httpx.Client, run: Run) -> None:
    @given(sent=st.lists(_frames, max_size=6), initialised=st.booleans())
    def answered(sent: list[bytes], initialised: bool) -> None:
        asyncio.run(told(fuzzed, fuzzed.token(ORGANISATION) if initialised else None, sent))
        check_answer(client.post(fuzzed.url, json=TYPENAME))

    run(answered)
