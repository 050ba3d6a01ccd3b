"""What Elasticsearch is told is what its API takes: held to the types of Elastic's own client, which are written from
the API's specification (https://github.com/elastic/elasticsearch-specification)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.missing import missing

from .test_logs import ELASTICSEARCH

PACKAGES = Path(__file__).parent / "elastic" / "node_modules"
REQUESTS = {
    "ilm-policy": "IlmPutLifecycleRequest",
    "index-template": "IndicesPutIndexTemplateRequest",
    "writer-role": "SecurityPutRoleRequest",
}


def told(file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ELASTICSEARCH / f"{file}.json").read_text())
    return found


def refusals(folder: Path, requests: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """What TypeScript has against them; empty where each is of its type."""
    if shutil.which("node") is None or not PACKAGES.is_dir():
        missing("Elastic's types need Node and npm: `make test` installs them into tests/observability/elastic")
    (folder / "node_modules").symlink_to(PACKAGES)
    lines = ["import type { estypes } from '@elastic/elasticsearch';"]
    for number, (kind, request) in enumerate(requests):
        lines.append(f"export const r{number}: estypes.{kind} = {json.dumps({'name': 'any', **request})};")
    (folder / "requests.ts").write_text("\n".join(lines))
    command = [
        PACKAGES / ".bin" / "tsc",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--module",
        "nodenext",
        "requests.ts",
    ]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_every_request_is_one_that_the_api_takes(tmp_path: Path) -> None:
    assert refusals(tmp_path, [(kind, told(file)) for file, kind in REQUESTS.items()]) == ""


def test_a_slip_is_seen(tmp_path: Path) -> None:
    slips = [
        ("ilm-policy", '"max_age"', '"max_aged"'),
        ("index-template", '"scaled_float"', '"scaledfloat"'),
        ("index-template", '"data_stream"', '"data_streams"'),
        ("writer-role", '"privileges"', '"privilege"'),
    ]
    wrong = [(REQUESTS[file], json.loads(json.dumps(told(file)).replace(right, slip))) for file, right, slip in slips]
    lines = re.findall(r"^requests\.ts\((\d+),\d+\): error", refusals(tmp_path, wrong), re.MULTILINE)
    assert {int(line) for line in lines} == {2, 3, 4, 5}
